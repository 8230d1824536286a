"""The sample log: killed anywhere, it goes on with no row lost, doubled or mixed with another evaluation's."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eval_suites.record import SampleLogStamp
from eval_suites.sample_log import SampleLog, SampleRow, read_sample_log
from mmzoo.errors import InputError

STAMP = {"suite": "reconstruction", "levels": [1, 4]}
ROWS = [
    SampleRow("a#0", "a", {"psnr@1": 20.0, "psnr@4": math.inf}, {"codes": [1, 2]}),
    SampleRow("b#0", "b", {"psnr@1": 0.1 + 0.2}),
    SampleRow("ü \u2028#0", "ü \u2028", {}),
]


def written(path: Path) -> Path:
    with SampleLog(path, STAMP) as log:
        for row in ROWS:
            log.append(row)
    return path


def test_what_goes_in_comes_out(tmp_path):
    path = tmp_path / "out" / "samples.jsonl"
    with SampleLog(path, STAMP) as log:
        for row in ROWS:
            assert row.key not in log
            log.append(row)
            assert row.key in log
        stamp = log.stamp()
    assert stamp.rows == 3
    assert read_sample_log(path.parent, stamp) == ROWS


def test_cut_at_any_byte_it_goes_on_to_the_same_file(tmp_path):
    whole = written(tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "cut.jsonl"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with SampleLog(path, STAMP) as log:
            done = [row.key for row in log.rows]
            assert done == [row.key for row in ROWS[: len(done)]]
            assert len(done) == max(0, whole[:length].count(b"\n") - 1)
            for row in ROWS[len(done) :]:
                log.append(row)
        assert path.read_bytes() == whole


def test_a_killed_process_loses_no_finished_row(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from eval_suites.sample_log import SampleLog, SampleRow\n"
        "log = SampleLog(Path(sys.argv[1]), {'a': 1})\n"
        "for number in range(50):\n"
        "    log.append(SampleRow(str(number), 'g', {'x': float(number)}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "samples.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run([sys.executable, "-c", program, str(path)], env=environment, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    with SampleLog(path, {"a": 1}) as log:
        assert [row.values["x"] for row in log.rows] == list(range(50))


def test_another_stamp_is_refused_and_harms_nothing(tmp_path):
    path = written(tmp_path / "samples.jsonl")
    before = path.read_bytes()
    for stamp in ({**STAMP, "levels": [1]}, {"suite": "reconstruction"}, {**STAMP, "limit": 3}):
        with pytest.raises(InputError, match=r"begun under other settings \((levels|limit)\)"):
            SampleLog(path, stamp)
    assert path.read_bytes() == before


def test_a_row_of_a_known_key_or_with_nan_is_a_fault(tmp_path):
    with SampleLog(tmp_path / "samples.jsonl", STAMP) as log:
        log.append(ROWS[0])
        with pytest.raises(ValueError, match="'a#0' is in"):
            log.append(ROWS[0])
        with pytest.raises(ValueError, match="NaN"):
            log.append(SampleRow("c", "c", {"x": math.nan}))
        assert log.rows == ROWS[:1]
    with SampleLog(tmp_path / "samples.jsonl", STAMP) as log:
        assert log.rows == ROWS[:1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"group": "a"', b'"grou": "a"', "line 2: unknown field 'grou'. Did you mean 'group'"),
        (b'"psnr@1": 20.0', b'"psnr@1": NaN', "line 2: NaN is no JSON number"),
        (b'"psnr@1": 20.0', b'"psnr@1": "20"', "line 2: 'values.psnr@1' must be a number"),
        (b'{"key": "b#0"', b'{"key": "a#0"', "line 3: the sample 'a#0' stands there twice"),
        (b'"schema": 1', b'"schema": 7', "line 1: no sample log of schema 1"),
        (b'"psnr@1": 20.0', b'"psnr@1": ' + b"9" * 400, "line 2: the whole number 9{37}... is too large"),
        (b'"psnr@1": 20.0', b'"psnr@1": 9e999', "line 2: the number 9e999 is too large"),
        (b'"psnr@1": 20.0', b'"psnr@1": "-inf"', "line 2: .*'psnr@1' is -inf"),
        (b'"codes": [1, 2]', b'"codes": ' + b"[" * 5000 + b"]" * 5000, "line 2: lists and tables lie in each other"),
        (b'"values"', b'\xff"values"', "line 2"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, old, new, words):
    path = written(tmp_path / "samples.jsonl")
    damaged = path.read_bytes().replace(old, new, 1)
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=words) as caught:
        SampleLog(path, STAMP)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged


def test_a_finished_log_is_the_one_of_its_record(tmp_path):
    path = written(tmp_path / "samples.jsonl")
    with SampleLog(path, STAMP) as log:
        stamp = log.stamp()
    with pytest.raises(InputError, match="holds 3 rows, its record says 2"):
        read_sample_log(tmp_path, SampleLogStamp(stamp.file, stamp.sha256, 2))
    path.write_bytes(path.read_bytes().replace(b"20.0", b"20.1"))
    with pytest.raises(InputError, match="has changed since its record"):
        read_sample_log(tmp_path, stamp)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_sample_log(tmp_path, stamp)
