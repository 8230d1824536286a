"""Two ranks (gloo) train a segmentation model as one does at the same global batch.

The cross-entropy is a sum over a count of all labelled pixels, so it is that of one rank. The balance loss is not: its
fractions are those of one micro-batch (spec, section 9), and two halves of a batch are balanced otherwise than it is.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from lightning.pytorch import Callback, Trainer

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.training import CrossEarthSARSegmentation
from geospatial.raster_data import RasterData
from geospatial.raster_sources import RasterSource
from mmzoo.training.optimizers import OptimizerSettings

STEPS = 3
CLASSES = {0: "land", 1: "water"}
SMALL = {"domain": "amplitude", "value_range": [0, 2], "num_hidden_layers": 2, "hidden_size": 32, "mlp_ratio": 2}


class Kept(Callback):
    """The logged losses of each update."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {"train/cross_entropy": [], "train/balance": []}

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        for name, values in self.losses.items():
            values.append(float(trainer.callback_metrics[name]))


def trained(folder: Path, **flags: object) -> dict[str, torch.Tensor]:
    """Logged losses (STEPS,) and the model's weights after the last step."""
    torch.manual_seed(0)
    # A large eps: Adam makes steps of any gradient, and some are zero but for rounding.
    module = CrossEarthSARSegmentation(
        CLASSES,
        head="fpn",
        head_settings={"width": 8},
        overrides=SMALL,
        balance_weight=0.0,  # it is logged, and would move the weights apart
        optimizer=OptimizerSettings(lr=1e-3, eps=1e-3),
    )
    source = RasterSource(str(folder / "images"), str(folder / "masks"), split="train")
    given = RasterData([source], CLASSES, window=32, global_batch=4, steps_per_epoch=STEPS)
    kept = Kept()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    options = {"accelerator": "cpu", "devices": 1, "max_steps": STEPS, "limit_val_batches": 0, **quiet, **flags}
    Trainer(**options, log_every_n_steps=1, num_sanity_val_steps=0, callbacks=[kept]).fit(module, datamodule=given)
    return {
        **{name: torch.tensor(values, dtype=torch.float64) for name, values in kept.losses.items()},
        **{name: value.detach().clone() for name, value in module.model.state_dict().items()},
    }


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2"
    )
    torch.save(trained(Path(folder), strategy="ddp", devices=2), f"{folder}/{rank}.pt")


def test_two_ranks_log_the_cross_entropy_of_one_and_end_at_its_weights(tmp_path: Path, raster_at) -> None:
    for number in range(3):
        random = np.random.default_rng(number)
        mask = np.zeros((1, 48, 48), np.uint8)
        mask[..., : 12 + 8 * number] = 1
        mask[:, : 10 * number] = IGNORE  # windows with few labels: an average of the ranks' means would differ
        values = np.sqrt(random.gamma(4, np.where(mask == 1, 0.02, 0.2))).astype(np.float32)
        raster_at(tmp_path / "images" / f"{number}.tif", values)
        raster_at(tmp_path / "masks" / f"{number}.tif", mask, None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run_rank, (port, str(tmp_path)), nprocs=2)
    one, (two, other) = trained(tmp_path), [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in range(2)]
    for name, value in two.items():
        assert torch.equal(value, other[name]), name
        if name != "train/balance":
            torch.testing.assert_close(value, one[name], rtol=1e-6, atol=1e-6, msg=name)
    assert 0 < (two["train/balance"] - one["train/balance"]).abs().max() < 0.1
    assert one["train/cross_entropy"].unique().numel() == STEPS
