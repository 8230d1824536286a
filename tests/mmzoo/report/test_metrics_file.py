import math

import pytest

from mmzoo.errors import InputError
from mmzoo.report.metrics_file import read_curves
from mmzoo.report.record import Curve
from mmzoo.training.loggers import MetricsCsv


def written(folder, text):
    path = folder / "metrics.csv"
    path.write_bytes(text.encode())
    return path


def test_what_the_trainer_writes_is_read(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"train/loss": 1.5, "epoch": 0}, 1)
    log.log_metrics({"train/loss": 0.5, "epoch": 0}, 2)
    log.log_metrics({"val/loss": 0.75}, 2)
    log.log_metrics({"train/loss": float("nan")}, 3)
    log.finalize("success")
    curves = read_curves(log.path)
    assert list(curves) == ["train/loss", "val/loss"]
    assert curves["val/loss"] == Curve("val/loss", (2,), (0.75,))
    assert curves["train/loss"].steps == (1, 2, 3)
    assert curves["train/loss"].values[:2] == (1.5, 0.5)
    assert math.isnan(curves["train/loss"].values[2])


def test_steps_are_sorted_and_columns_without_values_left_out(tmp_path):
    path = written(tmp_path, "step,epoch,a,b\r\n6,0,1.0,\r\n5,0,2.0,\r\n6,0,3.0,\r\n")
    assert read_curves(path) == {"a": Curve("a", (5, 6, 6), (2.0, 1.0, 3.0))}


def test_a_line_cut_by_a_kill_is_not_read(tmp_path):
    assert read_curves(written(tmp_path, "step,a\r\n1,0.5\r\n2,0.2"))["a"].steps == (1,)


def test_a_file_without_rows_has_no_curves(tmp_path):
    assert read_curves(written(tmp_path, "step,epoch\r\n")) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 0.*no column 'step'"),
        ("a,b\r\n1,2\r\n", "line 1.*no column 'step'"),
        ("step,a\r\n1,0.5\r\n2,fast\r\n", "line 3.*'fast'"),
        ("step,a\r\n1.5,0.5\r\n", "line 2.*'1.5'"),
        ("step,a\r\n,0.5\r\n", "line 2"),
        ("step,a\r\n1,0.5,0.6\r\n", "3 cells for 2 columns"),
        ("step,a\r\n1\r\n", "1 cells for 2 columns"),
        ("step,step\r\n1,1\r\n", "2 cells for 1 columns"),
        ('step,a\r\n1,"0.5\r\n', "line"),
    ],
)
def test_another_file_is_refused_with_its_line(tmp_path, text, fault):
    with pytest.raises(InputError, match=f"metrics.csv.*{fault}") as caught:
        read_curves(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"No such file.*Name the metrics\.csv"):
        read_curves(tmp_path / "metrics.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_curves(tmp_path)
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match="not text"):
        read_curves(tmp_path / "binary")
