"""Two ranks (gloo) make the update that one makes at the same global batch: sums over counts, turns, whole EvoTok."""

import socket

import pytest
import torch
import torch.multiprocessing as mp
from update_cases import (
    Gan,
    Labels,
    be_rank,
    gan_batches,
    joined,
    label_batches,
    share,
    trained,
    windows,
)

from mmzoo.training.optimizers import OptimizerSettings
from mmzoo.training.window import Window
from tokenizers_visual.evotok.adversarial import AdversarialSettings
from tokenizers_visual.evotok.discriminator import DiscriminatorSettings
from tokenizers_visual.evotok.losses import GeneratorLossSettings
from tokenizers_visual.evotok.training import EvoTokTraining

IMAGES, UPDATES = 6, 3


def evotok():
    """All parts of the loss but the perceptual, codebooks that move, a late discriminator that knows no batch
    statistics, clipping. A large eps: Adam makes steps of any gradient, and some are zero but for rounding, as of the
    key's bias in attention."""
    torch.manual_seed(4)
    optimizer = OptimizerSettings(lr=1e-3, eps=1e-3, schedule="cosine")
    overrides = {"ema_decay": 0.9, "restart_unused_codes": False}
    adversarial = AdversarialSettings(start=2, discriminator=DiscriminatorSettings(8, 2, "group"))
    losses = GeneratorLossSettings()
    module = EvoTokTraining("evotok/tiny", overrides, losses, optimizer=optimizer, adversarial=adversarial)
    # Stands in for a teacher: fixed features, of which no weights travel.
    module.teacher = FixedTeacher()
    for decoder in (module.model.semantic_decoder, module.model.decode_head):
        decoder.requires_grad_(True)
    return module


class FixedTeacher(torch.nn.Module):
    def forward(self, images, grid):
        pooled = torch.nn.functional.adaptive_avg_pool2d(images, grid).flatten(2).transpose(1, 2)
        return torch.cat([torch.sin(pooled * (i + 1)) for i in range(22)], -1)[..., :64]


def images():
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand(UPDATES, IMAGES, 3, 4, 4, generator=random) * 2 - 1
    return [{"image": torch.nn.functional.interpolate(batch, size=(32, 32), mode="bilinear")} for batch in coarse]


def results(rank, ranks):
    """Name -> tensors of three trainings; several ranks get uneven shares, as after a broken sample."""
    flags = {"strategy": "ddp", "devices": 2} if ranks == 2 else {}
    batches = label_batches()
    # One rank: the big batch. Two: micro-batches of 3 and 200 labels here, of 5 and 120 there.
    own = [Window(batches[2 * rank : 2 * rank + 2])] if ranks == 2 else [joined(batches)]
    labels, trainer = trained(Labels(), own, **flags)
    logged = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
    found = {f"labels/{k}": v for k, v in {**labels.gradients, **logged}.items()}

    gan = [share(batch, rank, ranks, [8, 4]) if ranks == 2 else batch for batch in gan_batches(4)]
    parts = {(0, 1): [12], (0, 2): [5, 3], (1, 2): [1, 3]}[rank, ranks]
    module, trainer = trained(Gan(critic_from=1), windows(gan, parts), gradient_clip_val=0.1, **flags)
    assert trainer.global_step == 4
    found |= {f"gan/{k}": v for k, v in module.state_dict().items()}

    own = [share(batch, rank, ranks, [4, 2]) if ranks == 2 else batch for batch in images()]
    parts = {(0, 1): [6], (0, 2): [3, 1], (1, 2): [0, 2]}[rank, ranks]
    module, trainer = trained(evotok(), windows(own, parts), gradient_clip_val=1.0, **flags)
    found |= {f"evotok/{k}": v for k, v in module.state_dict().items()}
    logged = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
    logged.pop("train/usage")  # of the codes in one micro-batch: no sum over terms, so it depends on the cut
    found |= {f"evotok/{k}": v.float() for k, v in logged.items()}
    return {k: v.detach().clone() for k, v in found.items()}


def run_rank(rank, port, folder):
    be_rank(rank, 2, port)
    torch.save(results(rank, 2), f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(what one rank found, what each of two found)"""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run_rank, (port, str(folder)), nprocs=2)
    return results(0, 1), [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", ["labels", "gan", "evotok"])
def test_two_ranks_make_the_update_of_one(both, case):
    one, two = both
    names = [name for name in one if name.startswith(case)]
    assert len(names) >= 5
    assert one.keys() == two[0].keys() == two[1].keys()
    for name in names:
        assert torch.equal(two[0][name], two[1][name]), name
        torch.testing.assert_close(two[0][name], one[name], rtol=1e-6, atol=1e-6, msg=name)


def test_the_trainings_above_moved_something(both):
    one, _ = both
    start = evotok().state_dict()
    moved = [name for name, value in start.items() if not torch.equal(one[f"evotok/{name}"], value)]
    assert {"model.quantizer.levels.0.table", "model.encoder.layers.0.mlp.fc1.weight"} <= set(moved)
    assert {"adversary.updates", "adversary.discriminator.main.0.weight"} <= set(moved)
