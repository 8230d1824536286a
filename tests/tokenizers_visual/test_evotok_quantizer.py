"""The residual quantiser's own promises: precision, state, prefixes, learning that has closed-form truths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmzoo.errors import InputError
from mmzoo.ops.residual_vq import usage
from tokenizers_visual.evotok.quantizer import QuantizerSettings, ResidualQuantizer


def make(pixel=2, semantic=4, size=16, dim=8, seed=0, **values) -> ResidualQuantizer:
    torch.manual_seed(seed)
    return ResidualQuantizer(QuantizerSettings(size, dim, pixel, semantic, **values))


def random_latent(seed=0, batch=3, dim=8, height=4, width=5) -> torch.Tensor:
    return torch.randn(batch, dim, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("pixel", "semantic"), [(2, 4), (4, 4), (16, 4), (1, 1)])
def test_read_outs_are_the_sums_of_their_levels(pixel, semantic):
    quantizer = make(pixel, semantic).eval()
    latent = random_latent()
    out = quantizer(latent, partial_sums=True)
    levels = max(pixel, semantic)
    assert out.codes.shape == (3, 4, 5, levels)
    assert out.partial_sums.shape == (levels, 3, 4, 5, 8)
    torch.testing.assert_close(out.pixel_latent, quantizer.decode(out.codes[..., :pixel]))
    torch.testing.assert_close(out.semantic_latent, quantizer.decode(out.codes[..., :semantic]))
    for level in range(levels):
        expected = out.partial_sums[level].permute(0, 3, 1, 2)
        torch.testing.assert_close(quantizer.decode(out.codes[..., : level + 1]), expected)


def test_partial_sums_only_on_request():
    assert make().eval()(random_latent()).partial_sums is None


def test_commitment_value_and_gradient_follow_its_formula():
    quantizer = make().eval()
    latent = random_latent().requires_grad_()
    out = quantizer(latent, partial_sums=True)
    formula = torch.stack([(latent - q.permute(0, 3, 1, 2)).square().mean() for q in out.partial_sums]).mean()
    torch.testing.assert_close(out.commitment_loss, formula)
    expected = torch.autograd.grad(formula, latent)[0]
    torch.testing.assert_close(torch.autograd.grad(out.commitment_loss, latent)[0], expected)


def test_commitment_sums_and_counts_add_up_over_uneven_parts():
    quantizer = make().eval()
    latent = random_latent(batch=5)
    whole, parts = quantizer(latent), [quantizer(part) for part in latent.split([1, 4, 0])]
    total = sum(part.commitment_sum for part in parts) / sum(part.commitment_count for part in parts)
    torch.testing.assert_close(total, whole.commitment_loss)


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.double()])
def test_state_stays_float32_and_unchanged(convert):
    quantizer = make(vq_warmup=3)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    model = torch.nn.ModuleDict({"quantizer": quantizer, "head": torch.nn.Linear(2, 2)})
    convert(model)
    assert model["head"].weight.dtype != torch.float32
    for key, value in quantizer.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


def test_codes_ignore_autocast_and_the_models_dtype():
    quantizer = make(16, 16).eval()
    latent = random_latent().bfloat16()
    expected = quantizer.encode(latent.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.encode(latent), expected)
        assert torch.equal(quantizer(latent).codes, expected)
    out = quantizer.to(torch.bfloat16)(latent)
    assert torch.equal(out.codes, expected)
    assert out.pixel_latent.dtype == torch.bfloat16
    assert out.commitment_loss.dtype == torch.float32


@pytest.mark.parametrize("warmup", [0, 2])
def test_state_names_and_meta_build(warmup):
    with torch.device("meta"):
        quantizer = make(1, 2, vq_warmup=warmup)
    names = ["table", "counts", "sums"] + (["step"] if warmup else [])
    shapes = {"table": (17, 8), "counts": (16,), "sums": (16, 8), "step": ()}
    expected = {f"levels.{level}.{name}": shapes[name] for level in range(2) for name in names}
    assert {key: tuple(value.shape) for key, value in quantizer.state_dict().items()} == expected
    assert all(value.is_meta for value in quantizer.state_dict().values())
    assert [name for name, _ in quantizer.named_parameters()] == ["levels.0.table", "levels.1.table"]
    assert not any(parameter.requires_grad for parameter in quantizer.parameters())
    assert quantizer.eval()(random_latent().to("meta")).codes.shape == (3, 4, 5, 2)
    real = make(1, 2, vq_warmup=warmup)
    quantizer.to_empty(device="cpu").load_state_dict(real.state_dict())
    assert torch.equal(quantizer.encode(random_latent()), real.encode(random_latent()))


def test_table_survives_default_dtype():
    torch.set_default_dtype(torch.bfloat16)
    try:
        quantizer = make(vq_warmup=1)
    finally:
        torch.set_default_dtype(torch.float32)
    floating = {value.dtype for key, value in quantizer.state_dict().items() if not key.endswith("step")}
    assert floating == {torch.float32}


def test_eval_and_encode_write_nothing():
    quantizer = make(vq_warmup=1)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.encode(random_latent())
    quantizer.eval()(random_latent())
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    quantizer.train()(random_latent())
    assert not torch.equal(quantizer.levels[0].table, before["levels.0.table"])


@pytest.mark.parametrize("mode", ["faithful", "corrected"])
def test_the_padding_row_stays_zero_and_unused(mode):
    quantizer = make(mode=mode, vq_warmup=1)
    for step in range(3):
        out = quantizer(0.01 * random_latent(step))  # the zero row would be the nearest of all
        assert int(out.codes.max()) < 16
    assert all(not level.table[-1].any() for level in quantizer.codebooks)


def test_an_empty_batch_teaches_nothing():
    quantizer = make()
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    out = quantizer(random_latent(batch=0))
    assert out.codes.shape == (0, 4, 5, 4)
    assert float(out.commitment_loss) == 0
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codebook_size": 0}, "codebook_size is 0"),
        ({"mode": "faithfull"}, "Did you mean 'faithful'"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"vq_warmup": -1}, "vq_warmup"),
        ({"restart_threshold": 1.0}, "restart_threshold"),
        ({"mode": "faithful", "kmeans_init": True}, "kmeans_init"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(InputError, match=message):
        QuantizerSettings(**{"codebook_size": 4, "latent_dim": 2, "pixel_levels": 1, "semantic_levels": 2, **values})


def test_wrong_inputs_are_named():
    quantizer = make().eval()
    with pytest.raises(InputError, match=r"expected \(B, 8, H, W\)"):
        quantizer(torch.zeros(1, 7, 2, 2))
    for codes, message in (
        (torch.zeros(1, 2, 2, 5, dtype=torch.int64), "1 to 4"),
        (torch.zeros(1, 2, 2, 0, dtype=torch.int64), "1 to 4"),
        (torch.full((1, 2, 2, 1), 16), "codes 0..15"),
        (torch.full((1, 2, 2, 1), -1), "codes 0..15"),
        (torch.zeros(1, 2, 2, 1), "torch.int64"),
    ):
        with pytest.raises(InputError, match=message):
            quantizer.decode(codes)


def clusters(seed: int, centres: torch.Tensor, per_cluster: int, spread: float) -> torch.Tensor:
    """A batch (1, D, 1, n) around `centres` (K, D); its cluster means are returned by `.mean` over equal parts."""
    random = torch.Generator().manual_seed(seed)
    points = centres[:, None] + spread * torch.randn(len(centres), per_cluster, centres.shape[1], generator=random)
    return points.reshape(-1, centres.shape[1]).t()[None, :, None]


def far_centres(count=8, dim=4) -> torch.Tensor:
    return 10 * torch.randn(count, dim, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("warmup", [0, 5])
def test_stationary_data_gives_exactly_the_cluster_means(warmup):
    centres = far_centres()
    quantizer = make(1, 1, size=8, dim=4, vq_warmup=warmup, restart_unused_codes=False)
    quantizer.levels[0].start_from(centres + 0.5)
    batch = clusters(1, centres, 50, 0.1)
    for _ in range(20):
        quantizer(batch)
    means = batch[0, :, 0].t().reshape(8, 50, 4).mean(1)
    torch.testing.assert_close(quantizer.levels[0].vectors, means, atol=1e-4, rtol=0)


def test_moving_means_weigh_batches_by_age():
    """One code, batches of different sizes: C = sum g^age s / sum g^age n, the bias-free moving mean."""
    quantizer = make(1, 1, size=1, dim=2, restart_unused_codes=False, ema_decay=0.9)
    batches = [random_latent(seed, 1, 2, 1, seed + 1) for seed in range(6)]
    for batch in batches:
        quantizer(batch)
    ages = [0.9 ** (5 - step) for step in range(6)]
    total = sum(age * batch.sum((0, 2, 3)) for age, batch in zip(ages, batches, strict=True))
    weight = sum(age * batch[0, 0].numel() for age, batch in zip(ages, batches, strict=True))
    torch.testing.assert_close(quantizer.levels[0].vectors[0], total / weight)
    torch.testing.assert_close(quantizer.levels[0].counts, torch.tensor([0.1 * weight]))
    torch.testing.assert_close(quantizer.levels[0].sums[0], 0.1 * total)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), silent=st.integers(0, 300))
def test_a_code_used_once_becomes_its_vector_and_keeps_its_norm(seed, silent):
    quantizer = make(1, 1, size=2, dim=3, seed=seed, restart_unused_codes=False)
    lonely, crowd = torch.full((3,), 50.0), torch.full((3,), -50.0)
    quantizer.levels[0].start_from(torch.stack([lonely - 9, crowd]))
    quantizer(torch.stack([lonely] + [crowd] * 20)[None, :, None].permute(0, 3, 1, 2))
    for _ in range(silent):
        quantizer(crowd[None, :, None, None])
    torch.testing.assert_close(quantizer.levels[0].vectors[0], lonely, atol=1e-3, rtol=0)


def norms(quantizer: ResidualQuantizer) -> float:
    return float(quantizer.levels[0].vectors.norm(dim=1).mean())


@pytest.mark.parametrize(("mode", "shrinks"), [("corrected", False), ("faithful", True)])
def test_warm_up_shrinks_the_authors_codes_and_not_ours(mode, shrinks):
    """Spec 7.2 row 2: counts that grow under frozen sums pull used codes to zero."""
    centres = far_centres()
    quantizer = make(1, 1, size=8, dim=4, mode=mode, vq_warmup=60, restart_unused_codes=False)
    quantizer.levels[0].start_from(centres)
    before = norms(quantizer)
    for step in range(60):
        quantizer(clusters(step, centres, 40, 0.1))
    assert (norms(quantizer) < 0.5 * before) is shrinks
    assert (abs(norms(quantizer) - before) < 0.01 * before) is not shrinks


@pytest.mark.parametrize(("mode", "learns"), [("corrected", True), ("faithful", False)])
def test_without_warm_up_the_codebook_learns(mode, learns):
    """Spec 7.2 row 1: with the default warm-up of 0 the authors' sums never move."""
    centres = far_centres() + 3
    quantizer = make(1, 1, size=8, dim=4, mode=mode, restart_unused_codes=False)
    quantizer.levels[0].start_from(centres + 0.5)
    start = quantizer.levels[0].sums.clone()
    errors = [float(quantizer(clusters(step, centres, 40, 0.1)).commitment_loss) for step in range(40)]
    assert (errors[-1] < 0.1 * errors[0]) is learns
    assert torch.equal(quantizer.levels[0].sums, start) is not learns


def test_dead_codes_restart_on_vectors_of_the_batch():
    quantizer = make(1, 1, size=16, dim=4)
    quantizer.levels[0].start_from(torch.full((16, 4), 1000.0) + torch.arange(16)[:, None])  # all far, one hit
    batch = random_latent(3, 2, 4, 4, 4)
    quantizer(batch)
    rows = batch.permute(0, 2, 3, 1).reshape(-1, 4)
    distance_to_batch = (quantizer.levels[0].vectors[1:, None] - rows).norm(dim=-1).min(1).values
    assert float(distance_to_batch.max()) == pytest.approx(0, abs=1e-3)
    share, _ = usage(quantizer.encode(batch), 16)
    assert float(share) > 0.9


def test_few_vectors_restart_as_noisy_copies():
    quantizer = make(1, 1, size=16, dim=4)
    quantizer(random_latent(3, 1, 4, 1, 3))
    assert len(quantizer.levels[0].vectors.unique(dim=0)) == 16


def test_restarts_follow_the_generator():
    latent = random_latent()

    def tables(seed):
        quantizer = make()
        quantizer(latent, generator=torch.Generator().manual_seed(seed))
        return torch.stack([level.table for level in quantizer.codebooks])

    assert torch.equal(tables(1), tables(1))
    assert not torch.equal(tables(1), tables(2))


def test_kmeans_start_codes_the_first_batch_already_well():
    latent = random_latent(1, 16, 4, 8, 8)
    cold, warm = (make(1, 4, size=32, dim=4, kmeans_init=k, restart_unused_codes=False) for k in (False, True))
    scaled = 30 * latent
    assert float(warm(scaled).commitment_loss) < 0.3 * float(cold(scaled).commitment_loss)
    share, _ = usage(warm.encode(scaled), 32)
    assert float(share.min()) > 0.8
    tables = [level.table.clone() for level in warm.codebooks]
    warm(scaled)
    moved = [float((level.table - old).abs().max()) for level, old in zip(warm.codebooks, tables, strict=True)]
    assert max(moved) < 3  # a second start would throw the codes about at the scale of 30


def test_codes_follow_drifting_data():
    quantizer = make(1, 2, size=32, dim=4, ema_decay=0.95)
    for step in range(150):
        quantizer(random_latent(step, 4, 4, 4, 4) + 0.02 * step)
    share, perplexity = usage(quantizer.encode(random_latent(999, 64, 4, 4, 4) + 3), 32)
    assert float(share.min()) > 0.9
    assert float(perplexity.min()) > 16


@pytest.mark.parametrize("mode", ["corrected", "faithful"])
def test_several_micro_batches_teach_what_the_big_batch_does(mode):
    """Codes come from the tables before the update, which is made once; k-means starts from the first micro-batch."""
    batches = torch.randn(2, 6, 4, 2, 3, generator=torch.Generator().manual_seed(7))
    settings = QuantizerSettings(8, 4, 1, 3, mode=mode, vq_warmup=int(mode == "faithful"), restart_unused_codes=False)
    quantizers = []
    for parts in ([6], [3, 0, 2, 1]):
        torch.manual_seed(0)
        quantizers.append(ResidualQuantizer(settings).train())
        for batch in batches:
            shares = batch.split(parts)
            before = quantizers[-1].codebooks[0].table.clone()
            for number, share in enumerate(shares):
                assert torch.equal(quantizers[-1].codebooks[0].table, before)
                quantizers[-1].gathering = number + 1 < len(shares)
                quantizers[-1](share)
    whole, parts = (quantizer.state_dict() for quantizer in quantizers)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-6, msg=name)
    assert all(level.gathered is None for level in quantizers[1].codebooks)


def test_the_kmeans_start_is_made_once_an_update():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(QuantizerSettings(4, 4, 1, 1, kmeans_init=True, restart_unused_codes=False)).train()
    quantizer.gathering = True
    quantizer(torch.randn(3, 4, 2, 3))
    started = quantizer.codebooks[0].table.clone()
    quantizer(torch.randn(3, 4, 2, 3) + 5)
    assert torch.equal(quantizer.codebooks[0].table, started)
