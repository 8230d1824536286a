"""EvoTok's training step: `small-64`, batch 16, float32, against the step as published, and what each lever is worth.

The published step has its discriminator from the start and evaluates it at weight 0 until update 20,000, which is all
of small-64's training. The levers are pulled one after another on the peer until what remains is ours; each one's share
is what its pull took off the step. Both sides train with a frozen random teacher of the encoder's size, AdamW and
clipping, without LPIPS. Figures are seconds of the processor, which other work on the machine disturbs less than those
of a clock.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SiglipVisionModel

from mmzoo.ops.residual_vq import code_statistics, nearest
from mmzoo.training.optimizers import OptimizerSettings
from tests.benchmarks.peers.evotok_step import PlainStep, PlainTokenizer
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, Figures, interleaved
from tokenizers_visual.evotok.adversarial import AdversarialSettings
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.discriminator import DiscriminatorSettings, PatchDiscriminator
from tokenizers_visual.evotok.family import SMALL_64
from tokenizers_visual.evotok.losses import GeneratorLossSettings
from tokenizers_visual.evotok.official import to_official
from tokenizers_visual.evotok.teacher import Teacher
from tokenizers_visual.evotok.training import EvoTokTraining

BATCH, ROUNDS = 16, 7
LEAST_RATIO = 1.3
UNIT = "CPU s"
SEMANTIC_WEIGHT = 0.1  # as in the config of small-64
OPTIMIZER = OptimizerSettings(lr=1e-3)
#: Settings with which both sides learn their codebooks by the same rule, for the check before any timing.
SAME_RULE = {"quantizer_mode": "faithful", "vq_warmup": 1, "restart_unused_codes": False}


def pictures(config: EvoTokConfig, batch: int) -> Tensor:
    """Smooth random images (B, 3, S, S) in [-1, 1]."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 8, 8, generator=random) * 2 - 1
    return F.interpolate(coarse, size=(config.image_size, config.image_size), mode="bicubic").clamp(-1, 1)


def a_teacher(config: EvoTokConfig) -> SiglipVisionModel:
    torch.manual_seed(1)
    return SiglipVisionModel(config.encoder_config())


class OurStep:
    """`EvoTokTraining`'s losses and one update a turn, number `update`; no Trainer, as on the other side."""

    def __init__(
        self, variant: str, overrides: dict, adversarial: AdversarialSettings | None = None, update: int = 1
    ) -> None:
        torch.manual_seed(2)
        losses = GeneratorLossSettings(semantic_weight=SEMANTIC_WEIGHT)
        self.module = EvoTokTraining(variant, overrides, losses, optimizer=OPTIMIZER, adversarial=adversarial).train()
        config = self.module.tokenizer.config
        self.teacher = a_teacher(config)
        self.module.teacher = Teacher(self.teacher, f"encoder.layers.{config.encoder_depth_run - 1}")
        for part in (self.module.tokenizer.semantic_decoder, self.module.tokenizer.decode_head):
            part.requires_grad_(True)
        self.module.updates_made = update - 1
        self.optimizers = {}
        for turn in self.module.turns:
            network, settings = self.module.optimizer_for(turn)
            weights = [p for p in network.parameters() if p.requires_grad]
            self.optimizers[turn] = torch.optim.AdamW(weights, settings.lr, settings.betas, weight_decay=0.0)

    def __call__(self, images: Tensor) -> Tensor:
        found = [self._turn(turn, images) for turn in self.module.turns]
        assert found[0] is not None
        return found[0]

    def _turn(self, turn: str, images: Tensor) -> Tensor | None:
        if self.module.adversary is not None:
            self.module.adversary.requires_grad_(turn != "model")
        loss = self.module.losses({"image": images}, turn)
        if loss is None:
            return None
        self.optimizers[turn].zero_grad()
        loss.total.backward()
        weights = [p for group in self.optimizers[turn].param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizers[turn].step()
        return loss.total.detach()


def peer_of(ours: OurStep, *, restart: bool, discriminator: bool = False, gan_weight: float = 0.0) -> PlainStep:
    """The plain step from the same weights, teacher and (freshly drawn) discriminator."""
    config = ours.module.tokenizer.config
    model = PlainTokenizer(config, warmup=config.vq_warmup, restart=restart)
    official = to_official(ours.module.tokenizer.state_dict(), config, None)
    official.pop("quantize.codebook_used")
    model.load_state_dict({name.replace(".vision_model.", "."): value for name, value in official.items()})
    judge = PatchDiscriminator(DiscriminatorSettings()) if discriminator else None
    return PlainStep(model, ours.teacher, judge, gan_weight, SEMANTIC_WEIGHT)


def check(variant: str = "evotok/small-64", batch: int = BATCH, least_equal: float = 0.999) -> float:
    """Two steps of both from the same weights: same losses, moved tables. Returns the share of equal codes at first.

    Codes may part where two are equally near but for rounding; then losses and tables differ a little, too.
    """
    ours = OurStep(variant, SAME_RULE)
    peer = peer_of(ours, restart=False)
    images = pictures(ours.module.tokenizer.config, batch)
    table, level = peer.model.quantize.codebooks[0].weight, ours.module.tokenizer.quantizer.codebooks[0]
    before = table.detach().clone()
    with torch.no_grad():
        codes = [ours.module.tokenizer.encode(images)[0], peer.model.eval()(images)[3]]
    peer.model.train()
    equal = float((codes[0] == codes[1]).float().mean())
    assert equal >= least_equal, f"only {equal:.2%} of the codes are equal"
    for _ in range(2):  # in the first, the published rule learns nothing
        torch.testing.assert_close(ours(images), peer(images), rtol=1e-4, atol=1e-5)
    assert not torch.equal(table, before)
    torch.testing.assert_close(level.table, table, rtol=1e-3, atol=1e-3)
    return equal


def to_the_tap(tower: SiglipVisionModel, pixels: Tensor) -> Tensor:
    """The penultimate layer's features without what comes after it."""
    hidden = tower.embeddings(pixels)
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None)
    return hidden


def without_log_figures(peer: PlainStep) -> None:
    peer.model.quantize.note_usage = lambda codes: None
    peer.model.quantize.note_distances = lambda distances, number: None


def without_unused_layers(peer: PlainStep) -> None:
    peer.model.features = to_the_tap


def with_our_assignment(peer: PlainStep) -> None:
    peer.model.quantize.assign = lambda book, residual, number: nearest(residual, book.weight.data[:-1])


def with_our_statistics(peer: PlainStep) -> None:
    for book in peer.model.quantize.codebooks:
        book.statistics = lambda x, codes, size=book.size: code_statistics(codes, x, size)


def with_fused_attention(peer: PlainStep) -> None:
    for module in peer.model.modules():
        if hasattr(module, "attend"):
            module.attend = F.scaled_dot_product_attention


def without_discriminator(peer: PlainStep) -> None:
    peer.discriminator = None


#: In the order in which they are pulled.
LEVERS: dict[str, Callable[[PlainStep], None]] = {
    "no discriminator before its first update": without_discriminator,
    "no figures that only a log reads": without_log_figures,
    "towers end at the tapped layer": without_unused_layers,
    "codes without the distance matrix": with_our_assignment,
    "sums without the one-hot matrix": with_our_statistics,
    "fused attention": with_fused_attention,
}
REST = "the rest of our step"


def published(gan_weight: float) -> PlainStep:
    """The plain step with restarts and a discriminator whose losses count `gan_weight`."""
    return peer_of(OurStep("evotok/small-64", SAME_RULE), restart=True, discriminator=True, gan_weight=gan_weight)


def compare() -> list[Comparison]:
    """The step before the discriminator's first update, which the bar is for; without one; its levers; and with it."""
    equal = check()
    steps: dict[str, Callable[[Tensor], Tensor]] = {}
    for pulled, name in enumerate(["peer", *LEVERS]):
        steps[name] = peer = published(0.0)
        for pull in list(LEVERS.values())[:pulled]:
            pull(peer)
    start = AdversarialSettings().start
    steps[REST] = OurStep("evotok/small-64", {}, AdversarialSettings())
    steps["playing"] = OurStep("evotok/small-64", {}, AdversarialSettings(), start)
    steps["playing peer"] = published(AdversarialSettings().weight)
    seconds = timed(steps)
    ladder = {name: seconds[name] for name in ["peer", *LEVERS, REST]}
    case, first = f"small-64, batch {BATCH}, float32", next(iter(LEVERS))
    before = f"{case}, before update {start} ({equal:.2%} of codes equal; saved by: {shares(ladder)})"
    found = [_against(before, ladder["peer"], ladder[REST], at_least=LEAST_RATIO)]
    found.append(_against(f"{case}, no discriminator on either side", ladder[first], ladder[REST]))
    found.append(_against(f"{case}, discriminator playing", seconds["playing peer"], seconds["playing"]))
    for (_, without), (name, pulled) in itertools.pairwise(ladder.items()):
        found.append(Comparison(f"lever: {name}", "without it", pulled, without, UNIT))
    return found


def timed(steps: Mapping[str, Callable[[Tensor], Tensor]]) -> dict[str, Figures]:
    """Processor seconds of each step on the same pictures, after one step to warm up."""
    images = pictures(EvoTokConfig(**SMALL_64), BATCH)
    contenders = {name: Contender(lambda step=step: step(images)) for name, step in steps.items()}
    for contender in contenders.values():
        contender.run()
    return interleaved(contenders, ROUNDS, time.process_time)


def _against(case: str, peer: Figures, ours: Figures, at_least: float | None = None) -> Comparison:
    return Comparison(case, "as published", ours, peer, UNIT, at_least)


def shares(ladder: Mapping[str, Figures]) -> str:
    """Of what all levers take off together, the part of each, by least figures; in the order of pulling."""
    least = [figures.least for figures in ladder.values()]
    whole = least[0] - least[-1]
    parts = zip(list(ladder)[1:], itertools.pairwise(least), strict=True)
    return ", ".join(f"{name} {(before - after) / whole:.0%}" for name, (before, after) in parts)
