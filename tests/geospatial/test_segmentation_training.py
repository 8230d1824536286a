"""The stages of CrossEarth-SAR: what they train, what they leave as it is to the byte, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from lightning.pytorch import Trainer

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.crossearth_sar.training import CrossEarthSARSegmentation, FineTuning
from geospatial.raster_data import RasterData
from geospatial.raster_sources import RasterSource
from geospatial.segmentation import class_colours, log_loss
from geospatial.validation_probe import refuse_nothing_to_validate
from mmzoo.errors import InputError
from mmzoo.hub.auto import register_families
from mmzoo.hub.load import from_pretrained
from mmzoo.hub.official import export_main
from mmzoo.hub.save import save_model
from mmzoo.training.checkpoints import initialise_from
from mmzoo.training.chosen_methods import MethodsInRecord
from mmzoo.training.optimizers import OptimizerSettings
from mmzoo.training.run_record import RunRecord

CLASSES = {0: "land", 1: "water"}
AMPLITUDE = {"domain": "amplitude", "value_range": [0, 2], "num_hidden_layers": 2, "hidden_size": 32, "mlp_ratio": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, raster_at):
    """Dark water left, bright land right, in two domains of another brightness."""
    root = tmp_path_factory.mktemp("scenes")
    for name, gain in (("source", 1.0), ("target", 0.6)):
        for number in range(4):
            random = np.random.default_rng(number)
            mask = np.zeros((1, 40, 48), np.uint8)
            mask[..., : 16 + 4 * number] = 1
            values = gain * np.sqrt(random.gamma(4, np.where(mask, 0.02, 0.2))).astype(np.float32)
            raster_at(root / name / "images" / f"{number}.tif", values)
            raster_at(root / name / "masks" / f"{number}.tif", mask, None)
    return root


def data(folder, **options) -> RasterData:
    sources = [
        RasterSource(str(folder / name / "images"), str(folder / name / "masks"), name, role)
        for name, role in (("source", "source"), ("target", "target"))
    ]
    given = {"classes": CLASSES, "window": 32, "global_batch": 4, "val_fraction": 0.3, "steps_per_epoch": 3, **options}
    return RasterData(sources, **given)


def stage(kind=CrossEarthSARSegmentation, **options):
    torch.manual_seed(0)
    given = {"head": "fpn", "head_settings": {"width": 16}, "overrides": AMPLITUDE, **options}
    return kind(CLASSES, optimizer=OptimizerSettings(lr=3e-3, weight_decay=0.05), **given)


def train(module, given, steps: int = 3, **options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, num_sanity_val_steps=0, log_every_n_steps=1, **quiet, **options
    )
    trainer.fit(module, datamodule=given)
    return trainer


def state_bytes(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_pretraining_moves_everything_and_logs_experts_and_both_domains(folder):
    module = stage()
    before = state_bytes(module.model)
    metrics = train(module, data(folder)).callback_metrics
    after = state_bytes(module.model)
    still = {name for name in before if before[name] == after[name]}
    assert still <= {"encoder.norm.weight", "encoder.norm.bias", "encoder.embeddings.mask_token"}
    for name in (
        "val/miou",
        "val_target/miou",
        "val/iou/water",
        "val/log_loss",
        "train/cross_entropy",
        "train/balance",
    ):
        assert name in metrics, name
    shares = [metrics[f"train/usage/block00_expert{expert}"].item() for expert in range(6)]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert 0 <= metrics["train/router_entropy/block01"].item() <= np.log(6) + 1e-5


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, {"head"}),
        ({"earth_adapter": {"width": 4}}, {"head", "earth_adapter"}),
        ({"lora": {"rank": 2}}, {"head", "encoder"}),
    ],
    ids=["head", "earth-adapter", "lora"],
)
def test_fine_tuning_leaves_the_encoder_as_it_is_to_the_byte(folder, options, trained):
    module = stage(FineTuning, **options)
    encoder = {name: value.numpy().tobytes() for name, value in module.segmenter.encoder_state().items()}
    before = state_bytes(module.model)
    train(module, data(folder), steps=2)
    after = state_bytes(module.model)
    assert {name: value.numpy().tobytes() for name, value in module.segmenter.encoder_state().items()} == encoder
    moved = {name for name in before if before[name] != after[name]}
    assert {name.split(".")[0] for name in moved} == trained
    assert all(".lora_" in name for name in moved if name.startswith("encoder"))
    assert "train/balance" not in module.loss_counts(next(iter(data(folder).train_dataloader().make())))


def test_it_learns_water(folder):
    module = stage()
    train(module, data(folder, steps_per_epoch=40), steps=40)
    assert module.trainer.callback_metrics["val/miou"] > 0.8


def test_best_is_chosen_on_the_source_unless_the_target_is_asked_for():
    assert stage().best_metric == ("val/miou", "max")
    assert stage(select_by="target").best_metric == ("val_target/miou", "max")
    assert CrossEarthSARSegmentation.best_metric == ("val/miou", "max")
    with pytest.raises(InputError, match="source or target"):
        stage(select_by="both")


def test_an_encoder_may_come_from_a_saved_model_and_the_decoder_starts_anew(tmp_path):
    first = stage()
    save_model(first.model, tmp_path / "model", processor=first.processor)
    second = stage(
        FineTuning, encoder_from=str(tmp_path / "model"), head="linear", head_settings=None, lora={"rank": 2}
    )
    ours, theirs = second.segmenter.encoder_state(), first.segmenter.encoder_state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert second.receipts[0]["encoder_from"] == str(tmp_path / "model")
    with pytest.raises(InputError, match="the encoder does not fit"):
        stage(encoder_from=str(tmp_path / "model"), overrides={**AMPLITUDE, "hidden_size": 64})


def test_weights_of_other_classes_are_not_taken_over(tmp_path):
    saved = stage()
    save_model(saved.model, tmp_path / "model", processor=saved.processor)
    initialise_from(stage(), tmp_path / "model")
    other = CrossEarthSARSegmentation(
        {0: "water", 1: "land"}, head="fpn", head_settings={"width": 16}, overrides=AMPLITUDE
    )
    with pytest.raises(InputError, match="on the classes land, water, this config on water, land"):
        initialise_from(other, tmp_path / "model")
    with pytest.raises(InputError, match=r"holds a CrossEarthSARForSegmentation, .* that of CrossEarthSARModel"):
        export_main([str(tmp_path / "model"), "--out", str(tmp_path / "out.safetensors")], "mmzoo models export")


def test_a_dense_encoder_becomes_every_expert_and_computes_the_same(tmp_path):
    dense = stage(overrides={**AMPLITUDE, "num_experts": 1})
    save_model(dense.model.eval(), tmp_path / "dense")
    sparse = stage(encoder_from=str(tmp_path / "dense"), overrides={**AMPLITUDE, "num_experts": 3, "gate": "renorm"})
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        one, other = (each.segmenter.encoder.eval()(pixels) for each in (dense, sparse))
    torch.testing.assert_close(one.last_hidden_state, other.last_hidden_state, atol=1e-6, rtol=1e-5)
    assert int((other.expert_counts.sum(0) > 0).sum()) > 1
    save_model(sparse.model.eval(), tmp_path / "sparse")
    with pytest.raises(InputError, match="does not fit"):
        stage(encoder_from=str(tmp_path / "sparse"), overrides={**AMPLITUDE, "num_experts": 2})


def test_saved_and_loaded_by_name_it_segments_the_same(tmp_path):
    small = {"width": 32, "queries": 4, "heads": 4, "encoder_layers": 1, "decoder_layers": 2, "points": 16}
    module = stage(head="mask2former", head_settings=small, earth_adapter={"width": 4})
    folder = save_model(module.model, tmp_path / "model", processor=module.processor)
    images = torch.randn(2, 3, 32, 40)
    expected = module.segmenter.eval().segment(images)
    assert torch.equal(from_pretrained(folder, quiet=True).segment(images), expected)
    register_families()
    loaded = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert isinstance(loaded, CrossEarthSARForSegmentation)
    assert torch.equal(loaded.eval().segment(images), expected)
    assert loaded.config.id2label == {0: "land", 1: "water"}


def test_a_batch_without_samples_is_a_loss_of_zero(folder):
    module = stage()
    batch = {k: v[:0] for k, v in next(iter(data(folder).train_dataloader().make())).items()}
    loss = module.losses(batch, "model")
    assert {name: int(part.count) for name, part in loss.parts.items()} == {"cross_entropy": 0, "balance": 0}
    loss.total.backward()
    assert loss.total.item() == 0
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_a_model_of_nan_gets_no_score(folder):
    module = stage()
    with torch.no_grad():
        next(module.head.parameters()).fill_(float("nan"))
    batch = next(iter(data(folder).train_dataloader().make()))
    with pytest.raises(InputError, match="scores are not finite numbers for"):
        module.validation_step(batch, 0)


def test_counts_are_told_from_the_batch_alone(folder):
    module = stage()
    module.logs_this_update = False
    batch = next(iter(data(folder).train_dataloader().make()))
    loss, counts = module.losses(batch, "model"), module.loss_counts(batch)
    assert {name: int(part.count) for name, part in loss.parts.items()} == {n: int(c) for n, c in counts.items()}
    assert counts["balance"] == 4 * (1 + 16)


def test_what_has_no_data_does_not_reach_the_network(folder):
    module = stage()
    batch = next(iter(data(folder).train_dataloader().make()))
    batch["valid"][:, :10] = False
    clean = module.network_input(batch)
    batch["image"][:, :, :10] = 1e9
    assert torch.equal(module.network_input(batch), clean)
    assert clean[:, :, :10].eq(0).all()


def test_data_of_another_kind_are_refused(folder):
    with pytest.raises(InputError, match="the model takes db values and the data are amplitude"):
        train(stage(overrides={**AMPLITUDE, "domain": "db", "value_range": [-30, 0]}), data(folder))
    with pytest.raises(InputError, match=r"model's classes are land, water and the data's water, land"):
        train(stage(), data(folder, classes={1: "water", 0: "land"}))
    batch = next(iter(data(folder).train_dataloader().make()))
    with pytest.raises(InputError, match="takes 1 or 3 bands, the data give 2"):
        stage().network_input({**batch, "image": batch["image"].expand(-1, 2, -1, -1)})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"head": "unet"}, "head is 'unet'"),
        ({"head_settings": {"with": 3}}, "Did you mean 'width'"),
        ({"lora": {"rank": 2}}, "Use the stage FineTuning"),
        ({"overrides": {"hidden_sizes": 3}}, "Did you mean 'hidden_size'"),
        ({"class_weights": [1.0]}, "class_weights must be 2 numbers"),
    ],
)
def test_settings_that_are_none(options, reason):
    with pytest.raises(InputError, match=reason):
        stage(**options)
    with pytest.raises(InputError, match="there is no layer 'querry'"):
        stage(FineTuning, lora={"layers": ["querry"]})


def test_a_choice_by_what_is_not_there_is_refused_before_training(folder):
    source = RasterSource(str(folder / "source" / "images"), str(folder / "source" / "masks"), "source")
    alone = RasterData([source], classes=CLASSES, window=32, global_batch=4, val_fraction=0.3, steps_per_epoch=1)
    with pytest.raises(InputError, match="select_by is target, and no source of the data has role: target"):
        train(stage(select_by="target"), alone)


@pytest.mark.parametrize("empty", ["labels", "data", "both but for a corner"])
def test_a_validation_that_could_say_nothing_is_refused_before_training(folder, raster_at, tmp_path, empty):
    """Which of two overlaps nowhere: labels left, data right; a single pixel of both in the last tile is enough."""
    for number in range(3):
        mask, values = np.zeros((1, 40, 48), np.uint8), np.full((1, 40, 48), 0.3, np.float32)
        if empty == "labels":
            mask[:] = IGNORE
        else:
            mask[..., 24:], values[..., :24] = IGNORE, np.nan
        if empty == "both but for a corner" and number == 2:
            mask[..., -1, -1] = 1
        raster_at(tmp_path / "images" / f"{number}.tif", values)
        raster_at(tmp_path / "masks" / f"{number}.tif", mask, None)
    given = data(folder)
    given.sources[0] = RasterSource(given.sources[0].images, given.sources[0].masks, "source", split="train")
    given.sources.append(RasterSource(str(tmp_path / "images"), str(tmp_path / "masks"), "empty", split="val"))
    if empty == "both but for a corner":
        refuse_nothing_to_validate(given.open_index(), "source")
        return
    with pytest.raises(InputError, match=r"none of the 3 validation rasters of the source domain has a labelled pixel"):
        train(stage(), given)
    refuse_nothing_to_validate(given.open_index(), "target")


@pytest.mark.parametrize("method", ["auto", "grouped"])
def test_the_run_record_says_how_the_experts_were_run(folder, tmp_path, method):
    record = RunRecord(tmp_path, "fit", [], "")
    record.write()
    module = stage(overrides={**AMPLITUDE, "expert_method": method})
    train(module, data(folder), steps=1, callbacks=[MethodsInRecord(record)], limit_val_batches=0)
    said = json.loads((tmp_path / "run.json").read_text())["computed_with"]
    assert said == {"experts": {"auto": "loop", "grouped": "grouped"}[method]}


def test_log_loss_in_closed_form():
    probabilities = torch.full((1, 4, 2, 2), 0.25)
    loss = log_loss(probabilities, torch.tensor([[[0, 1], [3, IGNORE]]]))
    assert loss.sum.item() == pytest.approx(3 * np.log(4), rel=1e-6)
    assert int(loss.count) == 3
    assert class_colours(7).unique(dim=0).shape == (8, 3)
