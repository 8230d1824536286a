"""A mixture through the trainer: tables, resume, skipped steps, `data why`; and packs through the data module."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_training import MeanColour

from data_engine.build import BuildSettings, build_image_shards
from data_engine.mixture_table import consumed_table
from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.training import ranks
from mmzoo.training.mixture_data import MixtureData

PACKING = {"capacity": 100, "over_long": "drop", "lengths": "data_engine.sample_lengths:estimated"}


@pytest.fixture(scope="module")
def sources(shards, tmp_path_factory):
    """The 13 training pictures of `shards`, and 6 dark ones."""
    root = tmp_path_factory.mktemp("dark")
    random = np.random.default_rng(1)
    (root / "files").mkdir()
    for number in range(6):
        Image.fromarray(random.integers(0, 40, (8, 8, 3), dtype=np.uint8)).save(root / "files" / f"{number}.png")
    build_image_shards(BuildSettings(root / "files", root / "shards", val_fraction=0))
    return {"bright": str(shards), "dark": str(root / "shards")}


def data(sources, parts=("bright", "dark*2"), **settings):
    given = {"global_batch": 4, **settings}
    return MixtureData({"sources": sources, "parts": list(parts)}, MeanColour(), **given)


def ids(stream):
    return [name for batch in stream for name in batch["sample_ids"]]


def test_a_run_on_a_mixture_resumes_exactly_and_says_what_it_consumed(config, sources, tmp_path, capsys):
    whole = yaml.safe_load(config.read_text())
    whole["data"]["class_path"] = "mmzoo.training.mixture_data.MixtureData"
    del whole["data"]["init_args"]["index"]
    whole["data"]["init_args"]["mixture"] = {"sources": sources, "parts": ["bright", "dark*2"]}
    config.write_text(yaml.safe_dump(whole))
    run = tmp_path / "run"
    assert main(["fit", "-c", str(config), "--run", str(run)]) == 0
    said = capsys.readouterr().err
    assert "bright    13       13      1   52.00%" in said
    assert "dark       6       12      2   48.00%" in said
    assert main(["data", "why", str(run), "--step", "8", "--json"]) == 0
    why = json.loads(capsys.readouterr().out)["samples"]
    expected = ids(itertools.islice(data(sources, steps_per_epoch=9).train_dataloader(), 8))
    assert [row["sample_id"] for row in why] == expected[28:32]
    consumed = {name: sum(one.startswith(name) for one in expected[:32]) for name in sources}
    assert consumed_table(consumed) in said
    resumed = tmp_path / "resumed"
    checkpoint = run / "checkpoints" / "step_00000003"
    arguments = ["--ckpt_path", str(checkpoint), "--run", str(resumed), "--skip_steps", "5..6"]
    assert main(["fit", "-c", str(config), *arguments]) == 0
    capsys.readouterr()
    assert main(["data", "why", str(resumed), "--step", "5", "--json"]) == 0
    assert [row["sample_id"] for row in json.loads(capsys.readouterr().out)["samples"]] == expected[24:28]


def test_packs_come_from_the_data_module_and_resume_by_position(sources, capsys):
    module = data(sources, global_batch=2, packing=PACKING, steps_per_epoch=50)
    batches = list(itertools.islice(module.train_dataloader(), 12))
    assert "packs of 100 tokens in epoch 0" in capsys.readouterr().err
    assert all(len(batch["pack_starts"]) == 3 for batch in batches)
    assert all(batch["lengths"].sum() <= 200 for batch in batches)
    assert any(len(batch["sample_ids"]) > 2 for batch in batches)
    later = data(sources, global_batch=2, packing=PACKING, steps_per_epoch=50)
    module.consume(5)
    later.load_data_state(json.loads(json.dumps(module.data_state())))
    assert ids(itertools.islice(later.train_dataloader(), 7)) == ids(batches[5:])


@pytest.mark.parametrize(
    ("change", "name"), [({"parts": ("bright", "dark")}, "mixture"), ({"packing": PACKING}, "packing")]
)
def test_another_mixture_needs_consent_and_begins_an_epoch(sources, change, name):
    first = data(sources)
    first.consume(3)
    state = json.loads(json.dumps(first.data_state()))
    with pytest.raises(InputError, match=f"consent with --allow_changes {name}"):
        data(sources, **change).load_data_state(state)
    second = data(sources, **change)
    second.load_data_state(state, [name])
    ledger = second.open_index().ledger("train", 0, True, 4)
    assert second.position == ledger.next_epoch(12)
    assert ledger.rows_at(second.position)[0] == ledger.rows_at(second.position - 1)[0] + 1


def test_ranks_with_other_data_are_named(monkeypatch):
    monkeypatch.setattr(ranks, "from_all_ranks", lambda own: [own, own, {**own, "ledger": "other"}])
    with pytest.raises(InputError, match="ranks 2 read other data"):
        ranks.check_equal_ranks({"identity": "a", "ledger": "b"})
