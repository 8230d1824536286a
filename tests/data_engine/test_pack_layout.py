"""Where the tokens of packs stand: closed-form cases, and any lengths against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.pack_layout import IGNORE, PackLayout
from mmzoo.errors import InputError


def batch_of(packs):
    """A packed batch whose samples have these lengths, as the loader would give it; every token is told apart."""
    lengths = [length for pack in packs for length in pack]
    ids = list(torch.arange(1, 1 + sum(lengths)).split(lengths)) if lengths else []
    return {
        "ids": ids,
        "sample_ids": [f"s/{number}@0" for number in range(len(lengths))],
        "lengths": torch.tensor(lengths, dtype=torch.int64),
        "pack_starts": torch.tensor([0, *torch.tensor([len(pack) for pack in packs]).cumsum(0).tolist()]),
    }


def test_two_packs_in_both_forms():
    layout = PackLayout.of(batch := batch_of([[2, 1], [3]]), "ids", width=4)
    assert layout.padded(batch["ids"], 0).tolist() == [[1, 2, 3, 0], [4, 5, 6, 0]]
    assert layout.flat(batch["ids"]).tolist() == [1, 2, 3, 4, 5, 6]
    assert layout.samples().tolist() == [[0, 0, 1, -1], [2, 2, 2, -1]]
    assert layout.positions().tolist() == [[0, 1, 0, 0], [0, 1, 2, 0]]
    assert (layout.cu_seqlens.dtype, layout.cu_seqlens.tolist(), layout.max_seqlen) == (torch.int32, [0, 2, 3, 6], 3)
    assert (layout.sample_row.tolist(), layout.sample_column.tolist()) == ([0, 0, 1], [0, 2, 0])
    assert layout.following(batch["ids"]).tolist() == [2, IGNORE, IGNORE, 5, 6, IGNORE]
    assert layout.mask()[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert layout.mask(causal=False)[1, 0].int().tolist() == [[1, 1, 1, 0]] * 3 + [[0, 0, 0, 1]]
    spans = [torch.tensor([[0, 1]]), torch.zeros(0, 2, dtype=torch.int64), torch.tensor([[0, 1], [1, 3]])]
    assert layout.spans(spans).tolist() == [[0, 0, 1], [1, 0, 1], [1, 1, 3]]


packs = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(packs, st.integers(0, 3))
def test_any_packs_are_what_plain_loops_say(packs, spare):
    batch = batch_of(packs)
    layout = PackLayout.of(batch, "ids", max([1, *map(sum, packs)]) + spare)
    rows = [[token for sample in range(*span) for token in batch["ids"][sample].tolist()] for span in spans_of(packs)]
    wanted = [[*row, *[0] * (layout.width - len(row))] for row in rows]
    padded = layout.padded(batch["ids"], 0)
    assert padded.tolist() == wanted
    assert layout.unpadded(padded).tolist() == layout.flat(batch["ids"]).tolist()
    cut = [part.tolist() for part in layout.per_sample(layout.flat(batch["ids"]))]
    assert cut == [ids.tolist() for ids in batch["ids"]]
    assert layout.cu_seqlens.diff().tolist() == [len(ids) for ids in batch["ids"]]
    assert layout.position_ids.tolist() == [place for ids in batch["ids"] for place in range(len(ids))]
    wanted = [label for ids in batch["ids"] for label in [*ids.tolist()[1:], *[IGNORE] * bool(len(ids))]]
    assert layout.following(batch["ids"]).tolist() == wanted
    samples, mask = layout.samples(), layout.mask()
    for row, one, other in torch.cartesian_prod(*map(torch.arange, (layout.rows, layout.width, layout.width))).tolist():
        assert mask[row, 0, one, other] == (other <= one and samples[row, one] == samples[row, other])


def spans_of(packs):
    start = 0
    for pack in packs:
        yield start, start + len(pack)
        start += len(pack)


@pytest.mark.parametrize("packs", [[[], []], []])
def test_a_share_without_samples_or_packs_has_rows_of_nothing(packs):
    layout = PackLayout.of(batch := batch_of(packs), "ids")
    assert (layout.rows, layout.width, layout.max_seqlen, layout.cu_seqlens.tolist()) == (len(packs), 1, 0, [0])
    assert layout.padded(batch["ids"], IGNORE).tolist() == [[IGNORE]] * len(packs)
    assert layout.mask().shape == (len(packs), 1, 1, 1)
    assert layout.following(batch["ids"]).tolist() == layout.spans([]).flatten().tolist() == []
    assert bool(layout.mask().all())


def test_what_does_not_fit_is_refused():
    batch = batch_of([[2, 1], [3]])
    with pytest.raises(ValueError, match="a pack has 3 tokens, its row 2"):
        PackLayout.of(batch, "ids", width=2)
    layout = PackLayout.of(batch, "ids")
    with pytest.raises(ValueError, match=r"values of lengths \(1, 2, 3\) do not go with tokens of \(2, 1, 3\)"):
        layout.flat([batch["ids"][number] for number in (1, 0, 2)])
    for wrong in ([[0, 3]], [[1, 1]], [[-1, 1]]):
        with pytest.raises(ValueError, match="does not lie in a sample of 2 tokens"):
            layout.spans([torch.tensor(wrong), *[torch.zeros(0, 2, dtype=torch.int64)] * 2])
    with pytest.raises(ValueError, match="spans of 1 samples do not go with 3"):
        layout.spans([torch.zeros(0, 2, dtype=torch.int64)])
    batch["lengths"][1] = 0
    with pytest.raises(InputError, match="s/1@0: the transform made 1 tokens, planned were 0"):
        PackLayout.of(batch, "ids")
