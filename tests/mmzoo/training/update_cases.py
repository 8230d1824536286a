"""Modules with label-like counts and with two optimisers, and short trainings of them for any number of ranks."""

import logging
import os

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn import functional as F

from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings
from mmzoo.training.window import Window

LABELS = (3, 200, 5, 120)


class Labels(ZooModule):
    """Classifies tokens; a second part, weighted, has one term a sequence: its counts are not in proportion."""

    def __init__(self):
        super().__init__(OptimizerSettings(lr=0.1))
        torch.manual_seed(0)
        self.net = nn.Linear(6, 4)
        self.gradients = {}

    def loss_counts(self, batch):
        return {"token": (batch["labels"] >= 0).sum(), "sequence": len(batch["lengths"])}

    def losses(self, batch, turn):
        logits = self.net(batch["tokens"])
        labels = batch["labels"]
        token = LossSum(F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum"), (labels >= 0).sum())
        first = torch.stack([part[0] for part in logits.split(batch["lengths"])])
        sequence = LossSum(first.square().sum(), len(batch["lengths"]))
        return WeightedLoss({"token": token, "sequence": sequence}, {"token": 1.0, "sequence": 0.3})

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.gradients = {name: p.grad.clone() for name, p in self.named_parameters()}


def label_batches():
    """One micro-batch a number of LABELS; about as many tokens again are no labels."""
    random = torch.Generator().manual_seed(1)
    batches = []
    for labels in LABELS:
        tokens = torch.randn(2 * labels, 6, generator=random)
        target = torch.full((2 * labels,), len(batches))  # each micro-batch pulls elsewhere
        target[1::2] = -1
        batches.append({"tokens": tokens, "labels": target, "lengths": [labels, labels]})
    return batches


def joined(batches):
    return {
        "tokens": torch.cat([b["tokens"] for b in batches]),
        "labels": torch.cat([b["labels"] for b in batches]),
        "lengths": [length for b in batches for length in b["lengths"]],
    }


class Gan(ZooModule):
    """A generator and a critic; the critic may wait for its first `critic_from` updates."""

    turns = ("generator", "critic")

    def __init__(self, critic_from=0, lr=(0.01, 0.02)):
        super().__init__()
        torch.manual_seed(2)
        self.generator = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        self.critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))
        self.critic_from = critic_from
        self.lr = dict(zip(self.turns, lr, strict=True))
        self.norms = []

    def optimizer_for(self, turn):
        warmup = {"generator": 2, "critic": 3}[turn]
        settings = OptimizerSettings(lr=self.lr[turn], betas=(0.5, 0.9), schedule="linear", warmup_steps=warmup)
        return getattr(self, turn), settings

    def loss_counts(self, batch):
        return {name: len(batch["noise"]) for name in ("generator", "real", "fake")}

    def losses(self, batch, turn):
        fake = self.generator(batch["noise"])
        if turn == "generator":
            return WeightedLoss.of(LossSum(F.softplus(-self.critic(fake)).sum(), len(fake)), "generator")
        if self.updates_made < self.critic_from:
            return None
        real = F.softplus(-self.critic(batch["real"])).sum()
        parts = {"real": LossSum(real, len(fake)), "fake": LossSum(F.softplus(self.critic(fake)).sum(), len(fake))}
        return WeightedLoss(parts, {"real": 1.0, "fake": 2.0})

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.norms.append(float(sum(p.grad.square().sum() for g in optimizer.param_groups for p in g["params"]) ** 0.5))


def gan_batches(updates, size=12):
    random = torch.Generator().manual_seed(3)
    shapes = {"noise": 3, "real": 2}
    return [{k: torch.randn(size, width, generator=random) for k, width in shapes.items()} for _ in range(updates)]


def share(batch, rank, ranks, sizes=None):
    """A rank's rows of a batch of tensors; `sizes`: how many each rank has."""
    return {k: v.split(sizes or len(v) // ranks)[rank] for k, v in batch.items()}


def windows(batches, parts):
    """Each batch cut into micro-batches of these sizes."""
    return [Window([{k: v.split(parts)[i] for k, v in b.items()} for i in range(len(parts))]) for b in batches]


class Stream:
    """What Lightning takes for one loader; of a list it would make several."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def trained(module, batches, strategy="auto", devices=1, **flags):
    """The module after one pass over `batches` (an update each), and the trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        max_steps=flags.pop("max_steps", len(batches)),
        logger=flags.pop("logger", False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{"log_every_n_steps": 1, **flags},
    )
    trainer.fit(module, train_dataloaders=Stream(batches))
    return module, trainer


def be_rank(rank, ranks, port):
    """Sets this process up as a rank that Lightning did not start itself."""
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(ranks)
    )
