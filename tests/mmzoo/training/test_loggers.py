import csv

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
