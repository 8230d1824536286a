"""Record shards written anew, or several as one: the same samples, splits and card, whatever the tars."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.index import ShardIndex
from data_engine.lint import lint_folder
from data_engine.reader import ShardReader
from data_engine.removals import ListedRemoval
from data_engine.reshard import main, reshard
from data_engine.stored_sample import Region, StoredFile, StoredSample, Turn
from mmzoo.errors import InputError
from tests.data_engine.conftest import encode, picture
from tests.data_engine.made_sources import ListSource, built

CARD, TAR = "data_card.json", "shard-000000.tar"


def shown(seed: int, form: str = "PNG") -> StoredFile:
    return StoredFile(f"{seed}.{form.lower()}", data=encode(picture(seed, 4, 5), form))


def made(seeds: list[int]) -> tuple[StoredSample, ...]:
    """A record a seed, with none to two pictures, with and without words, a mask, regions."""
    mask = StoredFile("m.png", data=encode(np.ones((4, 5), np.uint8), "PNG"))
    return tuple(
        StoredSample(
            key="",
            source="",
            images=tuple(shown(10 * seed + number, "JPEG" if seed % 2 else "PNG") for number in range(seed % 3)),
            mask=mask if seed % 5 == 2 else None,
            conversation=(Turn("user", f"say {seed}"),) if seed % 2 else (),
            regions=(Region("car", box=(0, 1, 2, 3)),) if seed % 4 == 1 else (),
            text=None if seed % 7 == 0 and seed else f"text {seed}",
            license="CC0-1.0" if seed % 2 else None,
        )
        for seed in seeds
    )


def held(folder: Path) -> dict[str, tuple]:
    """Of each key its members, split and facts."""
    index = ShardIndex.open(folder)
    reader = ShardReader(index)
    split = index.column("split")
    found = {}
    for row in range(index.count):
        key, members = reader.members(row)
        found[key] = (members, index.splits[split[row]], index.facts(row), index.column("width")[row])
        assert index.find(key) == row
    return found


def card(folder: Path) -> dict:
    content = json.loads((folder / CARD).read_text())
    return {name: value for name, value in content.items() if name not in ("identity", "shards")}


def tars(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.tar"))]


SIZES = st.integers(1, 12_000)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 40), min_size=2, max_size=9, unique=True), SIZES, SIZES, st.data())
def test_any_sizes_give_the_same_samples_and_merged_parts_their_union(tmp_path_factory, seeds, one, two, data):
    tmp = tmp_path_factory.mktemp("sizes")
    cut = data.draw(st.integers(1, len(seeds) - 1))
    first, second = ListSource(name="a", given=made(seeds[:cut])), ListSource(name="b", given=made(seeds[cut:]))
    built(tmp / "built", first, second, shard_bytes=one, val_fraction=0.4)
    reshard([ShardIndex.open(tmp / "built")], tmp / "anew", two)
    assert held(tmp / "anew") == held(tmp / "built")
    assert card(tmp / "anew") == card(tmp / "built")
    reshard([ShardIndex.open(tmp / "anew")], tmp / "back", one)
    assert tars(tmp / "back") == tars(tmp / "built")
    assert lint_folder(tmp / "anew") == []
    for name, source in (("first", first), ("second", second)):
        built(tmp / name, source, shard_bytes=two)
    built(tmp / "both", first, second, shard_bytes=one)
    reshard([ShardIndex.open(tmp / "second"), ShardIndex.open(tmp / "first")], tmp / "merged", one)
    assert held(tmp / "merged") == held(tmp / "first") | held(tmp / "second")
    assert tars(tmp / "merged") == tars(tmp / "both")
    assert card(tmp / "merged") == card(tmp / "both")


@pytest.fixture
def folder(tmp_path) -> Path:
    built(tmp_path / "built", ListSource(name="set", given=made(list(range(8)))), val_fraction=0.4)
    return tmp_path / "built"


def test_a_removal_list_is_left_out_and_the_card_follows(folder, tmp_path, capsys):
    removed = tmp_path / "removed.jsonl"
    lines = [{"key": "set-000000002", "check": "same file"}, {"key": None, "action": "mended"}]
    lines += [{"key": "set-000000005", "action": "left out", "check": "x"}]
    removed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(folder), "-o", str(tmp_path / "out"), "--without", str(removed)], "reshard") == 0
    gone = {"set-000000002", "set-000000005"}
    assert held(tmp_path / "out") == {key: value for key, value in held(folder).items() if key not in gone}
    assert card(tmp_path / "out")["samples"] == 6 == sum(card(tmp_path / "out")["licenses"].values())
    assert card(tmp_path / "out")["left_out"] == {"same file": 1, "x": 1}
    assert "6 samples in 1 shards, 2 left out" in capsys.readouterr().err


def test_what_the_builds_counted_is_carried_over(tmp_path):
    broken = StoredSample(key="", source="", images=(StoredFile("x.png", data=b"no picture"),))
    built(tmp_path / "one", ListSource(name="one", given=(*made([1, 2]), broken)), max_rejected=1)
    two = ListSource(name="two", given=made([3, 4]))
    built(tmp_path / "two", two, without={"two-000000002": ListedRemoval("x")}, transforms=("without_thinking",))
    reshard([ShardIndex.open(tmp_path / name) for name in ("one", "two")], tmp_path / "both", 10**6)
    assert (tmp_path / "both/rejected.jsonl").read_text() == (tmp_path / "one/rejected.jsonl").read_text()
    assert card(tmp_path / "both")["sources"]["one"]["rejected"] == 1
    assert ShardIndex.open(tmp_path / "both").content["rejected"] == 1
    assert card(tmp_path / "both")["left_out"] == {"x": 1}
    assert card(tmp_path / "both")["transforms"] == {"without_thinking": {"changed": 0, "refused": 0}}


def test_refusals_leave_nothing(folder, tmp_path, shard_folder):
    index = ShardIndex.open(folder)
    with pytest.raises(InputError, match=r"key set-000000001 is in .* and in"):
        reshard([index, index], tmp_path / "out", 10**6)
    with pytest.raises(InputError, match="differ in kind"):
        reshard([index, ShardIndex.open(shard_folder(4))], tmp_path / "out", 10**6)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [1, 13], ids=["a picture", "a text"])
def test_a_picture_or_a_text_in_two_splits_is_a_leak(tmp_path, seed):
    sample = replace(made([seed])[0], images=(shown(1),)) if seed == 1 else replace(made([seed])[0], images=())
    for name, share in (("a", 0.0), ("b", 1.0)):
        built(tmp_path / name, ListSource(name=name, given=(sample,)), val_fraction=share)
    with pytest.raises(InputError, match=r"leak: a-000000001 \(train\) and b-000000001 \(val\) share"):
        reshard([ShardIndex.open(tmp_path / name) for name in "ab"], tmp_path / "out", 10**6)
    assert not (tmp_path / "out").exists()


def test_a_damaged_json_is_named(folder, tmp_path, spoil):
    spoil(folder, [3], "json")
    with pytest.raises(InputError, match=r"key set-000000004, offset \d+: not the json of a sample"):
        reshard([ShardIndex.open(folder)], tmp_path / "out", 10**6)
    assert not (tmp_path / "out").exists()


def test_energons_notes_are_made_anew(tmp_path, capsys):
    source = ListSource(name="set", given=made([1, 4, 7, 10]))
    shown_ones = replace(source, given=tuple(replace(each, text="t", images=each.images[:1]) for each in source.given))
    built(tmp_path / "built", shown_ones, energon="CaptioningSample")
    gone = {"set-000000002": ListedRemoval("x")}
    built(tmp_path / "less", shown_ones, energon="CaptioningSample", without=gone)
    reshard([ShardIndex.open(tmp_path / "built")], tmp_path / "out", 10**6, gone)
    for name in ("split.yaml", "dataset.yaml", ".info.json", "index.uuid"):
        assert (tmp_path / "out/.nv-meta" / name).read_bytes() == (tmp_path / "less/.nv-meta" / name).read_bytes()
    assert (tmp_path / f"out/{TAR}.idx").read_bytes() == (tmp_path / f"less/{TAR}.idx").read_bytes()
    built(tmp_path / "plain", ListSource(name="plain", given=made([2])))
    assert main([str(tmp_path / "built"), str(tmp_path / "plain"), "-o", str(tmp_path / "both")], "merge") == 0
    assert "was prepared for Energon, the new shards are not" in capsys.readouterr().err
    assert not (tmp_path / "both/.nv-meta").exists()
