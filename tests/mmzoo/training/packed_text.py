"""A language model over bytes, small enough for a dozen runs in seconds, that is trained on packs of conversations.

Imported by class path, as a family's would be.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from data_engine.pack_layout import IGNORE, PackLayout
from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings


def byte_lengths(index):
    """Tokens of a row: its characters, which are ASCII here, and one that ends each turn."""
    text = index.fact_columns().text_characters + 2
    return np.stack([text, np.zeros_like(text)], axis=1)


class ByteConversation:
    """Bytes of the turns, each ended by 0, cut where the plan says; what the assistant says is to be learnt.

    `noise`: share of the bytes that the sample's randomness replaces.
    """

    def __init__(self, noise: float = 0.0):
        self.noise = noise

    def __call__(self, sample, random):
        turns = [
            (turn.role, np.frombuffer(f"{turn.text}\0".encode(), np.uint8)) for turn in sample.fields["conversation"]
        ]
        ids = np.concatenate([text for _, text in turns]).astype(np.int64)
        learnt = np.concatenate([np.full(len(text), role == "assistant") for role, text in turns])
        limit = sample.meta["planned"]["text_tokens"]
        ids = np.where(random.random(len(ids)) < self.noise, random.integers(1, 256, len(ids)), ids)
        return {"ids": ids[:limit], "labels": np.where(learnt, ids, IGNORE)[:limit]}


class ByteConfig(PretrainedConfig):
    model_type = "bytes_for_tests"

    def __init__(self, width: int = 16, longest: int = 128, **kwargs):
        super().__init__(**kwargs)
        self.width, self.longest = width, longest


class ByteModel(PreTrainedModel):
    """One block of attention."""

    config_class = ByteConfig

    def __init__(self, config):
        super().__init__(config)
        self.bytes = nn.Embedding(256, config.width)
        self.places = nn.Embedding(config.longest, config.width)
        self.attention = nn.Linear(config.width, 3 * config.width, bias=False)
        self.head = nn.Linear(config.width, 256)
        self.post_init()

    def forward(self, ids, position_ids, mask):
        hidden = self.bytes(ids) + self.places(position_ids)
        query, key, value = self.attention(hidden).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], attn_mask=mask)
        return self.head(hidden + seen[:, 0])


def packed_loss(model, batch, mask=None):
    """(sum, count) of the cross entropy over the labels of a packed batch; `mask`: another one than the layout's."""
    layout = PackLayout.of(batch, "ids")
    logits = model(layout.padded(batch["ids"], 0), layout.positions(), layout.mask() if mask is None else mask(layout))
    wanted = layout.following(batch["labels"])
    loss = F.cross_entropy(layout.unpadded(logits), wanted, ignore_index=IGNORE, reduction="sum")
    return loss, (wanted != IGNORE).sum()


class ByteTraining(ZooModule):
    """Appends a line per batch to `seen.jsonl` in the run folder: step, ids, packs, and a hash of each sample."""

    best_metric = ("val/loss", "min")

    def __init__(self, optimizer: OptimizerSettings | None = None):
        super().__init__(optimizer)
        self.model = ByteModel(ByteConfig())

    def loss_counts(self, batch):
        layout = PackLayout.of(batch, "ids")
        return {"tokens": (layout.following(batch["labels"]) != IGNORE).sum()}

    def losses(self, batch, turn):
        hashes = [hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:16] for ids in batch["ids"]]
        packs = batch["pack_starts"].diff().tolist()
        sizes = [len(ids) for ids in batch["ids"]]
        line = {"step": self.updates_made + 1, "ids": batch["sample_ids"], "bytes": hashes, "packs": packs}
        file = os.open(Path(self.trainer.default_root_dir) / "seen.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (json.dumps({**line, "sizes": sizes}) + "\n").encode())
        os.close(file)
        return WeightedLoss.of(LossSum(*packed_loss(self.model, batch)), "tokens")

    def validation_step(self, batch, batch_idx):
        self.log_ratio("val/loss", *packed_loss(self.model, batch))
