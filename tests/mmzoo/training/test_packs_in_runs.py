"""Packs from text records to a trained model: `data build -c`, `fit`, stops and resumes, `data why`, skipped steps."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from killed_runs import same_checkpoints
from packed_text import ByteConfig, ByteConversation, ByteModel, packed_loss
from PIL import Image

from data_engine.mixture_table import consumed_table
from mmzoo.cli import main
from mmzoo.training.mixture_data import MixtureData
from tests.data_engine.faulty_server import serving

WORDS = ("a pack", "holds", "several", "samples", "and none", "of them", "may look", "at its", "neighbours")
PACKING = {"capacity": 96, "over_long": ["truncate-text", "drop"], "lengths": "packed_text:byte_lengths", "window": 8}


def conversations(file, count, most, seed):
    """A JSON lines file of short dialogs of two turns."""
    draw = random.Random(seed)

    def said():
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    rows = [
        {"conversations": [{"from": "human", "value": said()}, {"from": "gpt", "value": f"{said()} {n}"}]}
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Two shard folders of dialogs, built by the command: 30 short ones, and 12 of which some are longer than a row."""
    root = tmp_path_factory.mktemp("dialogs")
    built = {}
    for name, count, most, seed in (("notes", 30, 4, 1), ("tales", 12, 14, 2)):
        conversations(root / f"{name}.jsonl", count, most, seed)
        config = {"output": str(root / name), "shard_size": "12KB", "val_fraction": 0.2}
        config["sources"] = [{"kind": "llava", "name": name, "annotations": str(root / f"{name}.jsonl")}]
        (root / f"{name}.yaml").write_text(yaml.safe_dump(config))
        assert main(["data", "build", "-c", str(root / f"{name}.yaml")]) == 0
        built[name] = str(root / name)
    return built


def section(sources, **changes):
    mixture = {"sources": sources, "parts": ["notes", "tales*1.5"]}
    return {"mixture": mixture, "packing": PACKING, "global_batch": 2, "seed": 5, **changes}


def data(sources, noise=0.1, **changes):
    return MixtureData(transform=ByteConversation(noise), **section(sources, **changes))


def test_packed_and_unpacked_have_one_loss_and_one_gradient(sources):
    batch = next(iter(data(sources, global_batch=6).train_dataloader().make()))
    assert len(batch["ids"]) > 6, "nothing was packed"
    alone = {**batch, "pack_starts": torch.arange(len(batch["ids"]) + 1)}
    torch.manual_seed(0)
    model = ByteModel(ByteConfig()).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)  # so that attention matters

    def measured(batch, mask=None):
        model.zero_grad()
        total, count = packed_loss(model, batch, mask)
        (total / count).backward()
        return total.item(), int(count), torch.cat([weight.grad.flatten() for weight in model.parameters()])

    total, count, gradient = measured(batch)
    wanted, labels, wanted_gradient = measured(alone)
    assert count == labels > 100
    assert total == pytest.approx(wanted, rel=1e-12)
    assert torch.cosine_similarity(gradient, wanted_gradient, dim=0) == pytest.approx(1, abs=1e-12)
    assert torch.allclose(gradient, wanted_gradient, rtol=1e-9, atol=1e-12)
    leaking, _, _ = measured(batch, lambda layout: torch.ones(layout.width, layout.width, dtype=torch.bool).tril())
    assert abs(leaking - total) > 1e-4 * total, "the test would not see a neighbour that is looked at"


@pytest.fixture(scope="module")
def config(sources, tmp_path_factory):
    transform = {"class_path": "packed_text.ByteConversation", "init_args": {"noise": 0.1}}
    whole = {
        "seed_everything": 3,
        "trainer": {"accelerator": "cpu", "max_steps": 10, "log_every_n_steps": 1},
        "model": {"class_path": "packed_text.ByteTraining", "init_args": {"optimizer": {"lr": 5e-2}}},
        "data": {
            "class_path": "mmzoo.training.mixture_data.MixtureData",
            "init_args": {**section(sources), "transform": transform, "workers": 2, "steps_per_epoch": 5},
        },
        "checkpoint": {"every_n_steps": 1, "keep": 20},
    }
    file = tmp_path_factory.mktemp("packs") / "packs.yaml"
    file.write_text(yaml.safe_dump(whole))
    return file


@pytest.fixture(scope="module")
def whole_run(config, tmp_path_factory):
    """Ten steps without a stop, read by two workers; what it said on stderr in `said.txt`."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("sys.stderr.write", said.append)
        assert main(["fit", "-c", str(config), "--run", str(run)]) == 0
    (run / "said.txt").write_text("".join(said))
    return run


def seen(run):
    """{step: its line} of the last process that trained the step."""
    return {line["step"]: line for line in map(json.loads, (run / "seen.jsonl").read_text().splitlines())}


def test_a_run_on_packs_learns(whole_run):
    lines = list(seen(whole_run).values())
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert all(len(line["packs"]) == 2 for line in lines)
    assert max(size for line in lines for size in line["packs"]) > 1
    rows = (whole_run / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    losses = [float(value) for row in rows[1:] if (value := row.split(",")[column])]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_and_resumed_on_other_workers_is_the_uninterrupted_run(config, whole_run, tmp_path, workers):
    checkpoint = whole_run / "checkpoints" / "step_00000004"
    flags = ["--run", str(tmp_path / "run"), "--data.init_args.workers", str(workers)]
    assert main(["fit", "-c", str(config), "--ckpt_path", str(checkpoint), *flags]) == 0
    whole = seen(whole_run)
    assert seen(tmp_path / "run") == {step: whole[step] for step in range(5, 11)}
    last = "checkpoints/step_00000010"
    assert same_checkpoints(whole_run / last, tmp_path / "run" / last)


def test_the_table_of_what_was_consumed_adds_up(whole_run, sources):
    ids = [name for line in seen(whole_run).values() for name in line["ids"]]
    assert (
        consumed_table({name: sum(one.startswith(name) for one in ids) for name in sources})
        in (whole_run / "said.txt").read_text()
    )


def why(run, step, capsys, *flags):
    capsys.readouterr()
    assert main(["data", "why", str(run), "--step", str(step), *flags]) == 0
    return capsys.readouterr().out


def test_every_sample_of_every_pack_of_a_step_is_named(whole_run, sources, capsys):
    for step, line in seen(whole_run).items():
        told = json.loads(why(whole_run, step, capsys, "--json"))["samples"]
        assert [sample["sample_id"] for sample in told] == line["ids"]
        members = [member for size in line["packs"] for member in range(size)]
        assert [sample["member"] for sample in told] == members
        assert [sample["slot"] for sample in told] == [n for n, size in enumerate(line["packs"]) for _ in range(size)]
        assert [stop - start for start, stop in (sample["tokens"] for sample in told)] == line["sizes"]
        for sample, before in zip(told, [None, *told], strict=False):
            assert sample["tokens"][0] == (before["tokens"][1] if before and sample["member"] else 0)
            with Path(sources[sample["source"]], sample["shard"]).open("rb") as tar:
                tar.seek(sample["offset"] - 512)
                assert tar.read(100).rstrip(b"\0").decode() == f"{sample['key']}.json"
    head, first, *_ = why(whole_run, 3, capsys).splitlines()
    assert head.split()[6:9] == ["member", "tokens", "source"]
    assert first.split()[7].startswith("0:")


def test_the_picture_has_a_row_for_each_pack_and_shows_text(whole_run, capsys, tmp_path):
    packs = seen(whole_run)[2]["packs"]
    why(whole_run, 2, capsys, "--png", str(tmp_path / "step.png"))
    with Image.open(tmp_path / "step.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (2 * 142, max(packs) * 128, 3)
    for row, size in enumerate(packs):
        for column in range(max(packs)):
            tile = pixels[row * 142 : row * 142 + 126, column * 128 : column * 128 + 126]
            assert (int(tile.min()) < 100) == (column < size)


def test_skipped_steps_leave_their_packs_out(config, whole_run, tmp_path, capsys):
    whole, run = seen(whole_run), tmp_path / "run"
    resume = ["--ckpt_path", str(whole_run / "checkpoints" / "step_00000004"), "--run", str(run)]
    assert main(["fit", "-c", str(config), *resume, "--skip_steps", "6..7", "--trainer.max_steps", "8"]) == 0
    found = seen(run)
    for step, as_before in {5: 5, 6: 8, 7: 9, 8: 10}.items():
        assert found[step] == {**whole[as_before], "step": step}
        told = json.loads(why(run, step, capsys, "--json"))
        assert [sample["sample_id"] for sample in told["samples"]] == whole[as_before]["ids"]
    assert told["skipped_positions"] == [[10, 14]]


def test_a_source_at_a_url_is_the_source_in_its_folder(config, whole_run, sources, tmp_path, capsys, monkeypatch):
    """Same packs, same bytes; `data why` uses the cache of the run; without the server its folder stands in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not_used"))
    run, cache = tmp_path / "run", tmp_path / "cache"
    with serving(Path(sources["notes"])) as server:
        flags = ["--data.mixture.sources.notes", server.url, "--data.cache_dir", str(cache), "--trainer.max_steps", "3"]
        assert main(["fit", "-c", str(config), "--run", str(run), *flags]) == 0
        assert seen(run) == {step: line for step, line in seen(whole_run).items() if step <= 3}
        told = why(run, 3, capsys)
        requests = sum(count for name, count in server.requests.items() if name.endswith(".tar"))
    assert told == why(whole_run, 3, capsys)
    assert requests == len(list(Path(sources["notes"]).glob("*.tar"))) == len(list(cache.glob("*/*.tar")))
    assert not (tmp_path / "not_used").exists()
    with monkeypatch.context() as patch:
        patch.setattr("data_engine.download.time.sleep", lambda seconds: None)
        assert main(["data", "why", str(run), "--step", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mmzoo: mixture.sources.notes: {server.url}/index/index.json could not be fetched")
    assert why(run, 3, capsys, "--index", f"notes={sources['notes']}") == told


def test_one_part_is_changed_on_the_command_line(config, tmp_path, capsys):
    flags = ["--run", str(tmp_path / "run"), "--trainer.max_steps", "1", "--data.mixture.parts.tales.epochs", "3"]
    assert main(["fit", "-c", str(config), *flags]) == 0
    rows = [line.split()[:4] for line in capsys.readouterr().err.splitlines()]
    notes, tales = (next(row for row in rows if row[0] == name) for name in ("notes", "tales"))
    assert (notes[1], notes[3], tales[3]) == (notes[2], "1", "3")
    assert int(tales[2]) == 3 * int(tales[1])
