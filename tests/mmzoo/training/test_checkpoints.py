import json
from types import SimpleNamespace

import pytest

from mmzoo.errors import InputError
from mmzoo.training import checkpoint_folder as layout
from mmzoo.training.checkpoint_folder import finished, prune, publish, resolve_checkpoint, seal
from mmzoo.training.checkpoints import FolderCheckpoint


def make(checkpoints, step, content="x"):
    folder = checkpoints / layout.step_name(step)
    folder.mkdir(parents=True)
    (folder / "file").write_text(content)
    seal(folder, step)
    return folder


def validated(value, step):
    return SimpleNamespace(callback_metrics={"val/loss": value}, global_step=step)


def test_best_is_strictly_better_ties_go_to_the_earlier_and_nan_never_wins():
    callback = FolderCheckpoint(monitor="val/loss")
    values = [float("nan"), 2.0, 2.0, 3.0, 1.0, float("nan"), 1.0]
    improved = [step for step, value in enumerate(values) if callback._improves(validated(value, step))]
    assert improved == [1, 4]
    assert (callback.best_name, callback.best_value) == ("step_00000004", 1.0)
    largest = FolderCheckpoint(monitor="val/loss", mode="max")
    assert [step for step, value in enumerate(values) if largest._improves(validated(value, step))] == [1, 3]


def test_links_point_to_folders_by_name_and_resolve(tmp_path):
    first, second = make(tmp_path, 1), make(tmp_path, 2)
    layout.point(tmp_path, "last", first.name)
    layout.point(tmp_path, "last", second.name)
    assert str((tmp_path / "last").readlink()) == second.name
    assert resolve_checkpoint(tmp_path / "last") == second


def test_pruning_keeps_what_links_point_to(tmp_path):
    for step in range(1, 6):
        make(tmp_path, step)
    (tmp_path / "step_00000009").mkdir()  # never finished
    layout.point(tmp_path, "best", "step_00000002")
    prune(tmp_path, 2)
    assert [path.name[-1] for path in finished(tmp_path)] == ["2", "4", "5"]


def test_a_published_folder_replaces_an_earlier_one(tmp_path):
    make(tmp_path, 1, "old")
    new = make(tmp_path / "elsewhere", 1, "new")
    publish(new, tmp_path / "step_00000001")
    assert (tmp_path / "step_00000001" / "file").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"step_00000001", "elsewhere"}


def test_what_is_no_checkpoint_is_refused_with_the_reason(tmp_path):
    make(tmp_path / "checkpoints", 100)
    unfinished = tmp_path / "checkpoints" / "step_00000200"
    unfinished.mkdir()
    with pytest.raises(InputError, match=r"has no DONE. Take an earlier one \(step_00000100 in"):
        resolve_checkpoint(unfinished)
    with pytest.raises(InputError, match="Did you mean 'step_00000100'"):
        resolve_checkpoint(tmp_path / "checkpoints" / "step_0000010")
    with pytest.raises(InputError, match=r"is a run, not a checkpoint. Try: .*/checkpoints/last"):
        resolve_checkpoint(tmp_path)
    with pytest.raises(InputError, match="is a file; a checkpoint is a folder"):
        resolve_checkpoint(tmp_path / "checkpoints" / "step_00000100" / "file")
    (unfinished / "DONE").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        resolve_checkpoint(unfinished)
    (unfinished / "DONE").write_text(json.dumps({"schema": 7, "files": {}}))
    with pytest.raises(InputError, match="has schema 7"):
        resolve_checkpoint(unfinished)


def test_settings_are_checked():
    for settings in ({"keep": 0}, {"every_n_steps": -1}, {"mode": "up"}):
        with pytest.raises(InputError):
            FolderCheckpoint(**settings)
