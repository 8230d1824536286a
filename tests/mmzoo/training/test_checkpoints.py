import json
from types import SimpleNamespace

import pytest
import torch

from mmzoo.errors import InputError
from mmzoo.training import checkpoint_folder as layout
from mmzoo.training import disk_space
from mmzoo.training.checkpoint_folder import by_age, finished, prune, publish, resolve_checkpoint, seal, sweep
from mmzoo.training.checkpoints import FolderCheckpoint


def make(checkpoints, step, content="x"):
    folder = checkpoints / layout.step_name(step)
    folder.mkdir(parents=True)
    (folder / "file").write_text(content)
    seal(folder, step)
    return folder


def validated(value, step):
    return SimpleNamespace(callback_metrics={"val/loss": value}, global_step=step, default_root_dir="run")


def test_best_is_strictly_better_and_ties_go_to_the_earlier():
    callback = FolderCheckpoint(monitor="val/loss")
    values = [2.0, 2.0, 3.0, 1.0, 1.0]
    improved = [step for step, value in enumerate(values) if callback._improves(validated(value, step))]
    assert improved == [0, 3]
    assert (callback.best_name, callback.best_value) == ("step_00000003", 1.0)
    largest = FolderCheckpoint(monitor="val/loss", mode="max")
    assert [step for step, value in enumerate(values) if largest._improves(validated(value, step))] == [0, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_metric_that_is_no_finite_number_is_never_the_best_and_ends_the_run(value, mode):
    callback = FolderCheckpoint(monitor="val/loss", mode=mode)
    assert callback._improves(validated(2.0, 1))
    with pytest.raises(InputError, match=f"validation after step 2 gave val/loss = {value}: the training diverged"):
        callback._improves(validated(value, 2))
    assert callback.best_name == "step_00000001"


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


def test_a_model_folder_or_an_unknown_place_leads_on(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"is a model, not a checkpoint\. To start from its weights: --init_from .*model$"
    ):
        resolve_checkpoint(tmp_path / "model")
    with pytest.raises(InputError, match=r"there is no checkpoint .*lost\. Give a folder below runs/NAME/checkpoints"):
        resolve_checkpoint(tmp_path / "lost")


def test_settings_are_checked():
    for settings in ({"keep": 0}, {"every_n_steps": -1}, {"mode": "up"}):
        with pytest.raises(InputError):
            FolderCheckpoint(**settings)


def hidden(folder, prefix=""):
    place = folder.with_name(f".{prefix}{folder.name}.0a1b2c3d")
    folder.rename(place)
    return place


def test_what_killed_saves_left_is_swept(tmp_path):
    for step in range(1, 4):
        make(tmp_path, step)
    layout.point(tmp_path, "last", "step_00000003")
    assert sweep(tmp_path) == []
    unfinished = hidden(make(tmp_path, 4))
    (unfinished / "DONE").unlink()
    half_removed = hidden(make(tmp_path, 5), "removed_")
    (tmp_path / ".last.0a1b2c3d").symlink_to("step_00000001")
    (tmp_path / ".notes").write_text("the user's")
    notes = sweep(tmp_path)
    assert [note.split()[1].rstrip(",") for note in notes] == [half_removed.name, unfinished.name]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step_00000001", "step_00000002", "step_00000003", "last", ".notes"}


def test_a_save_cut_off_between_its_renames_is_completed(tmp_path):
    """An earlier folder of that step was moved aside, the new one not in place yet: the new one wins."""
    make(tmp_path, 1)
    layout.point(tmp_path, "last", "step_00000001")
    hidden(make(tmp_path, 2, "whole"))
    damaged = hidden(make(tmp_path, 3))
    (damaged / "file").write_text("y")
    notes = sweep(tmp_path)
    assert len(notes) == 3
    assert "step_00000002 was finished but not in its place yet; it is now" in notes
    assert (tmp_path / "step_00000002" / "file").read_text() == "whole"
    assert (tmp_path / "last").readlink().name == "step_00000002"
    assert not damaged.exists()


def test_last_is_the_last_saved_not_the_highest_step(tmp_path):
    """A resume went back from step 9 to step 4 and was killed between the save of step 5 and moving the link."""
    make(tmp_path, 9)
    layout.point(tmp_path, "last", "step_00000009")
    make(tmp_path, 5)
    assert [path.name[-1] for path in by_age(tmp_path)] == ["9", "5"]
    assert sweep(tmp_path) == ["last points to step_00000005 now"]
    make(tmp_path, 6)
    prune(tmp_path, 1)
    assert [path.name[-1] for path in finished(tmp_path)] == ["5", "6"]


def test_a_damaged_last_keeps_its_link(tmp_path):
    make(tmp_path, 1)
    (make(tmp_path, 2) / "DONE").unlink()
    layout.point(tmp_path, "last", "step_00000002")
    assert sweep(tmp_path) == []
    assert (tmp_path / "last").readlink().name == "step_00000002"


def test_an_earlier_checkpoint_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    make(tmp_path, 1, "old")
    new = make(tmp_path / "elsewhere", 1, "new")
    real = type(new).rename
    monkeypatch.setattr(type(new), "rename", lambda path, to: real(path, to) if path != new else interrupt())
    with pytest.raises(KeyboardInterrupt):
        publish(new, tmp_path / "step_00000001")
    assert (tmp_path / "step_00000001" / "file").read_text() == "old"


def interrupt():
    raise KeyboardInterrupt


def test_the_room_for_a_checkpoint_is_that_of_the_last_one_or_of_the_state(tmp_path, monkeypatch):
    model = torch.nn.Linear(1000, 10)
    module = SimpleNamespace(state_dict=model.state_dict, model=model)
    average = SimpleNamespace(state_dict=model.state_dict)
    trainer = SimpleNamespace(optimizers=[torch.optim.Adam(model.parameters())], callbacks=[average])
    weights = 4 * 10_010
    assert disk_space.needed_bytes(trainer, module, tmp_path) == int((5 * weights + disk_space.HEADERS) * 1.02)
    make(tmp_path, 1, "x" * 5000)
    make(tmp_path, 2, "x" * 7000)
    assert disk_space.needed_bytes(trainer, module, tmp_path) == 7140
    assert disk_space.shortage(trainer, module, tmp_path) is None
    monkeypatch.setattr(disk_space, "free_bytes", lambda folder: 7139)
    assert disk_space.shortage(trainer, module, tmp_path) == "it needs 0.0 MB, 0.0 MB are free"
    assert disk_space.free_bytes(tmp_path / "not" / "yet") > 0
