import csv
import errno
import os

from mmzoo.training.loggers import MetricsCsv


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_values_of_one_step_share_a_row_and_new_columns_join_later(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"train/loss": 1.0}, 1)
    log.log_metrics({"train/loss": 0.5, "epoch": 0}, 2)
    log.log_metrics({"val/loss": 0.7}, 2)
    log.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2"]
    assert rows(tmp_path)[0]["val/loss"] == ""
    assert (rows(tmp_path)[1]["train/loss"], rows(tmp_path)[1]["val/loss"]) == ("0.5", "0.7")


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    log = MetricsCsv(tmp_path)
    for step in range(1, 6):
        log.log_metrics({"a": step}, step)
    log.finalize("failed")
    again = MetricsCsv(tmp_path, keep_steps=3)
    again.log_metrics({"a": 40, "b": 1}, 4)
    again.finalize("success")
    assert [(row["step"], row["a"], row["b"]) for row in rows(tmp_path)] == [
        ("1", "1", ""),
        ("2", "2", ""),
        ("3", "3", ""),
        ("4", "40", "1"),
    ]


def test_a_row_that_is_kept_early_is_completed_later(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"a": 1}, 1)
    log.log_metrics({"a": 2}, 2)
    log.keep({"epoch": 0}, 2)
    assert [(row["step"], row["a"], row["epoch"]) for row in rows(tmp_path)] == [("1", "1", ""), ("2", "2", "0")]
    log.log_metrics({"b": 7}, 2)
    log.log_metrics({"a": 3}, 3)
    log.finalize("success")
    assert [(row["step"], row["a"], row["b"]) for row in rows(tmp_path)] == [
        ("1", "1", ""),
        ("2", "2", "7"),
        ("3", "3", ""),
    ]


def test_rows_wait_while_the_disk_is_full_and_none_is_half_written(tmp_path, monkeypatch, capsys):
    log = MetricsCsv(tmp_path)
    real = os.pwrite

    def full(file, data, place):
        real(file, data[:3], place)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log.log_metrics({"a": 1}, 1)
    log.log_metrics({"a": 2}, 2)
    monkeypatch.setattr(os, "pwrite", full)
    for step in (3, 4, 5):
        log.log_metrics({"a": step}, step)
    log.keep({})
    assert [row["step"] for row in rows(tmp_path)] == ["1"]
    assert capsys.readouterr().err.count("cannot be written (No space left on device)") == 1
    monkeypatch.setattr(os, "pwrite", real)
    log.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4", "5"]
