"""Every quantiser behind the one interface: what the contract asks of the model, asked of each kind."""

from __future__ import annotations

import io
import math
from contextlib import redirect_stderr

import pytest
import torch
from vector_quantize_pytorch import LFQ

from mmzoo.errors import InputError
from mmzoo.hub.save import save_model
from mmzoo.ops.residual_vq import usage
from tokenizers_visual.evotok import official
from tokenizers_visual.evotok.configuration import EvoTokConfig, checked_config
from tokenizers_visual.evotok.contract import example_batch, objective
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.level_dropout import read_out_depths
from tokenizers_visual.evotok.modeling import EvoTokModel

ONE_LEVEL = {"pixel_levels": 1, "semantic_levels": 1}
KINDS = {
    "evotok": {},
    "residual_vq": {"kmeans_init": True, "ema_decay": 0.8},
    "residual_fsq": {"fsq_levels": [4, 4, 4]},
    "lfq": ONE_LEVEL,
}
LIBRARY = [kind for kind in KINDS if kind != "evotok"]


def make(kind: str, seed: int = 0, **values) -> EvoTokModel:
    torch.manual_seed(seed)
    return EvoTokModel(EvoTokConfig(**{**TINY, "quantizer": kind, **KINDS[kind], **values}))


def batch(model: EvoTokModel, count: int = 4, seed: int = 0) -> torch.Tensor:
    return example_batch(model.config, count, seed)["pixel_values"]


def random_latent(seed: int = 0, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 8, 4, 5, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def trained(kind: str, steps: int = 3, **values) -> tuple[EvoTokModel, list[float]]:
    """A model after some steps on one batch, and its pixel errors."""
    model = make(kind, **values).train()
    images = batch(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    errors = []
    for _ in range(steps):
        loss, error = objective(model(images), {"pixel_values": images})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
    return model, errors


def test_training_learns_one_batch(kind):
    _, errors = trained(kind, 30)
    assert errors[-1] < 0.6 * errors[0]


def test_every_weight_on_the_way_to_pixels_gets_a_gradient(kind):
    model = make(kind).train()
    images = batch(model)
    objective(model(images), {"pixel_values": images})[0].backward()
    parts = (model.encode_head, model.encoder.layers[0], model.pixel_decoder, model.quantizer)
    without = [name for part in parts for name, p in part.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_codes_decode_to_the_partial_sums(kind):
    model, _ = trained(kind)
    quantizer = model.eval().quantizer
    latent = random_latent()
    with torch.no_grad():
        out = quantizer(latent, partial_sums=True)
    levels = model.config.levels
    assert out.codes.shape == (3, 4, 5, levels)
    assert torch.equal(out.codes, quantizer.encode(latent))
    for count in range(1, levels + 1):
        torch.testing.assert_close(
            quantizer.decode(out.codes[..., :count]), out.partial_sums[count - 1].permute(0, 3, 1, 2)
        )
    torch.testing.assert_close(out.pixel_latent, quantizer.decode(out.codes[..., : model.config.pixel_levels]))
    torch.testing.assert_close(out.semantic_latent, quantizer.decode(out.codes[..., : model.config.semantic_levels]))
    formula = torch.stack([(latent - q.permute(0, 3, 1, 2)).square().mean() for q in out.partial_sums]).mean()
    torch.testing.assert_close(out.commitment_loss, formula)
    assert out.commitment_count == latent.numel() * levels


def test_more_levels_come_nearer_in_the_quantisers_own_space():
    """For FSQ the grid gets finer by its factor at each level, so the error shrinks; the bound is closed-form."""
    quantizer = make("residual_fsq").quantizer
    inner = torch.randn(500, 3)
    codes, tables, bounded = quantizer.codes_of(inner), quantizer.tables(), quantizer.bounded(inner)
    total = torch.zeros_like(bounded)
    for level in range(4):
        total = total + tables[level][codes[:, level]]
        half_step = 4.0**-level / 3  # a grid of 4 points over [-1, 1], scaled by 4 ** -level
        assert float((bounded - total).abs().max()) <= half_step * 1.01 + 1e-6


def test_save_and_load_gives_the_same_codes_and_images(kind, tmp_path):
    model, _ = trained(kind)
    model.eval()
    save_model(model, tmp_path / "model")
    with redirect_stderr(io.StringIO()):
        loaded = EvoTokModel.from_pretrained(tmp_path / "model").eval()
        half = EvoTokModel.from_pretrained(tmp_path / "model", dtype=torch.bfloat16).eval()
    assert loaded.config.quantizer == kind
    images = batch(model, seed=5)
    with torch.no_grad():
        for ours, theirs in zip(model.encode(images), loaded.encode(images), strict=True):
            assert torch.equal(ours, theirs)
        codes = model.encode(images)[0][..., : model.config.pixel_levels]
        assert torch.equal(model.decode_pixels(codes), loaded.decode_pixels(codes))
        latent = random_latent()
        assert torch.equal(half.quantizer.encode(latent), model.quantizer.encode(latent))
        assert torch.equal(half.quantizer.decode(codes), model.quantizer.decode(codes))


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.double()])
def test_codes_do_not_depend_on_the_models_dtype_or_autocast(kind, convert):
    model, _ = trained(kind)
    latent = random_latent()
    before = model.quantizer.encode(latent)
    decoded = model.quantizer.decode(before)
    convert(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.quantizer.encode(latent), before)
        assert torch.equal(model.quantizer.decode(before), decoded)


def test_a_meta_build_has_the_same_state(kind):
    with torch.device("meta"):
        shell = make(kind)
    real = make(kind)
    assert {k: tuple(v.shape) for k, v in shell.state_dict().items()} == {
        k: tuple(v.shape) for k, v in real.state_dict().items()
    }
    assert all(value.is_meta for value in shell.state_dict().values())
    assert shell.flops() == real.flops() > 0


def test_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    for kind in ("residual_fsq", "lfq"):
        model = make(kind).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(batch(model, 1))
        assert model.flops() == counter.get_total_flops(), kind


def test_encode_and_eval_teach_nothing(kind):
    model, _ = trained(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.quantizer.encode(random_latent())  # in training mode
    with torch.no_grad():
        model.eval()(batch(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_usage_is_measured_of_any_codes(kind):
    model, _ = trained(kind)
    share, perplexity = usage(model.quantizer.encode(random_latent(count=20)).flatten(0, 2), 64)
    assert share.shape == (model.config.levels,)
    assert bool(((share > 0) & (share <= 1)).all())
    assert bool(((perplexity >= 1) & (perplexity <= 64)).all())


@pytest.mark.parametrize("kind", LIBRARY)
def test_official_export_refuses_by_name(kind):
    model = make(kind)
    with pytest.raises(InputError, match=f"quantizer '{kind}' has no official layout"):
        official.to_official(model.state_dict(), model.config, None)


# --- the library is what it says ---


def test_residual_vq_assigns_what_the_library_assigns():
    model, _ = trained("residual_vq")
    quantizer = model.eval().quantizer
    rows = torch.randn(300, 8)
    with torch.no_grad():
        quantized, codes, _ = quantizer.library(rows[None])
    assert torch.equal(quantizer.codes_of(rows), codes[0])
    sums = quantizer.decode(codes[0].view(1, 300, 1, -1))[0, :, :, 0].t()
    torch.testing.assert_close(sums, quantized[0])


def test_residual_vq_moves_its_tables_once_an_update():
    quantizer = make("residual_vq").train().quantizer
    quantizer(random_latent())
    before = quantizer.tables().clone()
    quantizer.gathering = True
    quantizer(random_latent(1))
    assert torch.equal(quantizer.tables(), before)
    quantizer.gathering = False
    out = quantizer(random_latent(2), partial_sums=True)
    assert not torch.equal(quantizer.tables(), before)
    first = out.partial_sums[0].reshape(-1, 8)  # the vectors are those of the tables before the step
    assert torch.equal(first, before[0][out.codes[..., 0].flatten()])


def test_residual_vq_restarts_dead_codes_only_where_asked():
    for restart, most in ((True, 64), (False, 2)):
        quantizer = make("residual_vq", restart_unused_codes=restart, kmeans_init=False).train().quantizer
        with torch.no_grad():
            book = quantizer.library.layers[0]._codebook
            book.embed[:, 2:] += 1000  # 62 of 64 codes are out of reach
            book.embed_avg[:, 2:] += 1000
        for seed in range(40):
            quantizer(random_latent(seed, count=12))
        used = len(quantizer.encode(random_latent(99, count=12))[..., 0].unique())
        assert (used > 20) if restart else (used <= most)


def test_residual_fsq_decodes_as_the_library_does():
    quantizer = make("residual_fsq").quantizer
    library = quantizer.library
    codes = torch.randint(0, 64, (2, 7, 4))
    expected = library.get_codes_from_indices(codes).sum(0)
    inner = sum(quantizer.tables()[level][codes[..., level]] for level in range(4))
    torch.testing.assert_close(inner, expected)


def test_lfq_codes_are_the_librarys_and_its_entropy_loss_is_in_the_commitment():
    quantizer = make("lfq").train().quantizer
    latent = random_latent()
    out = quantizer(latent)
    inner = quantizer.project_in(latent.permute(0, 2, 3, 1).reshape(-1, 8))
    library = LFQ(codebook_size=64, entropy_loss_weight=0.1).train()
    _, codes, entropy_loss = library(inner[None])
    assert torch.equal(out.codes.flatten(), codes.flatten().long())
    plain = (latent - quantizer.decode(out.codes)).square().mean()
    torch.testing.assert_close(out.commitment_loss, plain + entropy_loss)
    assert entropy_loss.item() != 0


# --- frozen codebooks ---


def test_frozen_codebooks_do_not_move_and_the_rest_does(kind):
    model, errors = trained(kind, 0, freeze_codebooks=True, kmeans_init=False)
    latent = random_latent()
    codes = torch.randint(0, 64, (2, 3, 3, model.config.levels))
    state = {n: v.clone() for n, v in model.quantizer.state_dict().items() if not n.startswith("project_in")}
    meaning = model.quantizer.decode(codes)
    head = model.encode_head[0].weight.clone()
    images = batch(model)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.5)
    for _ in range(3):
        objective(model(images), {"pixel_values": images})[0].backward()
        optimizer.step()
    assert errors == []
    after = model.quantizer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert torch.equal(model.quantizer.decode(codes), meaning)
    assert not torch.equal(model.encode_head[0].weight, head)
    assert model.quantizer.encode(latent).shape[-1] == model.config.levels


def test_codebooks_that_are_not_frozen_move():
    for kind in ("evotok", "residual_vq"):
        model = make(kind).train()
        before = {name: value.clone() for name, value in model.quantizer.state_dict().items()}
        model(batch(model))
        assert any(not torch.equal(value, before[name]) for name, value in model.quantizer.state_dict().items())


# --- level dropout ---


def test_dropped_images_are_read_out_at_every_depth_evenly():
    random = torch.Generator().manual_seed(0)
    depths = read_out_depths(40_000, 4, 0.5, random, torch.device("cpu"))
    shares = torch.bincount(depths, minlength=5).double() / len(depths)
    expected = torch.tensor([0, 1 / 8, 1 / 8, 1 / 8, 5 / 8], dtype=torch.float64)
    assert float((shares - expected).abs().max()) < 5 * math.sqrt(0.25 / 40_000)
    assert bool((read_out_depths(50, 4, 0.0, None, torch.device("cpu")) == 4).all())
    assert bool((read_out_depths(50, 1, 1.0, None, torch.device("cpu")) == 1).all())


@pytest.mark.parametrize("kind", ["evotok", "residual_vq", "residual_fsq"])
def test_level_dropout_gives_each_image_one_prefix_of_its_codes(kind):
    quantizer = make(kind, level_dropout=1.0, freeze_codebooks=True, kmeans_init=False).train().quantizer
    out = quantizer(random_latent(count=40), generator=torch.Generator().manual_seed(1))
    for read_out, levels in ((out.pixel_latent, 2), (out.semantic_latent, 4)):
        prefixes = torch.stack([quantizer.decode(out.codes[..., :n]) for n in range(1, levels + 1)])
        errors = (read_out - prefixes).abs().flatten(2).amax(2)  # (levels, images)
        assert float(errors.min(0).values.max()) < 1e-5
        assert set(errors.argmin(0).tolist()) == set(range(levels))


@pytest.mark.parametrize("kind", ["evotok", "residual_vq", "residual_fsq"])
def test_level_dropout_is_off_in_evaluation_and_changes_neither_codes_nor_commitment(kind):
    dropped = make(kind, level_dropout=1.0, freeze_codebooks=True, kmeans_init=False)
    whole = make(kind, freeze_codebooks=True, kmeans_init=False)
    latent = random_latent()
    for mode in (True, False):
        ours, theirs = dropped.train(mode).quantizer(latent), whole.train(mode).quantizer(latent)
        assert torch.equal(ours.codes, theirs.codes)
        assert torch.equal(ours.commitment_loss, theirs.commitment_loss)
        assert torch.equal(ours.semantic_latent, theirs.semantic_latent) is not mode


# --- settings ---


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"quantizer": "residual_vg"}, "Did you mean 'residual_vq'"),
        ({"quantizer": "residual_fsq"}, r"codebook_size is 64, the product of fsq_levels \[\] is 1"),
        ({"quantizer": "residual_fsq", "fsq_levels": [4, 4]}, "is 16. Make them equal"),
        ({"quantizer": "residual_fsq", "fsq_levels": [64, 1]}, "a list of whole numbers from 2 up"),
        ({"quantizer": "lfq"}, "'lfq' has one level; pixel_levels is 2, semantic_levels 4. Set both to 1"),
        ({"quantizer": "lfq", **ONE_LEVEL, "codebook_size": 48}, "a power of two"),
        ({"quantizer": "lfq", **ONE_LEVEL, "kmeans_init": True}, "has no tables to start"),
        ({"quantizer": "residual_vq", "quantizer_mode": "faithful"}, "belongs to quantizer 'evotok'"),
        ({"level_dropout": 1.5}, "Give a share, 0 to 1"),
        ({"level_dropout": -0.5}, "a number from 0 up"),
        ({"freeze_codebooks": 1}, "true or false"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        checked_config({**TINY, **values}, "model.overrides")
