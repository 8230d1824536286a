"""What is done stays, what was cut off or changed is made anew, with all that needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval_suites.studies.grid import Step, mmzoo, run_grid
from mmzoo.errors import InputError


class Work:
    """Steps `first`, `second` (needs first) and `other`, and a note of each one made."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.fail = ""

    def steps(self, **settings: int) -> list[Step]:
        def step(name: str, *needs: str) -> Step:
            return Step(name, {"value": settings.get(name, 0)}, lambda folder: self._make(name, folder), needs)

        return [step("first"), step("second", "first"), step("other")]

    def _make(self, name: str, folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "half").touch()
        if name == self.fail:
            raise KeyboardInterrupt
        self.made.append(name)


def test_done_steps_are_kept_and_changes_spread(tmp_path: Path) -> None:
    work = Work()
    places = run_grid(tmp_path, work.steps())
    assert work.made == ["first", "second", "other"]
    assert places["second"] == tmp_path / "second"
    run_grid(tmp_path, work.steps())
    assert len(work.made) == 3
    run_grid(tmp_path, work.steps(first=1))
    assert work.made[3:] == ["first", "second"]
    run_grid(tmp_path, work.steps(first=1, other=2))
    assert work.made[5:] == ["other"]


def test_a_step_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    work = Work()
    work.fail = "second"
    with pytest.raises(KeyboardInterrupt):
        run_grid(tmp_path, work.steps())
    assert work.made == ["first"]
    work.fail = ""
    run_grid(tmp_path, work.steps())
    assert work.made == ["first", "second", "other"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"digest": 1}'])
def test_a_damaged_mark_is_no_mark(tmp_path: Path, text: str) -> None:
    work = Work()
    run_grid(tmp_path, work.steps())
    (tmp_path / "other" / "done.json").write_text(text)
    run_grid(tmp_path, work.steps())
    assert work.made[3:] == ["other"]


def test_a_need_that_nothing_makes_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs"):
        run_grid(tmp_path, [Step("a", {}, lambda _: None, ("b",))])


def test_a_refused_command_stops_the_grid() -> None:
    with pytest.raises(InputError, match="was refused"):
        mmzoo(["data", "build", "images", "/nowhere", "/nowhere2"])
