from __future__ import annotations

from data_engine.progress import tracked


def test_items_pass_through_and_stdout_stays_clean(capsys, monkeypatch):
    assert list(tracked(range(5), "counting", 5)) == list(range(5))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("data_engine.progress.PATIENCE", -1.0)
    assert list(tracked(range(5), "counting", 5)) == list(range(5))
    assert capsys.readouterr().out == ""
