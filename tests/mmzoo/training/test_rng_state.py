# ruff: noqa: NPY002 - the legacy global generator is what is saved
import random

import numpy as np
import torch

from mmzoo.training import rng_state


def draw():
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()]


def test_states_survive_a_file_and_every_generator_continues(tmp_path):
    random.gauss(0, 1), np.random.randn()  # leave a cached second value in both
    other_rank = rng_state.capture()
    random.random(), torch.rand(1)
    states = rng_state.capture()
    expected = draw()
    rng_state.save([other_rank, states], tmp_path / "rng.safetensors")
    draw()
    rng_state.restore(rng_state.load(tmp_path / "rng.safetensors", rank=1))
    assert draw() == expected
    assert rng_state.load(tmp_path / "rng.safetensors", rank=2) is None
