"""Residual quantisation: codes alone, and codes with the statistics that a training step needs; time and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from mmzoo.ops.residual_vq import assign, code_statistics
from tests.benchmarks.memory import peak_mib
from tests.benchmarks.peers import residual_vq as dense
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, Figures, interleaved

VECTORS, LEVELS, SIZE, DIM = (1024, 8192), 2, 4096, 32
ROUNDS = 3
#: The aims on a CPU, set where one level has 2^25 distances; smaller cases are shown without a bar.
LEAST_RATIO = {"dense peer": 3.0, "ResidualVQ": 8.0}
LEAST_MEMORY_RATIO = 15.0
BARS_FROM = 2**25
#: Two implementations may part where the two best squared distances are closer than this, at unit scale.
NEAR_TIE = 1e-5
DECAY, SMOOTHING = 0.99, 1e-5  #: of the moving averages, and ResidualVQ's default eps


class Published(NamedTuple):
    """A case at the size of the published tokenizer: N vectors, L levels, K codes; the least ratio to ResidualVQ."""

    vectors: int
    levels: int
    size: int
    least_ratio: float


#: Only a training step, which moves averages and tables in place, and no dense peer: ResidualVQ takes a minute a step.
PUBLISHED = (Published(1024, 16, 32_768, 8.0), Published(8192, 4, 32_768, 10.0))
PUBLISHED_ROUNDS = 2


def case(vectors: int, levels: int | None = None, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Latents (N, D) and tables (L, K, D) whose scale falls with the level, as trained ones do."""
    levels, size = levels or LEVELS, size or SIZE
    random = torch.Generator().manual_seed(vectors)
    scales = 0.8 ** torch.arange(levels)[:, None, None]
    return torch.randn(vectors, DIM, generator=random), torch.randn(levels, size, DIM, generator=random) * scales


def ours_with_statistics(latent: Tensor, tables: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Codes, and counts and sums level by level, from the op."""
    codes, residual, statistics = assign(latent, tables), latent, []
    for table, level in zip(tables, codes.unbind(1), strict=True):
        statistics.append(code_statistics(level.contiguous(), residual, len(table)))
        residual = residual - table[level]
    return codes, statistics


def their_module(tables: Tensor, training: bool) -> tuple[ResidualVQ, Callable[[], Any]]:
    """ResidualVQ with equal tables, and a function that puts them back: each training step moves them."""
    levels, size, dim = tables.shape
    module = ResidualVQ(
        dim=dim, num_quantizers=levels, codebook_size=size, decay=DECAY, rotation_trick=False, straight_through=True
    )
    for layer, table in zip(module.layers, tables, strict=True):
        book = layer._codebook
        book.embed.data.copy_(table[None])
        book.embed_avg.copy_(table[None])
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.train(training)
    return module, lambda: module.load_state_dict(state)


def differing(latent: Tensor, tables: Tensor, ours: Tensor, theirs: Tensor) -> int:
    """How many codes differ. AssertionError unless every first difference of a vector is a near-tie."""
    residual, settled = latent, torch.ones(len(latent), dtype=torch.bool)
    for table, a, b in zip(tables, ours.unbind(1), theirs.unbind(1), strict=True):
        gap = (residual - table[a]).square().sum(1) - (residual - table[b]).square().sum(1)
        parted = (a != b) & settled
        assert bool((gap[parted].abs() < NEAR_TIE).all()), "the quantisers disagree by more than rounding"
        settled &= ~parted
        residual = residual - table[a]
    return int((ours != theirs).sum())


def check(latent: Tensor, tables: Tensor, module: ResidualVQ) -> str:
    """Equal codes and equal statistics before any timing; returns how many codes differ, for the line."""
    codes, statistics = ours_with_statistics(latent, tables)
    peer_codes, peer_statistics = dense.assign_with_statistics(latent, tables)
    parted = [differing(latent, tables, codes, peer_codes)]
    parted.append(differing(latent, tables, codes, module(latent[None])[1][0]))
    assert torch.equal(codes, assign(latent, tables))
    if not parted[0]:
        for (counts, sums), (peer_counts, peer_sums) in zip(statistics, peer_statistics, strict=True):
            assert torch.equal(counts, peer_counts)
            torch.testing.assert_close(sums, peer_sums, atol=1e-3, rtol=1e-4)
    return f"{parted[0]} and {parted[1]} of {codes.numel():,} codes differ"


def compare() -> list[Comparison]:
    """Two sizes, without and with statistics (ResidualVQ also updates its tables then), and the published ones."""
    found: list[Comparison] = []
    for vectors in VECTORS:
        latent, tables = case(vectors)
        for training, label in ((False, "codes"), (True, "codes + statistics")):
            module, restore = their_module(tables, training)
            verdict = check(latent, tables, module)
            ours, peer = (ours_with_statistics, dense.assign_with_statistics) if training else (assign, dense.assign)
            contenders = {
                "ours": Contender(lambda ours=ours, x=latent, t=tables: ours(x, t)),
                "dense peer": Contender(lambda peer=peer, x=latent, t=tables: peer(x, t)),
                "ResidualVQ": Contender(lambda module=module, x=latent: module(x[None]), restore),
            }
            name = f"N {vectors}, K {SIZE}, L {LEVELS}, {label}"
            barred = vectors * SIZE >= BARS_FROM
            found += _times(f"{name} ({verdict})", contenders, barred)
            found += _peaks(f"{name}, extra memory", contenders, barred)
    return found + [line for one in PUBLISHED for line in _published(one)]


def ours_averaging(latent: Tensor, tables: Tensor) -> Contender:
    """What ResidualVQ does in a training step, with the op: codes, then each level's averages and table, in place."""
    kept = tables.clone()
    counts, sums = torch.ones(tables.shape[:2]), tables.clone()

    def step() -> tuple[Tensor, Tensor]:
        codes, residual = assign(latent, kept), latent
        for number, level in enumerate(codes.unbind(1)):
            found = code_statistics(level.contiguous(), residual, kept.shape[1])
            residual = residual - kept[number, level]
            counts[number].lerp_(found[0].to(counts.dtype), 1 - DECAY)
            sums[number].lerp_(found[1].to(sums.dtype), 1 - DECAY)
            total = counts[number].sum()
            smoothed = (counts[number] + SMOOTHING) / (total + len(counts[number]) * SMOOTHING) * total
            torch.div(sums[number], smoothed[:, None], out=kept[number])
        return codes, kept

    def restore() -> None:
        kept.copy_(tables)
        counts.fill_(1)
        sums.copy_(tables)

    return Contender(step, restore)


def _published(one: Published) -> list[Comparison]:
    latent, tables = case(one.vectors, one.levels, one.size)
    module, restore = their_module(tables, training=True)
    codes = assign(latent, tables)
    parted = differing(latent, tables, codes, module(latent[None])[1][0])
    contenders = {
        "ours": ours_averaging(latent, tables),
        "ResidualVQ": Contender(lambda: module(latent[None]), restore),
    }
    name = f"N {one.vectors}, K {one.size}, L {one.levels}, training step"
    seconds = interleaved(contenders, PUBLISHED_ROUNDS)
    peaks = {peer: Figures((peak_mib(contender.run),)) for peer, contender in contenders.items()}
    timed = f"{name} ({parted} of {codes.numel():,} codes differ)"
    return [
        Comparison(timed, "ResidualVQ", seconds["ours"], seconds["ResidualVQ"], at_least=one.least_ratio),
        Comparison(
            f"{name}, extra memory",
            "ResidualVQ",
            peaks["ours"],
            peaks["ResidualVQ"],
            "MiB",
            at_least=LEAST_MEMORY_RATIO,
        ),
    ]


def _times(name: str, contenders: Mapping[str, Contender], barred: bool) -> list[Comparison]:
    seconds = interleaved(contenders, ROUNDS)
    return [
        Comparison(name, peer, seconds["ours"], seconds[peer], at_least=bar if barred else None)
        for peer, bar in LEAST_RATIO.items()
    ]


def _peaks(name: str, contenders: Mapping[str, Contender], barred: bool) -> list[Comparison]:
    peaks = {peer: Figures((peak_mib(contender.run),)) for peer, contender in contenders.items()}
    bar = LEAST_MEMORY_RATIO if barred else None
    return [Comparison(name, peer, peaks["ours"], peaks[peer], "MiB", at_least=bar) for peer in LEAST_RATIO]
