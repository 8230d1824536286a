"""The residual quantiser's op: fast == reference, ties, bounded memory, true float32 whatever the process is set to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mmzoo.ops.residual_vq import (
    assign,
    code_statistics,
    code_statistics_reference,
    nearest,
    reference,
    sum_codes,
    usage,
)


def random_case(seed: int, vectors: int, levels: int, size: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    scales = 0.8 ** torch.arange(levels)[:, None, None]
    latent = torch.randn(vectors, dim, generator=random)
    return latent, torch.randn(levels, size, dim, generator=random) * scales


def best_gap(residual: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Second smallest minus smallest squared distance (N,)."""
    distances = (residual[:, None] - table[None]).square().sum(-1)
    best = distances.topk(min(2, table.shape[0]), largest=False).values
    return best[:, -1] - best[:, 0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vectors=st.integers(0, 70),
    levels=st.integers(1, 4),
    size=st.integers(1, 50),
    dim=st.integers(1, 33),
)
def test_assign_agrees_with_the_reference_up_to_near_ties(seed, vectors, levels, size, dim):
    latent, tables = random_case(seed, vectors, levels, size, dim)
    fast, slow = assign(latent, tables), reference(latent, tables)
    assert fast.shape == slow.shape == (vectors, levels)
    assert fast.dtype == slow.dtype == torch.int64
    residual, settled = latent, torch.ones(vectors, dtype=torch.bool)
    for level, table in enumerate(tables):
        differs = fast[:, level] != slow[:, level]
        gap = best_gap(residual, table)
        assert bool((gap[differs & settled] < 1e-5).all())
        settled &= ~differs  # after a near-tie the two follow different residuals
        residual = residual - table[slow[:, level]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 40), dim=st.integers(1, 33), copies=st.integers(2, 3))
def test_a_tie_goes_to_the_lowest_index(seed, size, dim, copies):
    latent, tables = random_case(seed, 64, 1, size, dim)
    doubled = tables.repeat(1, copies, 1)
    assert int(assign(latent, doubled).max()) < size
    assert int(reference(latent, doubled).max()) < size


def test_blocks_do_not_change_the_codes(monkeypatch):
    latent, tables = random_case(1, 300, 3, 96, 8)
    whole = assign(latent, tables)
    monkeypatch.setattr("mmzoo.ops.residual_vq.SCORE_BYTES", {"cpu": 7 * 96 * 4})
    assert torch.equal(assign(latent, tables), whole)


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out


def test_scores_never_exist_as_a_whole():
    latent, tables = random_case(2, 2048, 1, 16384, 4)  # whole: 128 MiB
    with LargestTensor() as memory:
        assign(latent, tables)
    assert memory.largest <= 16 << 20


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_codes_ignore_autocast_and_reduced_precision(precision):
    latent, tables = random_case(3, 500, 4, 64, 16)
    expected = assign(latent, tables)
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    try:
        backend.fp32_precision = precision
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(assign(latent, tables), expected)
            assert torch.equal(reference(latent, tables), expected)
        assert backend.fp32_precision == precision
    finally:
        backend.fp32_precision = before


def test_bfloat16_tables_are_read_as_float32():
    latent, tables = random_case(4, 100, 2, 32, 8)
    low = tables.bfloat16()
    assert torch.equal(assign(latent, low), assign(latent, low.float()))


def test_infinite_and_nan_vectors_still_get_a_valid_code():
    _, tables = random_case(5, 1, 1, 5, 3)
    vectors = torch.tensor([[float("nan")] * 3, [float("inf"), 0, 0], [float("-inf")] * 3])
    codes = nearest(vectors, tables[0])
    assert bool(((codes >= 0) & (codes < 5)).all())


def test_sum_of_a_prefix_of_levels():
    latent, tables = random_case(6, 40, 4, 16, 8)
    codes = assign(latent, tables).reshape(4, 10, 4)
    for levels in (1, 2, 4):
        expected = torch.stack([tables[d][codes[..., d]] for d in range(levels)]).sum(0)
        torch.testing.assert_close(sum_codes(codes[..., :levels], tables), expected)
    with pytest.raises(ValueError, match="5 levels"):
        sum_codes(torch.zeros(1, 5, dtype=torch.int64), tables)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), vectors=st.integers(0, 200), size=st.integers(1, 40), dim=st.integers(1, 9))
def test_code_statistics_agree_with_the_one_hot_product(seed, vectors, size, dim):
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, size, (vectors,), generator=random)
    residuals = torch.randn(vectors, dim, generator=random)
    counts, sums = code_statistics(codes, residuals, size)
    expected_counts, expected_sums = code_statistics_reference(codes, residuals, size)
    assert torch.equal(counts, expected_counts)
    torch.testing.assert_close(sums, expected_sums, atol=1e-4, rtol=1e-5)


def test_usage_and_perplexity_closed_forms():
    codes = torch.tensor([[0, 0], [1, 0], [2, 0], [3, 0]])
    used, perplexity = usage(codes, 8)
    torch.testing.assert_close(used, torch.tensor([0.5, 0.125], dtype=torch.float64))
    torch.testing.assert_close(perplexity, torch.tensor([4.0, 1.0], dtype=torch.float64))
