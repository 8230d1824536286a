"""EvoTok's adversarial training: the update by the book, what happens before it begins, and what a checkpoint holds."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate, mse_loss, relu
from update_cases import Stream, trained, windows

from mmzoo.cli import main
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.adversarial import AdversarialSettings
from tokenizers_visual.evotok.contract import training_config
from tokenizers_visual.evotok.discriminator import DiscriminatorSettings, statistics_kept
from tokenizers_visual.evotok.training import EvoTokTraining

UPDATES, START, CLIP = 4, 3, 1.0
# A large eps: Adam makes steps of any gradient, and some are zero but for rounding, as of the key's bias in attention.
OPTIMIZER = OptimizerSettings(lr=1e-3, eps=1e-3)
OWN = OptimizerSettings("adam", lr=2e-3, betas=(0.5, 0.9), eps=1e-3, warmup_steps=2)


def evotok(norm="batch", **settings):
    torch.manual_seed(4)
    overrides = {"ema_decay": 0.9, "restart_unused_codes": False}
    settings = {"start": START, "optimizer": OWN, **settings}
    adversarial = AdversarialSettings(discriminator=DiscriminatorSettings(8, 2, norm), **settings)
    return EvoTokTraining("evotok/tiny", overrides, optimizer=OPTIMIZER, adversarial=adversarial)


def images(updates=UPDATES):
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand(updates, 6, 3, 4, 4, generator=random) * 2 - 1
    return [{"image": interpolate(batch, size=(32, 32), mode="bilinear")} for batch in coarse]


def by_hand(batches, ratio=None):
    """The training written out in plain torch. `ratio`: the adaptive weight of an update, from its two losses."""
    module = evotok()
    model, critic = module.model.train(), module.adversary.discriminator.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    ours = torch.optim.AdamW(weights, 1e-3, (0.9, 0.95), 1e-3, 0.0)
    theirs = torch.optim.Adam(critic.parameters(), 2e-3, (0.5, 0.9), 1e-3)
    for number, batch in enumerate((batch["image"] for batch in batches), 1):
        output = model(batch)
        fake = output.reconstruction
        pixels = mse_loss(fake, batch)
        loss = pixels + output.commitment_loss
        if number >= START:
            with statistics_kept(critic):
                wanted = -critic(fake).mean()
            loss = loss + 0.5 * wanted * (ratio(pixels, wanted, model) if ratio else 1)
        ours.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        ours.step()
        if number >= START:
            for group in theirs.param_groups:
                group["lr"] = 2e-3 * min(1, (number - START + 1) / 2)  # its own warm-up, from its own first update
            loss = 0.5 * (relu(1 - critic(batch)).mean() + relu(1 + critic(fake.detach())).mean()) / 2
            theirs.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(critic.parameters(), CLIP)
            theirs.step()
    module.adversary.updates += UPDATES - START + 1
    return module.state_dict()


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_the_game_is_the_one_written_out_by_hand():
    module, trainer = trained(evotok(), images(), gradient_clip_val=CLIP)
    check_equal(module.state_dict(), by_hand(images()))
    logged = trainer.callback_metrics
    assert {"train/adversarial", "train/discriminator_real", "train/discriminator_fake"} <= logged.keys()
    assert float(logged["train/grad_norm_discriminator"]) > 0
    assert trainer.global_step == UPDATES


def test_the_adaptive_weight_makes_both_gradients_as_long_at_the_last_layer():
    ratios = []

    def ratio(pixels, wanted, model):
        weight = model.pixel_decoder.conv_out.weight
        pulls = [torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (pixels, wanted)]
        ratios.append((pulls[0] / (pulls[1] + 1e-4)).detach())
        return ratios[-1]

    module, trainer = trained(evotok(adaptive=True), images(), gradient_clip_val=CLIP)
    check_equal(module.state_dict(), by_hand(images(), ratio))
    assert float(trainer.callback_metrics["train/adaptive_weight"]) == pytest.approx(float(ratios[-1]), rel=1e-3)
    assert 0 < float(ratios[-1]) != 1


@pytest.mark.parametrize("parts", [[6], [3, 1, 2]])
def test_accumulation_makes_the_update_of_the_big_batch(parts):
    whole, _ = trained(evotok("group"), images(), gradient_clip_val=CLIP)
    cut, trainer = trained(evotok("group"), windows(images(), parts), gradient_clip_val=CLIP)
    check_equal(cut.state_dict(), whole.state_dict())
    assert [float(next(iter(o.state.values()))["step"]) for o in trainer.optimizers] == [4, 2]
    assert int(cut.adversary.updates) == 2


def test_before_it_begins_the_discriminator_is_not_evaluated():
    module, calls = evotok(start=UPDATES + 1), []
    module.adversary.discriminator.register_forward_hook(lambda *call: calls.append(1))
    module, trainer = trained(module, images(), gradient_clip_val=CLIP)
    assert calls == []
    before = evotok().adversary.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in module.adversary.state_dict().items())
    assert trainer.optimizers[1].state == {}
    plain = EvoTokTraining("evotok/tiny", {"ema_decay": 0.9, "restart_unused_codes": False}, optimizer=OPTIMIZER)
    plain.model.load_state_dict(evotok().model.state_dict())
    plain, _ = trained(plain, images(), gradient_clip_val=CLIP)
    check_equal({n: v for n, v in module.state_dict().items() if n.startswith("model.")}, plain.state_dict())


@pytest.mark.parametrize("start", [1, UPDATES + 1])
def test_validation_reports_the_same_parts_once_the_game_has_begun(start):
    module, trainer = trained(evotok(start=start), images())
    trainer.validate(module, Stream(images(1)), verbose=False)
    names = {name for name in trainer.callback_metrics if name.startswith("val/")}
    game = {"val/adversarial", "val/discriminator_real", "val/discriminator_fake"}
    assert names & game == (game if start == 1 else set())
    if start == 1:  # by the running statistics, which it leaves as they are
        module.eval()
        with torch.no_grad():
            fake = module.model(images(1)[0]["image"]).reconstruction
            expected = -module.adversary.discriminator(fake).mean()
        assert float(trainer.callback_metrics["val/adversarial"]) == pytest.approx(float(expected), rel=1e-4)


def test_the_discriminators_schedule_ends_with_the_training():
    falling = OptimizerSettings(lr=1.0, schedule="linear", final_lr_ratio=0.5)
    _, trainer = trained(evotok(optimizer=falling), images(), max_steps=UPDATES)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [1e-3, 0.5]


def test_a_training_too_short_for_the_game_says_so(capsys):
    trained(evotok(start=9), images(1), max_steps=1)
    assert "note: the discriminator would begin at step 9; this training ends at 1" in capsys.readouterr().err
    trained(evotok(start=1), images(1), max_steps=1)
    assert "would begin" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    """A run of four updates whose game begins at the third, with averaged weights; and its config."""
    folder = tmp_path_factory.mktemp("gan")
    config = training_config(shards)
    config["model"]["init_args"]["adversarial"]["start"] = START
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": UPDATES, "log_every_n_steps": 1}
    sections = {"seed_everything": 1, "trainer": trainer, "checkpoint": {"every_n_steps": 1, "keep": 9}}
    (folder / "config.yaml").write_text(json.dumps({**sections, "ema": {"decay": 0.9}, **config}))
    assert main(["fit", "-c", str(folder / "config.yaml"), "--run", str(folder / "run")]) == 0
    return folder


def test_a_resume_across_the_beginning_of_the_game_is_bit_exact(run):
    last = f"checkpoints/step_{UPDATES:08}"
    for step in (START - 1, START):
        resumed = run / f"resumed{step}"
        checkpoint = run / f"run/checkpoints/step_{step:08}"
        arguments = ["fit", "-c", str(run / "config.yaml"), "--run", str(resumed), "--ckpt_path", str(checkpoint)]
        assert main(arguments) == 0
        states = [torch.load(at / last / "trainer.ckpt", weights_only=True) for at in (run / "run", resumed)]
        ours, theirs = (state["state_dict"] for state in states)
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
        for a, b in zip(*(state["optimizer_states"] for state in states), strict=True):
            assert a["state"].keys() == b["state"].keys()
            assert all(torch.equal(a["state"][k]["exp_avg"], b["state"][k]["exp_avg"]) for k in a["state"])


def test_the_discriminator_is_in_the_checkpoint_and_not_in_the_model(run):
    folder = run / f"run/checkpoints/step_{UPDATES:08}"
    state = torch.load(folder / "trainer.ckpt", weights_only=True)
    names = {name for name in state["state_dict"] if name.startswith("adversary.")}
    assert {"adversary.updates", "adversary.discriminator.main.3.running_mean"} <= names
    assert int(state["state_dict"]["adversary.updates"]) == UPDATES - START + 1
    published = load_file(folder / "model/model.safetensors")
    assert {f"model.{name}" for name in published} == {n for n in state["state_dict"] if n.startswith("model.")}
    average = state["callbacks"]["WeightAverage"]
    assert average
    assert all(name.startswith("model.") for name in average)


def test_a_fused_optimiser_of_the_discriminator_is_refused_like_the_models(run, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    flags = ["--trainer.precision", "16-mixed", "--trainer.accelerator", "gpu", "--run", str(run / "refused")]
    fused = ["--model.init_args.adversarial.optimizer", json.dumps({"fused": True})]
    assert main(["fit", "-c", str(run / "config.yaml"), *flags, *fused]) == 2
    assert "a fused optimiser unscales gradients itself" in capsys.readouterr().err
