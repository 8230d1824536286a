"""The residual quantiser against the recorded official runs (parity/evotok/quantizer_train and tokenizer_tiny)."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tokenizers_visual.evotok.quantizer import QuantizerSettings, ResidualQuantizer

RUNS = {"run_a_warmup1": 1, "run_b_warmup2": 2, "run_c_warmup1_midstate": 1, "run_d_warmup0": 0, "restart_one_step": 1}
MONITOR_LENGTH = 131072


class RecordedRestarts(ResidualQuantizer):
    """Restarts in a recorded order instead of a random one."""

    orders: list[torch.Tensor]

    def restart_order(self, vectors, generator):
        order = self.orders.pop(0)
        assert order.shape == (vectors,)
        return order


class OfficialMonitor:
    """The authors' usage figure: distinct entries in a rolling window that starts full of zeros, over K."""

    def __init__(self, levels: int, size: int) -> None:
        self.window, self.size = torch.zeros(MONITOR_LENGTH, levels, dtype=torch.int64), size

    def add(self, codes: torch.Tensor) -> list[float]:
        self.window = torch.cat([self.window, codes.reshape(-1, codes.shape[-1])])[-MONITOR_LENGTH:]
        return [len(column.unique()) / self.size for column in self.window.unbind(1)]


def official_spread(x: torch.Tensor, tables: torch.Tensor, codes: torch.Tensor, level: int) -> float:
    """The authors' logging statistic: mean over positions of the sum over codes of (squared distance)^2 at `level`."""
    residual = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    flat = codes.reshape(-1, codes.shape[-1])
    for before in range(level - 1):
        residual = residual - tables[before][flat[:, before]]
    distances = (residual[:, None] - tables[level - 1][None, :-1]).square().sum(-1)
    return float(distances.square().sum(1).mean())


def run_settings(name: str) -> QuantizerSettings:
    return QuantizerSettings(
        codebook_size=16,
        latent_dim=8,
        pixel_levels=2,
        semantic_levels=4,
        mode="faithful",
        vq_warmup=RUNS[name],
        restart_unused_codes=name == "restart_one_step",
    )


def official_state(recorded: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    names = {"weight": "table", "cluster_size_ema": "counts", "embed_ema": "sums", "step": "step"}
    return {
        f"levels.{level}.{ours}": recorded[official][index, level]
        for official, ours in names.items()
        if official in recorded
        for level in range(4)
    }


@pytest.fixture(scope="module")
def inputs(shared):
    return load_file(shared / "parity/evotok/quantizer_train/inputs.safetensors")


@pytest.mark.parametrize("name", RUNS)
def test_training_run(shared, inputs, name):
    recorded = load_file(shared / f"parity/evotok/quantizer_train/{name}.safetensors")
    quantizer = RecordedRestarts(run_settings(name))
    quantizer.load_state_dict(official_state(recorded, 0), strict=True)
    quantizer.orders = list(recorded.get("permutation", []))
    monitor = OfficialMonitor(4, 16)
    for step in range(len(recorded["codes"])):
        x = inputs["x"][step].clone().requires_grad_()
        old_tables = torch.stack([level.table.detach().clone() for level in quantizer.codebooks])
        out = quantizer(x)

        assert torch.equal(out.codes, recorded["codes"][step])
        torch.testing.assert_close(out.commitment_loss, recorded["commitment_loss"][step], atol=5e-6, rtol=0)
        torch.testing.assert_close(out.pixel_latent, recorded["f_pix"][step], atol=5e-6, rtol=0)
        torch.testing.assert_close(out.semantic_latent, recorded["f_sem"][step], atol=5e-6, rtol=0)
        check_gradients(x, out, inputs, recorded, step)
        for key, expected in official_state(recorded, step + 1).items():
            got = quantizer.state_dict()[key]
            if key.endswith("step"):
                assert torch.equal(got, expected)
            else:
                torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)

        assert monitor.add(out.codes) == recorded["usage"][step].tolist()
        for key, level in (("d_pix", 2), ("d_sem", 4)):
            assert official_spread(x.detach(), old_tables, out.codes, level) == pytest.approx(
                float(recorded[key][step]), rel=1e-5
            )
    assert not quantizer.orders


def check_gradients(x, out, inputs, recorded, step):
    linear = (inputs["w_pix"] * out.pixel_latent).sum() + (inputs["w_sem"] * out.semantic_latent).sum()
    (grad,) = torch.autograd.grad(linear, x, retain_graph=True)
    assert torch.equal(grad, inputs["w_pix"] + inputs["w_sem"])
    assert torch.equal(grad, recorded["grad_linear"][step])
    (grad,) = torch.autograd.grad(linear + 100 * out.commitment_loss, x)
    expected = recorded["grad_linear_plus_100_commit"][step]
    torch.testing.assert_close(grad, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_torch_draws_the_recorded_restart_order(shared):
    """The restart seam as shipped draws what the authors drew: one permutation a level."""
    recorded = load_file(shared / "parity/evotok/quantizer_train/restart_one_step.safetensors")["permutation"]
    quantizer = ResidualQuantizer(run_settings("restart_one_step"))
    generator = torch.Generator().manual_seed(77)
    for order in recorded:
        assert torch.equal(quantizer.restart_order(256, generator), order)


@pytest.fixture(scope="module")
def tokenizer_quantizer(shared):
    folder = shared / "parity/evotok/tokenizer_tiny"
    values = json.loads((folder / "config.json").read_text())
    quantizer = ResidualQuantizer(
        QuantizerSettings(
            codebook_size=values["codebook_size"],
            latent_dim=values["latent_dim"],
            pixel_levels=values["pixel_depth"],
            semantic_levels=values["semantic_depth"],
            mode="faithful",
            vq_warmup=values["vq_warmup"],
        )
    )
    official = load_file(folder / "state_dict.safetensors")
    names = {"table": "weight", "counts": "cluster_size_ema", "sums": "embed_ema", "step": "step"}
    state = {
        f"levels.{d}.{ours}": official[f"quantize.codebooks.{d}.{theirs}"]
        for d in range(values["semantic_depth"])
        for ours, theirs in names.items()
    }
    quantizer.load_state_dict(state, strict=True)
    return quantizer.eval()


@pytest.mark.parametrize("name", ["outputs", "outputs_out_of_range", "outputs_34px_variant"])
def test_tokenizer_quantisation(shared, tokenizer_quantizer, name):
    recorded = load_file(shared / f"parity/evotok/tokenizer_tiny/{name}.safetensors")
    state = {key: value.clone() for key, value in tokenizer_quantizer.state_dict().items()}
    out = tokenizer_quantizer(recorded["z"], partial_sums=True)
    assert torch.equal(out.codes, recorded["codes"])
    assert torch.equal(tokenizer_quantizer.encode(recorded["z"]), recorded["codes"])
    for got, key in (
        (out.partial_sums, "partial_sums"),
        (out.pixel_latent, "f_pix"),
        (out.semantic_latent, "f_sem"),
        (out.commitment_loss, "commitment_loss"),
        (tokenizer_quantizer.decode(out.codes[..., :2]), "sum_from_codes_pixel"),
        (tokenizer_quantizer.decode(out.codes), "sum_from_codes_semantic"),
    ):
        torch.testing.assert_close(got, recorded[key], atol=5e-6, rtol=0)
    tables = torch.stack([level.table.detach() for level in tokenizer_quantizer.codebooks])
    for key, level in (("d_pix", 2), ("d_sem", 4)):
        spread = official_spread(recorded["z"], tables, out.codes, level)
        assert spread == pytest.approx(float(recorded[key]), rel=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in tokenizer_quantizer.state_dict().items())
