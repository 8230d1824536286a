"""Copies, test data and filters: what was planted is found, what is distinct stays."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.quality.checks import Limits, contamination, duplicates, filtered
from data_engine.quality.clean import examined, main, report_of, write_report
from data_engine.quality.groups import equal_groups, joined_groups
from data_engine.quality.perceptual import near_pairs, near_pairs_reference, perceptual_hash
from data_engine.quality.survey import Pictured, Surveyed, survey
from data_engine.quality.texts import overlap, sample_text, shingles, similar_texts, without_thinking, word_runs
from data_engine.stored_sample import Region, StoredFile, StoredSample
from mmzoo.errors import InputError
from tests.data_engine.made_sources import ListSource, built

QUESTION = "how many white aeroplanes stand on the long grey apron beside the second terminal of the airport today"


def text(key, words):
    return Surveyed(key, key, text=words)


def shown(key, *pictures, text="", rasters=(), size=(9, 9)):
    """A sample with pictures, and rasters, each (name of its file, of its pixels, look)."""
    seen = [tuple(Pictured(*each, *size) for each in group) for group in (pictures, rasters)]
    return Surveyed(key, key, *seen, text)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 8), st.integers(0, 2**32), st.data())
def test_near_pairs_are_those_of_comparing_all(limit, seed, data):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, 12, np.uint64, endpoint=False)
    copies = hashes.copy()
    for row in range(len(copies)):  # 0 to 10 bits anywhere, so that all sides of the limit occur
        for place in data.draw(st.sets(st.integers(0, 63), max_size=10)):
            copies[row] ^= np.uint64(1) << np.uint64(place)
    assert near_pairs(hashes, copies, limit) == near_pairs_reference(hashes, copies, limit)


def test_groups():
    assert equal_groups(["a", None, "b", "a", None]) == [[0, 3]]
    assert joined_groups([(4, 1), (2, 3), (1, 0)]) == [[0, 1, 4], [2, 3]]


def test_a_look_survives_size_and_light_but_not_another_picture(pixels):
    one, other = pixels(1, 96, 128), pixels(2, 96, 128)
    darker = (pixels(1, 48, 64) * 0.8).astype(np.uint8)
    apart = (perceptual_hash(one) ^ perceptual_hash(darker)).bit_count()
    assert apart <= 6 < (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


def test_similar_texts_are_exactly_those_over_the_threshold():
    near = QUESTION.replace("today", "now")
    far = "a field of wheat seen from above in early summer with two tractors and a barn"
    texts = [QUESTION, far, near, "", QUESTION.upper() + "!", ""]
    pairs = similar_texts(texts, 0.7)
    wanted = {(one, two) for one in range(6) for two in range(one + 1, 6)}
    wanted = {(one, two) for one, two in wanted if overlap(shingles(texts[one]), shingles(texts[two])) >= 0.7}
    assert set(pairs) == wanted == {(0, 2), (0, 4), (2, 4)}


def test_runs_of_words():
    assert word_runs("One, two three", 2) == {"one two", "two three"}
    assert word_runs("One", 13) == {"one"}
    assert word_runs("... !", 13) == set()


def test_text_of_a_record():
    meta = {"caption": " a ", "conversation": [{"role": "user", "text": "<image>\nWhere?"}, {"text": "Here."}]}
    assert sample_text(meta) == "a\nWhere?\nHere."


def test_thinking_is_removed_and_half_a_tag_is_refused():
    assert without_thinking("<think>so\nand so</think>\nFour. <THINK></THINK>Yes") == "Four. Yes"
    assert without_thinking("no tags <b>") == "no tags <b>"
    for odd in ("<think>never ends", "ends</think> only", "<think>a<think>b</think>c</think>"):
        with pytest.raises(ValueError, match="other half"):
            without_thinking(odd)


def test_the_strictest_check_names_a_copy_and_the_first_stays():
    samples = [
        shown("a", ("f1", "p1", 0)),
        shown("b", ("f2", "p1", 0)),
        shown("c", ("f1", "p1", 0)),
        shown("d", ("f3", "p3", 0b111111)),
        shown("e", ("f1", "p1", 0), text="the same picture under another question"),
        shown("f", ("f4", "p4", 2**40 - 1)),
    ]
    found = {(samples[removal.row].key, removal.check) for removal in duplicates(samples, Limits())}
    assert found == {("b", "same pixels"), ("c", "same file"), ("d", "similar picture")}
    assert {removal.row for removal in duplicates(samples, Limits(look_distance=5))} == {1, 2}


def test_texts_are_copies_only_without_pictures():
    samples = [text("a", QUESTION), text("b", QUESTION), text("c", QUESTION + " please")]
    assert [removal.check for removal in duplicates(samples, Limits())] == ["same text", "similar text"]
    pictures = [shown(str(row), (str(row), str(row), row * (2**60 // 7)), text=QUESTION) for row in range(3)]
    assert list(duplicates(pictures, Limits(look_distance=0))) == []
    tiles = [
        shown(key, text=QUESTION, rasters=((file, file, None),))
        for key, file in (("a", "r1"), ("b", "r2"), ("c", "r1"))
    ]
    assert [(each.row, each.check) for each in duplicates(tiles, Limits())] == [(2, "same file")]


def test_samples_of_several_pictures_are_copies_when_all_are():
    one, two, near, other = ("f1", "p1", 0), ("f2", "p2", 2**40 - 1), ("f3", "p3", 0b11), ("f4", "p4", 2**63 - 2**23)
    samples = [
        shown("a", one, two),
        shown("b", one, two),
        shown("swapped", two, one),
        shown("half", one, other),
        shown("alike", near, two),
        shown("first", one),
        shown("more", one, two, other),
    ]
    found = [(samples[each.row].key, each.check) for each in duplicates(samples, Limits())]
    assert found == [("b", "same file"), ("alike", "similar picture")]


def test_every_picture_is_held_against_those_of_a_test_set():
    far = [("f", "p", look) for look in (2**40 - 1, 2**63 - 2**23, 2**20 - 1)]
    samples = [shown("a", far[0], ("f", "p", 1)), shown("b", far[0]), shown("c", ("f", "p", 3))]
    held = [shown("exam", far[1], far[2], ("g", "q", 0))]
    found = list(contamination(samples, "exams", held, Limits(look_distance=4)))
    assert [(each.row, each.picture, each.why) for each in found] == [
        (0, 1, "picture 1: as picture 2 of exam of exams"),
        (2, 0, "as picture 2 of exam of exams"),
    ]


def test_words_of_a_test_set_are_found_within_longer_texts():
    held = [text("q", QUESTION), text("short", "what colour")]
    samples = [
        text("contains", "Please tell me: " + QUESTION.title() + "? Thank you."),
        text("half", " ".join(QUESTION.split()[:10]) + " and something else altogether that nobody has asked before"),
        text("short", "What colour?"),
        text("longer", "what colour is it"),
    ]
    found = list(contamination(samples, "exam", held, Limits()))
    assert [(removal.row, removal.why) for removal in found] == [(0, "100% of q of exam"), (2, "100% of short of exam")]


def test_the_share_decides():
    runs = len(word_runs(QUESTION, 13))
    cut = " ".join(QUESTION.split()[1:])  # all runs but the first
    share = (runs - 1) / runs
    for limit, hits in ((share, 1), (share + 0.01, 0)):
        assert (
            len(list(contamination([text("a", cut)], "exam", [text("q", QUESTION)], Limits(eval_overlap=limit))))
            == hits
        )


def test_filters():
    samples = [
        shown("ok", ("f", "p", 1), text="12345", size=(100, 60)),
        shown("small", ("g", "q", 2), text="12345", size=(100, 40)),
        shown("long", ("h", "r", 3), text="12345", size=(301, 100)),
        text("terse", "1234"),
        text("wordy", "1" * 11),
        Surveyed("bad", "bad", broken="cannot be decoded"),
    ]
    limits = Limits(min_side=60, max_aspect=3, min_text=5, max_text=10)
    checks = [(removal.row, removal.check) for removal in filtered(samples, limits)]
    assert checks == [(1, "min-side"), (2, "max-aspect"), (3, "min-text"), (4, "max-text"), (5, "broken")]
    second = Surveyed("two", "two", (Pictured("f", "p", 1, 100, 60), Pictured("g", "q", 2, 100, 40)), text="12345")
    [removal] = filtered([second], limits)
    assert (removal.why, removal.picture) == ("picture 1: 100 x 40 px", 1)


def test_a_copy_of_what_goes_anyway_stays():
    samples = [text("a", "x" * 20), text("b", "x" * 20)]
    assert len(examined(samples, {}, Limits())) == 1
    small = [shown("a", ("f", "p", 1), size=(5, 5)), shown("b", ("g", "p", 1), size=(50, 50))]
    removed = examined(small, {}, Limits(min_side=10, look_distance=0))
    assert [(removal.row, removal.check) for removal in removed] == [(0, "min-side")]


def scene(seed):
    """A picture with structure at all the frequencies that the hash looks at, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC))


def test_the_command(tmp_path, encoded, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(encoded(scene(number), "PNG"))
    (folder / "copy.jpg").write_bytes(encoded(scene(2), "JPEG", quality=60))
    exam = tmp_path / "exam"
    exam.mkdir()
    (exam / "other.jpg").write_bytes(encoded(scene(3), "JPEG", quality=60))
    for source in (folder, exam):
        build_image_shards(BuildSettings(source, tmp_path / f"{source.name}-shards", val_fraction=0))
    arguments = [
        str(tmp_path / "photos-shards"),
        "--against",
        str(tmp_path / "exam-shards"),
        "-o",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--json"], "clean") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["by_check"] == {"picture of an evaluation set": 1, "similar picture": 1}
    rows = [json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()]
    assert "3.png" in {row["path"] for row in rows}
    assert len({row["path"] for row in rows} & {"2.png", "copy.jpg"}) == 1
    assert "| similar picture | 1 |" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(InputError, match="is not empty"):
        main(arguments, "clean")
    with pytest.raises(InputError, match="--eval-overlap must be"):
        main([*arguments, "--eval-overlap", "7"], "clean")


def test_all_pictures_of_records_are_surveyed(tmp_path, encoded, capsys, spoil):
    def record(*seeds, **fields):
        files = [StoredFile(f"{seed}.png", data=encoded(scene(seed), "PNG")) for seed in seeds]
        return StoredSample("", "", images=tuple(files), **fields)

    given = [record(1, 2, text="a"), record(3, 4, 5), record(6, 7, 8)]
    built(tmp_path / "set", ListSource(name="set", given=tuple(given)))
    built(tmp_path / "exam", ListSource(name="exam", given=(record(9), record(10, 2))))
    spoil(tmp_path / "set", [2], "image1")
    arguments = [str(tmp_path / "set"), "--against", str(tmp_path / "exam"), "-o", str(tmp_path / "out"), "--json"]
    assert main(arguments, "clean") == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 5  # none of the broken sample
    rows = [json.loads(line) for line in (tmp_path / "out/removed.jsonl").read_text().splitlines()]
    assert [(row["key"], row["check"], row["picture"]) for row in rows] == [
        ("set-000000001", "picture of an evaluation set", 1),
        ("set-000000003", "broken", 1),
    ]
    assert rows[0]["why"] == f"picture 1: as picture 1 of exam-000000002 of {tmp_path / 'exam'}"
    assert rows[1]["why"].startswith("picture 1: not an image")


def geotiff(pixels, **profile):
    with rasterio.MemoryFile() as file:
        height, width = pixels.shape
        grid = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)}
        with file.open(
            driver="GTiff", count=1, height=height, width=width, dtype=pixels.dtype, **grid, **profile
        ) as tif:
            tif.write(pixels, 1)
        return StoredFile("scene.tif", data=bytes(file.getbuffer()))


@pytest.fixture
def cleaned(tmp_path, encoded):
    """cleaned(samples, exam) -> [(number of the sample from 0, check)] of shards made of these samples."""

    def picture(seed, form="PNG", **options):
        return StoredFile(f"{seed}.{form.lower()}", data=encoded(scene(seed), form, **options))

    def clean(samples, exam=()):
        surveys = []
        for name, wanted in (("mine", samples), ("exam", exam)):
            listed = [StoredSample(key="", source="", **fields) for fields in wanted(picture)] if wanted else []
            source = ListSource(name=name, given=tuple(listed))
            surveys.append(survey(built(tmp_path / name, source).index) if listed else [])
        removed = examined(surveys[0], {"exam": surveys[1]}, Limits())
        return [(removal.row, removal.check) for removal in removed]

    return clean


def test_every_picture_of_a_sample_counts(cleaned):
    def samples(picture):
        pairs = ((1, 2), (1, 3), (1, 2), (4, 5))
        return [{"images": (picture(one), picture(two))} for one, two in pairs]

    copies = [(2, "same file")]
    assert cleaned(samples) == copies


def test_a_second_picture_of_the_exam_is_found(cleaned):
    def exam(picture):
        return [{"images": (picture(9), picture(5, "JPEG", quality=60))}]

    assert cleaned(lambda picture: [{"images": (picture(4), picture(5))}], exam) == [
        (0, "picture of an evaluation set")
    ]


def test_another_mask_or_other_objects_make_another_sample(cleaned, encoded):
    water = np.zeros((96, 96), np.uint8)
    water[:40] = 1
    masks = [StoredFile("m.png", data=encoded(pixels, "PNG")) for pixels in (water, 1 - water) * 2]
    ship, ships = (Region("ship", box=(1, 1, 9, 9)),), (Region("ship", box=(2, 2, 9, 9)),)

    def samples(picture):
        masked = [{"images": (picture(1),), "mask": mask} for mask in masks]
        boxed = [{"images": (picture(2),), "regions": regions} for regions in (ship, ships, ship)]
        return [*masked, *boxed, {"images": (picture(2, "JPEG", quality=60),), "regions": ships}]

    assert cleaned(samples) == [(row, "same file") for row in (2, 3, 6)] + [(7, "similar picture")]


def test_rasters_are_looked_at(cleaned):
    scenes = [scene(seed)[..., 0].astype(np.float32) * 30 for seed in (1, 2)]
    noisy = scenes[0] + np.random.default_rng(0).normal(0, 40, scenes[0].shape).astype(np.float32)
    label = geotiff((scenes[0] > 4000).astype(np.uint8))

    def samples(picture):
        deflated = geotiff(scenes[0], compress="deflate")
        rasters = [geotiff(scenes[0]), deflated, geotiff(scenes[1]), geotiff(noisy)]
        return [*({"rasters": (raster,)} for raster in rasters), {"rasters": (geotiff(scenes[0]), label)}]

    found = cleaned(samples, lambda picture: [{"rasters": (geotiff(scenes[1] * 2),)}])
    assert found[:3] == [(1, "same pixels"), (2, "picture of an evaluation set"), (3, "similar picture")]


def test_plain_areas_look_like_nothing(tmp_path, encoded):
    assert perceptual_hash(np.full((64, 64, 3), 9, np.uint8)) is None
    faint = np.full((64, 64, 3), 100, np.uint8)
    faint[:, 32:] = 101
    assert perceptual_hash(faint) is not None
    folder = tmp_path / "plain"
    folder.mkdir()
    for level in (0, 90, 255):
        (folder / f"{level}.png").write_bytes(encoded(np.full((32, 32, 3), level, np.uint8), "PNG"))
    build_image_shards(BuildSettings(folder, tmp_path / "shards", val_fraction=0))
    assert examined(survey(ShardIndex.open(tmp_path / "shards")), {}, Limits()) == []


def test_a_full_disk_leaves_no_half_report(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    samples = [text("a", QUESTION), text("b", QUESTION)]
    removed = examined(samples, {}, Limits())
    monkeypatch.setattr("data_engine.quality.clean.markdown", full)  # after the list of removals was written
    with pytest.raises(InputError, match=r"cannot write .*report: No space left on device"):
        write_report(tmp_path / "report", report_of("s", samples, removed, Limits()), samples, removed)
    assert list(tmp_path.iterdir()) == []
