"""EvoTok's training step: `small-64`, batch 16, float32, against the step as published, and what each lever is worth.

The levers are pulled one after another on the peer until what remains is ours; each one's share is what its pull took
off the step. Both sides train with a frozen random teacher of the encoder's size, AdamW and clipping, without LPIPS.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

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
from tokenizers_visual.evotok.losses import GeneratorLossSettings
from tokenizers_visual.evotok.official import to_official
from tokenizers_visual.evotok.teacher import Teacher
from tokenizers_visual.evotok.training import EvoTokTraining

BATCH, ROUNDS, GAN_ROUNDS = 16, 7, 3
LEAST_RATIO = 1.3
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
    """`EvoTokTraining`'s losses and one update a turn, without a Trainer around them (which costs both sides alike)."""

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
    """One step of both from the same weights: same loss, tables and weights. Returns the share of equal codes.

    Codes may part where two are equally near but for rounding; then the tables differ a little, as do the weights.
    """
    ours = OurStep(variant, SAME_RULE)
    peer = peer_of(ours, restart=False)
    images = pictures(ours.module.tokenizer.config, batch)
    before = peer.model.quantize.codebooks[0].weight.detach().clone()
    with torch.no_grad():
        codes = [ours.module.tokenizer.encode(images)[0], peer.model.eval()(images)[3]]
    peer.model.train()
    torch.testing.assert_close(ours(images), peer(images), rtol=1e-4, atol=1e-5)
    equal = float((codes[0] == codes[1]).float().mean())
    assert equal >= least_equal, f"only {equal:.2%} of the codes are equal"
    tables = [book.weight for book in peer.model.quantize.codebooks]
    assert not torch.equal(tables[0], before)
    if equal == 1:
        for level, table in zip(ours.module.tokenizer.quantizer.codebooks, tables, strict=True):
            torch.testing.assert_close(level.table, table, rtol=1e-4, atol=1e-5)
        last = peer.model.decoder.conv_out.weight
        torch.testing.assert_close(ours.module.tokenizer.pixel_decoder.conv_out.weight, last, rtol=0, atol=1e-4)
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


#: In the order in which they are pulled.
LEVERS: dict[str, Callable[[PlainStep], None]] = {
    "no figures that only a log reads": without_log_figures,
    "towers end at the tapped layer": without_unused_layers,
    "codes without the distance matrix": with_our_assignment,
    "sums without the one-hot matrix": with_our_statistics,
    "fused attention": with_fused_attention,
}
REST = "the rest (commitment, SiLU, codebook update)"


def compare() -> list[Comparison]:
    """The step without a discriminator, which the bar is for; its levers; and the steps with one."""
    equal = check()
    ours = OurStep("evotok/small-64", {})
    images = pictures(ours.module.tokenizer.config, BATCH)
    rungs: dict[str, PlainStep] = {}
    names = ["peer", *LEVERS]
    for pulled, name in enumerate(names):
        rungs[name] = peer_of(OurStep("evotok/small-64", SAME_RULE), restart=True)
        for pull in list(LEVERS.values())[:pulled]:
            pull(rungs[name])
    contenders = {name: Contender(lambda step=step: step(images)) for name, step in {**rungs, REST: ours}.items()}
    for contender in contenders.values():
        contender.run()
    seconds = interleaved(contenders, ROUNDS)
    case = f"small-64, batch {BATCH}, float32 ({equal:.2%} of codes equal)"
    found = [
        Comparison(f"{case}, {shares(seconds)}", "as published", seconds[REST], seconds["peer"], at_least=LEAST_RATIO)
    ]
    rows = list(seconds.items())
    found += [
        Comparison(f"lever: {name}", "without it", after, before)
        for (_, before), (name, after) in itertools.pairwise(rows)
    ]
    return found + with_discriminator(images)


def shares(seconds: dict[str, Figures]) -> str:
    """Of what the levers take off together, the part of each, by least figures; in the order they were pulled."""
    least = [figures.least for figures in seconds.values()]
    whole = least[0] - least[-1]
    parts = [
        f"{name} {(before - after) / whole:.0%}"
        for name, before, after in zip(list(seconds)[1:], least, least[1:], strict=False)
    ]
    return "saved by: " + ", ".join(parts)


def with_discriminator(images: Tensor) -> list[Comparison]:
    """With the published discriminator configured: before its first update, and from it on."""
    found = []
    for name, update, weight in (("before its first update", 1, 0.0), ("playing", 20000, 0.5)):
        ours = OurStep("evotok/small-64", {}, AdversarialSettings(), update)
        peer = peer_of(OurStep("evotok/small-64", SAME_RULE), restart=True, discriminator=True, gan_weight=weight)
        contenders = {"ours": Contender(lambda s=ours: s(images)), "peer": Contender(lambda s=peer: s(images))}
        for contender in contenders.values():
            contender.run()
        seconds = interleaved(contenders, GAN_ROUNDS)
        case = f"small-64, batch {BATCH}, with a discriminator, {name}"
        found.append(Comparison(case, "as published", seconds["ours"], seconds["peer"]))
    return found
