"""The grammar of mixtures, their exact counts, and the one line for each mistake."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.mixture import largest_remainder, shares
from data_engine.mixture_grammar import read_mixture
from mmzoo.errors import InputError

ROWS = {"a": 10, "b": 7, "c": 100}


def counts(parts, **node):
    mixture = read_mixture({"sources": {name: name for name in ROWS}, "parts": parts, **node})
    return [(share.name, share.count) for share in shares(mixture.root, ROWS)]


def test_counts_follow_from_the_grammar():
    assert counts(["a*2", "b%50", "c*1.25"]) == [("a", 20), ("b", 4), ("c", 125)]
    assert counts("all%10") == [("a", 1), ("b", 1), ("c", 10)]
    nested = {"parts": ["b", "c*.1"], "weight": 0.7}
    assert counts([{"source": "a", "weight": 0.3}, nested]) == [("a", 8), ("b", 8), ("c", 11)]
    quotas = [{"source": "a", "quota": 2}, {"parts": ["b", "c"], "quota": 6}]
    assert counts(quotas, samples=80) == [("a", 20), ("b", 4), ("c", 56)]


def test_temperature_goes_from_sizes_to_equal_shares():
    assert counts("all", temperature=1) == [("a", 10), ("b", 7), ("c", 100)]
    assert counts("all", temperature=2) == [("a", 23), ("b", 20), ("c", 74)]
    assert [count for _, count in counts("all", temperature=1e9)] == [39, 39, 39]


@pytest.mark.parametrize("temperature", [1e-3, 1e-320, 0.05])
def test_a_temperature_near_zero_leaves_the_largest_only(temperature):
    with pytest.raises(InputError, match="'a' gets no sample"):
        counts("all", temperature=temperature)


def test_a_mixture_within_itself_is_named(tmp_path):
    (tmp_path / "mix.yaml").write_text("sources: {a: a}\nparts: &all [{parts: *all}]\n")
    with pytest.raises(InputError, match="one in itself"):
        read_mixture(tmp_path / "mix.yaml")


@given(st.lists(st.fractions(0, 50, max_denominator=20), min_size=1, max_size=8), st.integers(0, 1000))
def test_largest_remainder_adds_up_and_is_never_off_by_one(values, total):
    if not sum(values):
        values = [Fraction(1), *values]
    found = largest_remainder(values, total)
    assert sum(found) == total
    scale = Fraction(1) if abs(sum(values) - total) < 1 else total / sum(values, Fraction(0))
    assert all(abs(count - value * scale) < 1 for count, value in zip(found, values, strict=True))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (["a", "bb", "c"], "no source 'bb' in mixture.sources. Did you mean 'b'"),
        (["a*0", "b", "c"], "epochs must be above 0"),
        (["a**2"], "is not NAME"),
        (["a%150"], "For more than one epoch write \\*1.5"),
        ([{"source": "a", "weight": 1}, "b*2"], "mixes epochs and weight"),
        ([{"source": "a", "weight": 1}, "b"], "'b' has no weight"),
        (["a", "a"], "stands there twice"),
        ([], "at least one part"),
        ([{"sorce": "a"}], "Did you mean 'source'"),
        (["a", "b"], "'c' is in no part"),
        (["a*1000000000000", "b", "c"], "an epoch of 10,000,000,000,107 samples is more than"),
        (["a", "b%1", "c"], "'b' gets no sample"),
        ([{"source": "a", "quota": 1.5}], "whole number"),
    ],
)
def test_a_mistake_is_named(parts, words):
    with pytest.raises(InputError, match=words):
        counts(parts)


def test_an_empty_source_is_named():
    mixture = read_mixture({"sources": {"a": "x"}, "parts": ["a"]})
    with pytest.raises(InputError, match="'a' has no sample"):
        shares(mixture.root, {"a": 0})


def test_a_file_is_read_beside_itself(tmp_path):
    (tmp_path / "mix.yaml").write_text("sources: {a: shards/a}\nparts: a*3\n")
    mixture = read_mixture(tmp_path / "mix.yaml")
    assert mixture.sources == {"a": tmp_path / "shards/a"}
    with pytest.raises(InputError, match="cannot read the mixture"):
        read_mixture(tmp_path / "mox.yaml")
