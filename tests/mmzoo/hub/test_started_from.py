"""A training that starts from a model folder keeps its receipt, without the names of all tensors."""

from __future__ import annotations

import json
from pathlib import Path

from mmzoo.training.checkpoints import initialise_from
from tokenizers_visual.evotok.training import EvoTokTraining


def test_a_training_keeps_the_receipt_of_its_weights(folder: Path) -> None:
    module = EvoTokTraining("evotok/tiny", overrides={"ema_decay": 0.9, "kmeans_init": True})
    initialise_from(module, folder)
    entry = json.loads(json.dumps(module.receipts))[0]
    zoo = json.loads((folder / "zoo.json").read_text())
    assert entry["receipt"]["files"] == {"model.safetensors": zoo["files"]["model.safetensors"]["sha256"]}
    assert "origins" not in entry["receipt"]
    assert module.variant == "evotok/tiny with ema_decay=0.9, kmeans_init=True"
    assert EvoTokTraining("evotok/tiny").variant == "evotok/tiny"
