"""A tiny regression on 8-pixel pictures: data, model and config small enough for a dozen runs in seconds."""

import numpy as np
import pytest
from PIL import Image

from data_engine.build import BuildSettings, build_image_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """20 small pictures as shards, 7 of them for validation."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / f"{i:02}.png")
    build_image_shards(BuildSettings(root, root.parent / "shards", val_fraction=0.3))
    return root.parent / "shards"


@pytest.fixture
def config(shards, tmp_path_factory):
    """Path of a complete config; 13 training rows, 4 a step, an epoch of 3 steps; outside tmp_path, the run of some."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(f"""\
seed_everything: 3
trainer:
  accelerator: cpu
  max_steps: 8
  log_every_n_steps: 1
model:
  class_path: tiny_training.TinyTraining
  init_args:
    optimizer: {{lr: 1e-2, schedule: cosine, warmup_steps: 2, weight_decay: 0.1}}
data:
  class_path: mmzoo.training.data_module.ShardData
  init_args:
    index: {shards}
    transform:
      class_path: tiny_training.MeanColour
      init_args: {{noise: 0.1}}
    global_batch: 4
checkpoint:
  every_n_steps: 1
  keep: 20
""")
    return path
