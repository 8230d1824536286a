"""`mmzoo encode`: codes that decode as the direct way does, whatever the batch, the source and the interruptions."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.lint import lint_folder
from data_engine.reader import ShardReader
from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.folder_lock import LOCK_FILE, only_writer
from mmzoo.hub.save import save_model
from mmzoo.training.data_module import ShardData
from tokenizers_visual.evotok.bulk_codes import _check_size
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.crops import CenterCrop, TrainingCrop
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.processing import EvoTokImageProcessor
from tokenizers_visual.evotok.stored_codes import StoredCodes

Run = Callable[..., int]


def picture(seed: int, height: int = 40, width: int = 50) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_model(EvoTokModel(EvoTokConfig(**TINY)).eval(), tmp_path_factory.mktemp("evotok") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 pictures of several kinds in subfolders, one of them twice, and a text."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    for number in range(16):
        file = folder / f"Set {number % 3}" / f"img.{number:02d}.{'png' if number % 2 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = picture(number, 30 + number, 50)
        (image.convert("L") if number % 5 == 0 else image).save(file)
    shutil.copy(folder / "Set 0" / "img.00.jpg", folder / "copy.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Run:
    """run(source, name, *options) -> exit code, writing to tmp_path / name."""
    return lambda source, name, *options: main(
        ["encode", str(source), "--model", str(model), "-o", str(tmp_path / name), "--shard-samples", "5", *options]
    )


def content(folder: Path) -> dict[str, bytes]:
    """All files that readers look at."""
    files = [*folder.glob("*.tar"), *(folder / "index").iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_stored_codes_decode_as_the_direct_way(run, model, photos, tmp_path):
    assert run(photos, "codes", "--batch-size", "4") == 0
    tokenizer = EvoTokModel.from_pretrained(model, quiet=True).eval()
    processor = EvoTokImageProcessor(image_size=32)
    reader = ShardReader(ShardIndex.open(tmp_path / "codes"))
    assert reader.index.count == 17
    for row in range(17):
        sample = reader.sample(row)
        images = processor.preprocess(Image.open(photos / sample.meta["path"]))["pixel_values"]
        codes, _ = tokenizer.encode(images)
        stored = torch.from_numpy(sample.fields["codes"]).long()[None]
        assert torch.equal(stored, codes)
        direct = tokenizer.decode_pixels(codes[..., :2])
        assert torch.equal(tokenizer.decode_pixels(stored[..., :2]), direct)


@pytest.mark.parametrize("batch", [1, 3, 8, 32])
def test_any_batch_size_and_any_threads_give_the_same_bytes(run, photos, tmp_path, batch):
    assert run(photos, "once", "--batch-size", "5", "--workers", "1") == 0
    assert run(photos, "other", "--batch-size", str(batch), "--workers", "3") == 0
    assert content(tmp_path / "other") == content(tmp_path / "once")


def test_a_folder_and_its_shards_give_the_same_samples_and_splits(run, photos, tmp_path):
    build_image_shards(BuildSettings(photos, tmp_path / "shards"))
    assert run(photos, "a") == run(tmp_path / "shards", "b") == 0
    first, second = ShardIndex.open(tmp_path / "a"), ShardIndex.open(tmp_path / "b")
    images = ShardReader(ShardIndex.open(tmp_path / "shards"))
    readers = [ShardReader(first), ShardReader(second)]
    assert [readers[0].members(row) for row in range(17)] == [readers[1].members(row) for row in range(17)]
    for name in ("split", "width", "height", "key_hash"):
        assert np.array_equal(first.column(name), images.index.column(name))
        assert np.array_equal(second.column(name), images.index.column(name))
    assert [readers[1].raw(row, "json") for row in range(17)] == [images.raw(row, "json") for row in range(17)]
    assert first.content["rules"] == second.content["rules"] == {"decoded": 17, "grey": 5}
    assert (first.content["skipped"], second.content["skipped"]) == (1, 0)


def test_the_shards_are_sound_plain_webdataset(run, photos, tmp_path, capsys):
    import webdataset

    assert run(photos, "codes", "--levels", "3") == 0
    folder = tmp_path / "codes"
    assert lint_folder(folder) == []
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["codes"] == {"dtype": "int16", "shape": [4, 4, 3], "codebook_size": 64}
    dataset = webdataset.WebDataset(str(folder / "shard-{000000..000003}.tar"), shardshuffle=False).decode()  # pyright: ignore
    found = {sample["__key__"]: sample["codes.npy"] for sample in dataset}
    reader = ShardReader(ShardIndex.open(folder))
    assert len(found) == 17
    assert all(np.array_equal(found[reader.key(row)], reader.sample(row).fields["codes"]) for row in range(17))


def test_training_reads_the_codes_back(run, photos, tmp_path):
    assert run(photos, "codes") == 0
    data = ShardData(str(tmp_path / "codes"), StoredCodes(levels=2), global_batch=4)
    batch = next(iter(data.train_dataloader()))
    assert batch["codes"].shape == (4, 4, 4, 2)
    assert batch["codes"].dtype == torch.int64
    reader = ShardReader(ShardIndex.open(tmp_path / "codes"))
    for codes, name in zip(batch["codes"], batch["sample_ids"], strict=True):
        row = reader.index.find(name.split("/")[1].split("@")[0])
        assert row is not None
        assert np.array_equal(codes, reader.sample(row).fields["codes"][..., :2])


def test_the_wrong_transform_is_refused_in_words(run, photos, tmp_path):
    build_image_shards(BuildSettings(photos, tmp_path / "shards"))
    data = ShardData(str(tmp_path / "shards"), StoredCodes(), global_batch=4)
    with pytest.raises(ValueError, match="these shards hold no codes"):
        next(iter(data.train_dataloader()))


def test_damaged_codes_are_a_broken_sample_and_found_by_lint(run, photos, tmp_path):
    assert run(photos, "codes") == 0
    index = ShardIndex.open(tmp_path / "codes")
    path, offset, size = index.place(3, "codes")
    with path.open("r+b") as tar:
        tar.seek(offset + size - 2)
        tar.write(b"\xff\x7f")
    os.utime(path, (1e9, 1e9))
    with pytest.raises(ValueError, match=rf"offset {offset}: damaged codes: codes 0\.\.32767 of a codebook of 64"):
        ShardReader(index).sample(3)
    assert any(f"offset {offset}: damaged codes" in finding.line() for finding in lint_folder(tmp_path / "codes"))


def test_the_receipt_and_the_settings_stand_in_the_destination(run, model, photos, tmp_path):
    assert run(photos, "codes", "--size", "48", "--resize", "stretch", "--levels", "2") == 0
    receipt = json.loads((tmp_path / "codes" / "model_receipt.json").read_text())
    weights = json.loads((model / "zoo.json").read_text())
    assert receipt["hashes"] == "verified"
    settings = ShardIndex.open(tmp_path / "codes").content["encode"]
    assert settings["model"]["files"] == receipt["files"]
    assert weights
    assert (settings["size"], settings["resize"], settings["levels"]) == (48, "stretch", 2)
    assert ShardIndex.open(tmp_path / "codes").content["codes"]["shape"] == [6, 6, 2]


def test_fast_codes_say_how_far_they_agree(run, photos, tmp_path, capsys):
    assert run(photos, "fast", "--fast", "--json", "--batch-size", "5") == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"]
    assert len(agreement) == 4
    run(photos, "exact")
    readers = [ShardReader(ShardIndex.open(tmp_path / name)) for name in ("fast", "exact")]
    both = [np.stack([reader.sample(row).fields["codes"] for row in range(5)]) for reader in readers]
    assert agreement == pytest.approx((both[0] == both[1]).mean((0, 1, 2)).tolist())


# --- interruptions ---


class Stop(BaseException):
    """As a kill: nothing in the program catches it by design."""


def write_events(folder: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int | None) -> Callable[[], int]:
    """Ends the run just before its `stop_at`-th change of names in `folder` (rename of a file or folder)."""
    done = 0

    def watched(original):
        def call(self, *arguments):
            nonlocal done
            if self.is_relative_to(folder):
                if done == stop_at:
                    raise Stop
                done += 1
            return original(self, *arguments)

        return call

    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    return lambda: done


def test_a_run_stopped_before_any_of_its_renames_is_continued_to_the_same_bytes(run, photos, tmp_path, monkeypatch):
    two = ("--shard-samples", "9")
    assert run(photos, "whole", *two) == 0
    with monkeypatch.context() as patch:
        events = write_events(tmp_path / "counted", patch, None)
        run(photos, "counted", *two)
        total = events()
    assert total == 7  # settings, receipt, twice shard and record, index
    for stop_at in range(total):
        folder = tmp_path / f"stopped-{stop_at}"
        with monkeypatch.context() as patch:
            write_events(folder, patch, stop_at)
            with pytest.raises(Stop):
                run(photos, folder.name, *two)
        assert not (folder / "index" / "index.json").exists()
        assert run(photos, folder.name, *two) == 0
        assert content(folder) == content(tmp_path / "whole")
        assert {path.name for path in folder.iterdir() if path.name.startswith(".")} <= {".finished"}


def test_finished_shards_are_not_encoded_again(run, photos, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        write_events(tmp_path / "codes", patch, 7)  # two shards are whole by then
        with pytest.raises(Stop):
            run(photos, "codes")
    first = tmp_path / "codes" / "shard-000000.tar"
    before = first.stat().st_ino, first.read_bytes()
    capsys.readouterr()
    assert run(photos, "codes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoded"] == 17 - 9  # one of the ten files is a text
    assert (first.stat().st_ino, first.read_bytes()) == before
    assert run(photos, "codes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoded"] == 0


def test_a_shard_that_vanished_or_shrank_is_made_again(run, photos, tmp_path, monkeypatch):
    assert run(photos, "whole") == 0
    with monkeypatch.context() as patch:
        write_events(tmp_path / "codes", patch, 7)
        with pytest.raises(Stop):
            run(photos, "codes")
    (tmp_path / "codes" / "shard-000000.tar").unlink()
    os.truncate(tmp_path / "codes" / "shard-000001.tar", 512)
    assert run(photos, "codes") == 0
    assert content(tmp_path / "codes") == content(tmp_path / "whole")


def test_kill_9_and_the_same_command_again(model, tmp_path):
    photos = tmp_path / "many"
    photos.mkdir()
    for number in range(150):
        picture(number, 60, 60).save(photos / f"{number:03d}.png", compress_level=1)
    words = ["encode", str(photos), "--model", str(model), "--shard-samples", "20", "--batch-size", "1", "-o"]
    command = [sys.executable, "-m", "mmzoo", *words, str(tmp_path / "killed")]
    process = subprocess.Popen(command, start_new_session=True)
    second = tmp_path / "killed" / ".finished" / "shard-000001.tar.json"
    while not second.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "index").exists()
    assert main(["data", "inspect", str(tmp_path / "killed")]) == 2  # half a folder is none
    kept = (tmp_path / "killed" / "shard-000000.tar").stat().st_mtime_ns
    assert main([*words, str(tmp_path / "killed")]) == 0
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert (tmp_path / "killed" / "shard-000000.tar").stat().st_mtime_ns == kept


# --- broken pictures and mistakes ---


@pytest.fixture
def damaged(photos: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "damaged" / "photos"
    shutil.copytree(photos, folder)
    for name in ("Set 1/img.01.png", "Set 2/img.11.png"):
        file = folder / name
        file.write_bytes(file.read_bytes()[:200])
    return folder


def test_broken_pictures_are_left_out_and_listed_once(run, damaged, tmp_path, capsys):
    assert run(damaged, "codes", "--max-broken", "2", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["broken"], summary["skipped"]) == (15, 2, 1)
    assert run(damaged, "codes", "--max-broken", "2") == 0
    rows = [json.loads(line) for line in (tmp_path / "codes" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["shard"] for row in rows) == ["Set 1/img.01.png", "Set 2/img.11.png"]
    assert all("damaged or truncated PNG" in row["reason"] for row in rows)


def test_a_broken_file_of_a_folder_is_no_shard(run, damaged, capsys):
    assert run(damaged, "codes") == 2
    said = capsys.readouterr().err
    assert "source photos, file Set " in said
    assert "shard" not in said
    assert "offset" not in said


def test_the_models_own_size_may_leave_a_rest():
    _check_size(378 + 6, 14, own=384)  # siglip2-384: 27 patches, as it was trained
    with pytest.raises(InputError, match="Give 378 or 392"):
        _check_size(384, 14, own=256)


def test_broken_samples_of_shards_are_named_by_their_place(run, photos, tmp_path):
    build_image_shards(BuildSettings(photos, tmp_path / "shards"))
    index = ShardIndex.open(tmp_path / "shards")
    path, offset, size = index.place(4, "image")
    with path.open("r+b") as tar:
        tar.seek(offset)
        tar.write(bytes(size))
    os.utime(path, (1e9, 1e9))
    assert run(tmp_path / "shards", "codes", "--max-broken-share", "0.1") == 0
    row = json.loads((tmp_path / "codes" / "quarantine.jsonl").read_text())
    assert (row["offset"], row["position"], row["key"]) == (offset, 4, index.key(4))
    assert ShardIndex.open(tmp_path / "codes").count == 16


def test_a_spent_budget_ends_the_run_and_a_larger_one_continues_it(run, damaged, tmp_path, capsys):
    assert run(damaged, "codes", "--max-broken", "1") == 2
    assert "max_broken is 1" in capsys.readouterr().err
    assert not (tmp_path / "codes" / "index").exists()
    assert run(damaged, "codes", "--max-broken", "2") == 0
    assert run(damaged, "fresh", "--max-broken", "2") == 0
    assert content(tmp_path / "codes") == content(tmp_path / "fresh")


def test_a_shard_without_a_sound_picture_leaves_no_file(run, tmp_path):
    folder = tmp_path / "half"
    folder.mkdir()
    for number in range(10):
        picture(number).save(folder / f"{number}.png")
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(folder, "codes", "--max-broken", "5") == 0
    assert [path.name for path in sorted((tmp_path / "codes").glob("*.tar"))] == ["shard-000001.tar"]
    index = ShardIndex.open(tmp_path / "codes")
    assert index.count == 5
    assert all(ShardReader(index).sample(row).fields["codes"].shape == (4, 4, 4) for row in range(5))
    assert lint_folder(tmp_path / "codes") == []


def test_one_picture_is_training_data(run, tmp_path):
    (tmp_path / "one").mkdir()
    picture(0).save(tmp_path / "one" / "a.png")
    assert run(tmp_path / "one", "codes") == 0
    assert len(ShardIndex.open(tmp_path / "codes").split_rows("train")) == 1


def test_a_long_narrow_picture_is_broken_not_an_explosion(run, tmp_path):
    (tmp_path / "odd").mkdir()
    Image.new("RGB", (100_000, 1)).save(tmp_path / "odd" / "line.png")
    picture(0).save(tmp_path / "odd" / "a.png")
    assert run(tmp_path / "odd", "codes", "--max-broken", "1") == 0
    assert "too long and narrow" in (tmp_path / "codes" / "quarantine.jsonl").read_text()
    assert run(tmp_path / "odd", "stretched", "--resize", "stretch") == 0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--levels", "2"], "levels: 4 there, 2 now"),
        (["--size", "40"], "size: 32 there, 40 now"),
        (["--resize", "stretch"], "resize:"),
        (["--fast"], "fast: false there, true now"),
        (["--shard-samples", "6"], "shard_samples: 5 there, 6 now"),
        (["--val-fraction", "0.5"], "another source"),
        (["--background", "white"], "another source"),
    ],
)
def test_other_settings_are_refused(run, photos, tmp_path, capsys, options, name):
    assert run(photos, "codes") == 0
    before = content(tmp_path / "codes")
    assert run(photos, "codes", *options) == 2
    assert name in capsys.readouterr().err
    assert content(tmp_path / "codes") == before


def test_other_weights_and_other_pictures_are_refused(run, photos, tmp_path, capsys):
    mine = tmp_path / "mine"
    shutil.copytree(photos, mine)
    assert run(mine, "codes") == 0
    other = save_model(EvoTokModel(EvoTokConfig(**TINY)).eval(), tmp_path / "other-model")
    assert run(mine, "codes", "--model", str(other)) == 2
    assert "another model" in capsys.readouterr().err
    picture(99).save(mine / "new.png")
    assert run(mine, "codes") == 2
    assert "another source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--levels", "5"], "--levels 5: this model has 4. Give 1 to 4"),
        (["--levels", "0"], "--levels 0: this model has 4"),
        (["--size", "7"], "--size 7: a patch has 8 px"),
        (["--size", "33"], "--size 33: patches of 8 px do not divide it, its last rows would be lost. Give 32 or 40"),
        (["--size", "99999999"], "--size 99999999: give at most 4096 px"),
        (["--batch-size", "9" * 30], f"--batch-size {'9' * 30}: give at most 4,096"),
        (["--workers", "100000"], "--workers 100000: give at most 256"),
        (["--shard-samples", "9" * 30], "give at most 10,000,000"),
        (["--batch-size", "0"], "--batch-size 0: give at least 1"),
        (["--workers", "0"], "--workers 0: give at least 1"),
        (["--device", "quantum"], "--device quantum cannot be used here"),
        (["--max-broken", "-1"], "max_broken must not be negative"),
        (["--val-fraction", "2"], "not between 0 and 1"),
        (["--resize", "none"], "invalid choice: 'none'"),
    ],
)
def test_mistakes_are_one_line_and_make_no_folder(run, photos, tmp_path, capsys, options, words):
    assert run(photos, "codes", *options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loaded ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "codes").exists()


def test_places_that_are_none(run, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    assert run(tmp_path / "empty", "a") == 2
    assert run(tmp_path / "nowhere", "a") == 2
    assert run(photos, "full") == 2
    assert run(photos, "file/in") == 2
    assert run(tmp_path, ".") == 2
    assert run(photos, "codes") == 0
    assert run(tmp_path / "codes", "again") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmzoo")]
    words = ["is empty", "no folder at", "holds no encode.json", "is a file", "would hold the images", "not images"]
    assert [any(word in line for line in errors) for word in words] == [True] * 6, errors
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_two_processes_do_not_write_one_folder(run, photos, tmp_path, capsys):
    (tmp_path / "codes").mkdir()
    with only_writer(tmp_path / "codes", "a test", "Wait"):
        assert run(photos, "codes") == 2
    error = capsys.readouterr().err
    assert f"codes is in use for another encoding by process {os.getpid()} on " in error
    assert "name another folder" in error
    assert run(photos, "codes") == 0
    assert not (tmp_path / "codes" / LOCK_FILE).exists()


def test_crops_of_images_do_not_take_codes(run, photos, tmp_path):
    assert run(photos, "codes") == 0
    with tarfile.open(tmp_path / "codes" / "shard-000000.tar") as tar:
        first = tar.getmembers()[0]
        stream = tar.extractfile(first)
        assert stream is not None
        assert np.load(io.BytesIO(stream.read())).shape == (4, 4, 4)
    for crop in (CenterCrop(32), TrainingCrop(32)):
        data = ShardData(str(tmp_path / "codes"), crop, global_batch=4)
        with pytest.raises(ValueError, match="these shards hold codes, no images"):
            next(iter(data.train_dataloader()))
