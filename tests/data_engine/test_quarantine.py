from __future__ import annotations

import json
import multiprocessing

import pytest

from data_engine.broken_samples import Fault
from data_engine.quarantine import BrokenSample, ErrorBudget, Quarantine
from mmzoo.errors import InputError


def broken(key, position=0):
    return BrokenSample(Fault("photos", "shard-000000.tar", key, 512, "not an image"), "train", 0, position)


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("limits", "broken_samples", "words"),
    [
        ({}, 0, None),
        ({}, 1, "none is tolerated"),
        ({"max_broken": 2}, 2, None),
        ({"max_broken": 2}, 3, "max_broken is 2"),
        ({"max_broken_share": 0.01}, 10, None),
        ({"max_broken_share": 0.01}, 11, "max_broken_share is 0.01 of 1000 samples"),
        ({"max_broken": 20, "max_broken_share": 0.01}, 11, "max_broken_share"),
        ({"max_broken": 5, "max_broken_share": 0.01}, 6, "max_broken is 5"),
        ({"max_broken": 0, "max_broken_share": 1.0}, 1, "max_broken is 0"),
        ({"max_broken_share": 1.0}, 1000, None),
    ],
)
def test_each_limit_that_is_given_holds(limits, broken_samples, words):
    found = ErrorBudget(**limits).exceeded(broken_samples, 1000)
    assert found is None if words is None else words in found


@pytest.mark.parametrize("limits", [{"max_broken": -1}, {"max_broken_share": 1.5}, {"max_broken_share": -0.1}])
def test_limits_without_meaning_are_refused(limits):
    with pytest.raises(InputError, match=next(iter(limits))):
        ErrorBudget(**limits)


def test_one_row_a_sample(tmp_path, capsys):
    file = tmp_path / "run" / "quarantine.jsonl"
    quarantine = Quarantine(ErrorBudget(max_broken=3), 1000, file)
    quarantine.add([])
    assert not file.exists()
    quarantine.add([broken("a", 3), broken("b", 4), broken("a", 5)])
    quarantine.add([broken("b", 1004)])
    assert [(row["key"], row["position"]) for row in rows(file)] == [("a", 3), ("b", 4)]
    assert rows(file)[0] == {
        **{"source": "photos", "shard": "shard-000000.tar", "key": "a", "offset": 512, "reason": "not an image"},
        **{"split": "train", "epoch": 0, "position": 3},
    }
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]) == 1


def test_ranks_and_later_starts_share_the_file_and_its_budget(tmp_path):
    file = tmp_path / "quarantine.jsonl"
    first, second = (Quarantine(ErrorBudget(max_broken=2), 1000, file) for _ in range(2))
    first.add([broken("a")])
    second.add([broken("a"), broken("b")])
    with pytest.raises(InputError) as caught:
        first.add([broken("c", 7)])
    message = str(caught.value)
    assert message.startswith("source photos, shard shard-000000.tar, key c, offset 512: not an image. 3 of 1000 ")
    assert f"listed in {file}" in message
    assert "\n" not in message
    assert [row["key"] for row in rows(file)] == ["a", "b", "c"]
    resumed = Quarantine(ErrorBudget(max_broken=2), 1000, file)
    with pytest.raises(InputError, match="max_broken is 2"):
        resumed.add([broken("a")])
    Quarantine(ErrorBudget(max_broken=3), 1000, file).add([broken("a")])


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path):
    file = tmp_path / "quarantine.jsonl"
    Quarantine(ErrorBudget(max_broken=9), 1000, file).add([broken("a")])
    with file.open("a") as stream:
        stream.write('{"source": "pho')
    later = Quarantine(ErrorBudget(max_broken=9), 1000, file)
    later.add([broken("b")])
    later.add([broken("c")])
    assert later.known == {("photos", "shard-000000.tar", key) for key in "abc"}
    assert [json.loads(line)["key"] for line in file.read_text().splitlines() if line.endswith("}")] == ["a", "b", "c"]


def note_many(file, mine):
    quarantine = Quarantine(ErrorBudget(max_broken_share=1.0), 1000, file)
    for number in mine:
        quarantine.add([broken(f"k{number}")])


def test_processes_that_write_at_once_lose_and_double_nothing(tmp_path):
    file = tmp_path / "quarantine.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=note_many, args=(file, range(start, start + 60))) for start in (0, 20, 40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(row["key"] for row in rows(file)) == sorted(f"k{number}" for number in range(100))


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=r"taken cannot be written \(Is a directory\)"):
        Quarantine(ErrorBudget(max_broken=9), 1000, tmp_path / "taken").add([broken("a")])
