"""`mmzoo data why` against what the training itself wrote down, with and without skipped steps."""

import json
import shutil

import numpy as np
import pytest
from interrupted_training import stream
from killed_runs import write_config
from PIL import Image

from data_engine.index import ShardIndex
from mmzoo.cli import main
from mmzoo.training.step_picture import to_picture


@pytest.fixture(scope="module")
def recorded():
    return {}


@pytest.fixture
def run(recorded, config, tmp_path, tmp_path_factory):
    """A copy of a run of 8 steps that wrote down its samples; accumulation 2, so 8 samples a step."""
    if not recorded:
        folder = tmp_path_factory.mktemp("why")
        changes = {
            "trainer": {"accumulate_grad_batches": 2},
            "model": {"class_path": "interrupted_training.RecordingTraining"},
        }
        file = write_config(folder / "tiny.yaml", config, changes)
        assert main(["fit", "-c", str(file), "--run", str(folder / "run")]) == 0
        recorded["run"] = folder / "run"
    shutil.copytree(recorded["run"], tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def why(run, step, capsys, *flags):
    capsys.readouterr()
    assert main(["data", "why", str(run), "--step", str(step), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def seen(run):
    """{step: ids} in the order of the batches, of the last process that trained the step."""
    found = {}
    for line in map(json.loads, (run / "seen.jsonl").read_text().splitlines()):
        found.setdefault(line["step"], []).extend(line["ids"])
    return found


def test_every_step_is_explained_as_it_was_seen(run, capsys, shards):
    index = ShardIndex.open(shards)
    trained = seen(run)
    assert [len(trained[step]) for step in range(1, 5)] == [8, 8, 8, 8]
    for step, ids in trained.items():
        samples = why(run, step, capsys)["samples"]
        assert [sample["sample_id"] for sample in samples] == ids
        assert [(sample["batch"], sample["slot"]) for sample in samples] == [(n // 4, n % 4) for n in range(len(ids))]
        for sample in samples:
            row = index.find(sample["key"])
            assert (sample["shard"], sample["offset"]) == (
                index.place(row, "image")[0].name,
                index.place(row, "image")[1],
            )
            with (shards / sample["shard"]).open("rb") as file:
                file.seek(sample["offset"])
                assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_a_checkpoint_explains_itself_and_a_step_to_come_is_said_to_be_one(run, capsys):
    checkpoint = run / "checkpoints" / "step_00000003"
    assert why(checkpoint, 2, capsys) == why(run, 2, capsys)
    assert main(["data", "why", str(run), "--step", "11"]) == 0
    captured = capsys.readouterr()
    assert "the run ended after step 8; this is what step 11 would consume" in captured.err
    assert captured.out.splitlines()[0].split()[:3] == ["position", "epoch", "batch"]
    assert len(captured.out.splitlines()) == 9


def test_two_ranks_are_told_apart(run, capsys):
    file = run / "data_steps.json"
    history = json.loads(file.read_text())
    history[0]["ranks"] = 2
    file.write_text(json.dumps(history))
    samples = why(run, 2, capsys)["samples"]
    batch = [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]
    assert [(sample["slot"], sample["rank"], sample["place"]) for sample in samples] == batch * 2


def test_skipped_steps_are_left_out_from_their_step_on(run, capsys):
    """Steps 6 and 7 are skipped: step 6 sees what step 8 saw; a second resume still knows."""
    before = seen(run)
    (run / "seen.jsonl").unlink()
    command = ["fit", "--run", str(run), "--ckpt_path", str(run / "checkpoints/step_00000004")]
    assert main([*command, "--skip-steps", "6..7", "--trainer.max_steps", "7"]) == 0
    assert json.loads((run / "run.json").read_text())["skipped_steps"] == [[6, 7]]
    assert main(["fit", "--run", str(run), "--ckpt_path", "last", "--trainer.max_steps", "9"]) == 0
    after = seen(run)
    assert after[5] == before[5]
    gone = [name for step in (6, 7) for name in before[step]]
    assert after[6] == before[8]
    assert not set(gone) & {name for step in after for name in after[step]}
    positions = [int(name.rpartition("@")[2]) for step in sorted(after) for name in after[step]]
    assert positions == [*range(32, 32 + 8), *range(40 + 16, 40 + 16 + len(positions) - 8)]
    for step, ids in after.items():
        told = why(run, step, capsys)
        assert [sample["sample_id"] for sample in told["samples"]] == ids
    assert told["skipped_positions"] == [[40, 56]]
    assert stream(run) != {}


def test_the_picture_shows_every_sample(run, capsys, tmp_path):
    why(run, 1, capsys, "--png", str(tmp_path / "step.png"))
    with Image.open(tmp_path / "step.png") as sheet:
        assert sheet.size == (8 * 128, 142)
        tile = np.asarray(sheet)[:126, :126]
    assert len(np.unique(tile.reshape(-1, 3), axis=0)) > 16  # an 8 x 8 picture of noise


def test_pictures_are_found_among_what_a_transform_makes():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(to_picture({"label": 3, "image": image}), image)
    signed = image.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    assert np.array_equal(to_picture({"image": signed}), image)
    grey = to_picture({"image": np.array([[[0.0, 5.0]]], np.float32)})
    assert grey.tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert to_picture({"flat": np.zeros(5)}) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: shutil.rmtree(run), "there is no run folder"),
        (lambda run: (run / "data_steps.json").unlink(), "has no data_steps.json"),
        (lambda run: (run / "data_steps.json").write_text("["), "cannot be read"),
        (lambda run: _set(run, identity="other"), "are not those of this step"),
        (lambda run: _set(run, index="/nowhere"), "no shard folder at /nowhere"),
    ],
)
def test_what_cannot_be_explained_is_one_line(run, capsys, damage, words):
    damage(run)
    capsys.readouterr()
    assert main(["data", "why", str(run), "--step", "1"]) == 2
    assert words in capsys.readouterr().err


def _set(run, **values):
    file = run / "data_steps.json"
    file.write_text(json.dumps([{**row, **values} for row in json.loads(file.read_text())]))
