"""Pushing to a Hub on the loopback: exactly the files that were shown, or one clear line and nothing sent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import TOKEN, hub_server

from eval_suites.evaluation import identity_stamp
from eval_suites.record import (
    DataStamp,
    EvalRecord,
    Metric,
    ModelStamp,
    SuiteStamp,
    read_record,
    write_record,
)
from eval_suites.sample_log import SampleLog, SampleRow
from mmzoo import cli
from mmzoo.hub.load import from_pretrained

FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "zoo.json"}


@pytest.fixture
def hub(monkeypatch):
    # With Xet the client asks for more than a Hub of a test has, and waits.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its own retries
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def push(folder, capsys):
    def command(*extra, source=folder, repository="owner/name"):
        capsys.readouterr()
        code = cli.main(["models", "push", str(source), repository, *map(str, extra)])
        return code, capsys.readouterr()

    return command


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_of(folder: Path, place: Path, **changes) -> Path:
    """A record of the model in `folder`, with its log."""
    names = ("config.json", "model.safetensors")
    suite = SuiteStamp("reconstruction", "1", {"levels": [4]})
    files = {name: sha256(folder / name) for name in names}
    model = ModelStamp("tiny", "evotok", None, None, files, "verified", 3, 3, ())
    model = changes.pop("model", model)
    data = DataStamp("natural images", "shards", "val", "cd" * 32, 2)
    with SampleLog(place / "samples.jsonl", identity_stamp(suite, model, data)) as log:
        for number, value in enumerate((20.0, 22.0)):
            log.append(SampleRow(str(number), str(number), {"psnr@4": value}))
        stamp = log.stamp()
    record = EvalRecord(
        schema=1,
        suite=suite,
        model=model,
        data=data,
        samples=stamp,
        metrics=(
            Metric("psnr@4", 21.0, "dB", True, 20.0, 22.0, 0.95, 2, 2),
            Metric("psnr@8", float("inf"), "dB", True, n_infinite=2),
            Metric.absent("rfid@4", "weights absent", higher_is_better=False),
        ),
        command="mmzoo eval run reconstruction",
        date="2026-11-25T03:00:00+00:00",
        seconds=1.0,
        device="cpu",
        hardware={},
        versions={},
        git_commit=None,
    )
    write_record(dataclasses.replace(record, **changes), place / "record.json")
    return place / "record.json"


def test_what_arrives_is_the_folder(hub, push, folder, tmp_path):
    code, output = push()
    assert code == 0, output.err
    sent = hub.files["main"]
    assert set(sent) == FILES
    assert all(sent[name] == (folder / name).read_bytes() for name in FILES)
    assert hub.messages == ["Upload name"]
    lines = output.out.splitlines()
    assert {line.split()[-1] for line in lines[:-1]} == FILES
    assert lines[-1] == f"{hub.url}/owner/name/commit/{'c' * 40}"
    for name, content in sent.items():
        (tmp_path / "fetched").mkdir(exist_ok=True)
        (tmp_path / "fetched" / name).write_bytes(content)
    assert from_pretrained(tmp_path / "fetched", quiet=True).load_receipt.hashes == "verified"


def test_pushed_again_nothing_large_is_sent_twice(hub, push):
    push()
    hub.requests.clear()
    code, output = push("--message", "Again")
    assert code == 0, output.err
    assert not [one for one in hub.requests if one.startswith("PUT")]
    assert hub.messages == ["Upload name", "Again"]


def test_a_dry_run_shows_the_same_and_asks_nobody(hub, push, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, output = push("--dry-run")
    assert code == 0
    assert {line.split()[-1] for line in output.out.splitlines()} == FILES
    assert "nothing was sent" in output.err
    assert hub.requests == []


def test_trainer_state_and_strangers_stay_here(hub, push, folder):
    strangers = ("state.ckpt", "rng.safetensors", "optimizer.bin", "data_state.json", "notes.txt", ".env")
    for name in strangers:
        (folder / name).write_bytes(b"private")
    (folder / "logs").mkdir()
    (folder / "logs/model.safetensors").write_bytes(b"private")
    code, output = push()
    assert code == 0, output.err
    assert set(hub.files["main"]) == FILES
    assert all(name in output.err for name in (*strangers, "logs/model.safetensors"))
    assert b"private" not in b"".join(hub.uploads.values())


def test_private_and_branch(hub, push):
    code, output = push("--private", "--revision", "v1")
    assert code == 0, output.err
    assert hub.private is True
    assert set(hub.files) == {"v1"}
    code, output = push("--private", "--revision", "v1")  # it exists, and it is private
    assert code == 0, output.err
    hub.private = False
    hub.files.clear()
    code, output = push("--private")
    assert code == 2
    assert "exists and is public, so --private would not hold" in output.err
    assert hub.files == {}


def test_evaluations_go_up_with_the_model(hub, push, folder, tmp_path):
    record = record_of(folder, tmp_path / "eval")
    card = (folder / "README.md").read_text()
    code, output = push("--record", record, "--dataset", "owner/benchmark")
    assert code == 0, output.err
    assert (folder / "README.md").read_text() == card
    sent = hub.files["main"]
    (place,) = {name.rpartition("/")[0] for name in sent if name.startswith("evals/")}
    assert set(sent) == {*FILES, ".eval_results/reconstruction.yaml", f"{place}/record.json", f"{place}/samples.jsonl"}
    assert sent[f"{place}/record.json"] == record.read_bytes()
    source = f"{hub.url}/owner/name/blob/main/{place}/record.json"
    (entry,) = yaml.safe_load(sent[".eval_results/reconstruction.yaml"])
    assert entry == {
        "dataset": {"id": "owner/benchmark", "task_id": "psnr@4"},
        "value": 21.0,
        "date": "2026-11-25T03:00:00+00:00",
        "source": {"url": source, "name": "record and sample log"},
        "notes": "reconstruction, version 1; dB; 20 to 22 at 95 %; n 2 in 2 groups",
    }
    text = sent["README.md"].decode()
    front = yaml.safe_load(text.split("---")[1])
    (model,) = front.pop("model-index")
    assert front == yaml.safe_load(card.split("---")[1])
    assert model["name"] == "name"
    (result,) = model["results"]
    assert result["dataset"]["name"] == "natural images"
    assert result["dataset"]["type"] == "natural-images"
    assert result["source"]["url"] == source
    (metric,) = result["metrics"]  # neither what is infinite nor what was not measured
    assert (metric["type"], metric["name"], metric["value"]) == ("psnr", "psnr@4", 21.0)
    body = text.split("---", 2)[2]
    assert card.split("---", 2)[2].strip() in body
    assert "| psnr@4 | 21.0 dB | 20.0 to 22.0, n 2 in 2 |" in body
    assert "| rfid@4 | not measured | weights absent |" in body
    assert f"[record]({place}/record.json)" in body


def test_without_a_benchmark_there_are_no_eval_results(hub, push, folder, tmp_path):
    code, output = push("--record", record_of(folder, tmp_path / "eval"))
    assert code == 0, output.err
    assert "no .eval_results: they need --dataset" in output.err
    assert not [name for name in hub.files["main"] if name.startswith(".eval_results")]
    assert b"model-index" in hub.files["main"]["README.md"]


@pytest.mark.parametrize("mistake", ["other weights", "damaged", "no log", "twice"])
def test_records_that_do_not_belong_are_refused(hub, push, folder, tmp_path, mistake):
    record = record_of(folder, tmp_path / "eval")
    records, words = [record], "no sound record"
    if mistake == "other weights":
        other = dataclasses.replace(read_record(record).model, files={"config.json": "0" * 64})
        record_of(folder, tmp_path / "other", model=other)
        records, words = [tmp_path / "other/record.json"], "is a record of another model than"
    if mistake == "damaged":
        record.write_text("{")
    if mistake == "no log":
        (record.parent / "samples.jsonl").unlink()
        words = "cannot be read"
    if mistake == "twice":
        records, words = [record, record], "give the same numbers"
    code, output = push(*(word for one in records for word in ("--record", one)))
    assert code == 2
    assert words in output.err
    assert (output.out, hub.requests) == ("", [])


@pytest.mark.parametrize("name", sorted(FILES - {"preprocessor_config.json"}))
def test_an_incomplete_folder_is_refused(hub, push, folder, name):
    (folder / name).unlink()
    code, output = push()
    assert code == 2
    assert name in output.err
    assert output.err.count("\n") == 1
    assert hub.requests == []


def test_a_changed_file_is_refused(hub, push, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pixel_levels": 1}))
    code, output = push()
    assert code == 2
    assert "config.json" in output.err
    assert hub.requests == []


def test_a_card_that_is_no_text_or_has_no_sound_front_matter_is_named(hub, push, folder, tmp_path):
    (folder / "README.md").write_bytes(b"\xff\xfe")
    code, output = push()
    assert (code, output.err.count("\n")) == (2, 1)
    assert "README.md is no text in UTF-8" in output.err
    record = record_of(folder, tmp_path / "eval")
    for text in ("---\na: [\n---\nx", "---\n- a\n---\nx", "---\nmodel-index: 3\n---\nx"):
        (folder / "README.md").write_text(text)
        code, output = push("--record", record, "--dataset", "owner/set")
        assert (code, output.err.count("\n")) == (2, 1)
        assert "no sound front matter" in output.err
    assert hub.requests == []


@pytest.mark.parametrize("name", ["LICENSE", "vocab.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_not_followed(hub, push, folder, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"private")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    code, output = push()
    assert (code, output.err.count("\n")) == (2, 1)
    assert f"{name} leads out of the folder, to {secret.resolve()}" in output.err
    assert hub.requests == []


def test_a_name_in_zoo_json_that_leads_out_is_refused(hub, push, folder):
    (folder.parent / "secret").write_bytes(b"private")
    zoo = json.loads((folder / "zoo.json").read_text())
    zoo["files"]["../secret"] = {"size": 7, "sha256": sha256(folder.parent / "secret")}
    (folder / "zoo.json").write_text(json.dumps(zoo))
    code, output = push()
    assert code == 2
    assert "leads out of the folder" in output.err
    assert hub.requests == []


def test_links_within_the_folder_are_files_like_others(hub, push, folder):
    (folder / "inner").mkdir()
    (folder / "inner/text").write_text("terms")
    (folder / "LICENSE").symlink_to("inner/text")
    code, output = push()
    assert code == 0, output.err
    assert hub.files["main"]["LICENSE"] == b"terms"


@pytest.mark.parametrize("repository", ["name", "a/b/c", "owner/na me", "owner/../x", "owner/--"])
def test_what_is_no_hub_id_is_refused(hub, push, repository):
    code, output = push(repository=repository)
    assert code == 2
    assert "is no Hub id" in output.err
    assert output.err.count("\n") == 1


def test_a_place_without_a_model_is_refused(hub, push, tmp_path):
    for source, words in [(tmp_path / "absent", "there is no model folder"), (tmp_path, "holds no config.json")]:
        code, output = push(source=source)
        assert code == 2
        assert words in output.err


def test_without_a_token_nothing_is_sent(hub, push, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, output = push()
    assert code == 2
    assert "Log in with: hf auth login" in output.err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("part", "fault", "words"),
    [
        ("/repos/create", 401, "does not accept your token (401)"),
        ("/repos/create", 403, "does not let you write to owner/name (403)"),
        ("/preupload/", 404, "does not let you write to owner/name (404)"),
        ("/objects/batch", 500, "failed (500) while owner/name was pushed"),
        ("/upload/", 503, "failed (503) while owner/name was pushed"),
        ("/commit/", 502, "failed (502) while owner/name was pushed"),
        ("/commit/", 412, "refused owner/name (412"),
        ("/repos/create", "cut", "the connection to http://127.0.0.1"),
        ("/upload/", "cut", "the connection to http://127.0.0.1"),
        ("/commit/", "cut", "the connection to http://127.0.0.1"),
    ],
)
def test_every_fault_of_hub_and_network_is_one_line(hub, push, part, fault, words):
    hub.faults[part] = fault
    code, output = push()
    assert code == 2
    mistakes = [line for line in output.err.splitlines() if line.startswith("mmzoo: ")]
    assert len(mistakes) == 1
    assert words in mistakes[0]
    assert "Traceback" not in output.err
    assert hub.files == {}
    assert "/commit/" not in output.out
    hub.faults.clear()
    assert push()[0] == 0
    assert set(hub.files["main"]) == FILES


def test_a_wrong_token_is_named(hub, push, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    code, output = push()
    assert code == 2
    assert re.search(r"does not accept your token \(401\).*hf auth login", output.err)


def test_nobody_there_is_named(hub, push, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, output = push()
    assert code == 2
    assert "the connection to http://127.0.0.1:9 broke" in output.err


def test_a_card_that_the_hub_refuses_is_named(hub, push):
    hub.card_errors = ['"license" must be one of a list']
    code, output = push()
    assert code == 2
    assert "refuses the card of owner/name" in output.err
    assert "license" in output.err


def test_a_checkpoint_gives_its_model(hub, push, folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(folder, run / "model")
    (run / "trainer.ckpt").write_bytes(b"private")
    code, output = push(source=run)
    assert code == 2  # never finished: no DONE
    assert "not a finished checkpoint" in output.err
