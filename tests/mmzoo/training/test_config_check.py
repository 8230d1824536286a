import pytest

from mmzoo.errors import InputError
from mmzoo.training.config_check import check_config, flags_as_config
from mmzoo.training.config_files import compose, merge
from mmzoo.training.zoo_cli import sections


def findings(config, text="", flags=(), verb="fit"):
    """The lines of the error for the tiny config with `text` merged over it; empty when all is well."""
    extra = config.with_name("extra.yaml")
    extra.write_text(text)
    whole = merge(compose([str(config), str(extra)]), flags_as_config(list(flags)))
    try:
        check_config(whole, sections(verb), f"mmzoo {verb}")
    except InputError as mistake:
        return str(mistake).splitlines()
    return []


def test_a_sound_config_passes(config):
    assert findings(config) == []
    assert findings(config, "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val/loss}}]}") == []
    assert findings(config, verb="validate") == []
    assert findings(config, "model: {init_args: {optimizer: {schedule: nan}}}") == []  # a word, for jsonargparse
    assert findings(config, flags=["--model.width", "3", "--data.init_args.seed=-1", "--trainer.callbacks+=X"]) == []


@pytest.mark.parametrize(
    ("text", "line", "rest"),
    [
        ("\ntrainr:\n  max_steps: 1\n", 2, "trainr is not an option of `mmzoo fit`. Did you mean 'trainer'?"),
        ("trainer:\n  max_step: 1\n", 2, "trainer.max_step is not an option of Trainer. Did you mean 'max_steps'?"),
        (
            "model:\n  init_args:\n    widht: 1\n",
            3,
            "model.init_args.widht is not an option of TinyTraining. Did you mean 'width'?",
        ),
        (
            "model:\n  init_args:\n    optimizer:\n      warmup: 1\n",
            4,
            "model.init_args.optimizer.warmup is not an option of OptimizerSettings. Did you mean 'warmup_steps'?",
        ),
        (
            "data:\n  init_args:\n    transform:\n      init_args:\n        noize: 1\n",
            5,
            "data.init_args.transform.init_args.noize is not an option of MeanColour. Did you mean 'noise'?",
        ),
        (
            "model:\n  init_args:\n    optimizer: {weight_decay: -.INF}\n",
            3,
            "model.init_args.optimizer.weight_decay is -.INF, which is no finite number. Give a number.",
        ),
        ("model:\n  int_args: {}\n", 2, "model.int_args is not an option of a class entry. Did you mean 'init_args'?"),
        ("checkpoint:\n  kep: 1\n", 2, "checkpoint.kep is not an option of FolderCheckpoint. Did you mean 'keep'?"),
        (
            "trainer:\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.EarlyStopping\n"
            "    init_args: {monitr: x}\n",
            4,
            "trainer.callbacks[0].init_args.monitr is not an option of EarlyStopping. Did you mean 'monitor'?",
        ),
        (
            "model:\n  class_path: tiny_training.TinyTrainings\n",
            2,
            "model.class_path: tiny_training has no TinyTrainings. Did you mean 'TinyTraining'?",
        ),
        (
            "data:\n  class_path: mmzoo.training.datamodule.ShardData\n",
            2,
            "data.class_path: there is no module mmzoo.training.datamodule. Did you mean 'data_module'?",
        ),
        (
            "model:\n  class_path: mmzoo.training.data_module.ShardData\n",
            2,
            "model.class_path: mmzoo.training.data_module.ShardData is not a ZooModule. Name a subclass of it.",
        ),
        ("model: [1]\n", 1, "model must be a mapping with class_path and init_args, this is a sequence."),
    ],
)
def test_a_finding_names_key_place_and_cure(config, text, line, rest):
    extra = config.with_name("extra.yaml")
    assert findings(config, text) == [f"{extra}:{line}: {rest}"]


def test_all_findings_are_reported(config):
    lines = findings(config, "a: 1\ntrainer: {b: 2}\nmodel: {init_args: {widht: 3}}\n")
    assert lines[0] == "the config has 3 mistakes:"
    assert [line.split()[1] for line in lines[1:]] == ["trainer.b", "model.init_args.widht", "a"]


def test_a_config_without_a_class_says_so(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("model:\n  init_args: {}\n")
    assert "model names no class. Add model.class_path" in findings(config)[0]


@pytest.mark.parametrize(
    ("flag", "rest"),
    [
        ("--trainer.max_step=3", "trainer.max_step is not an option of Trainer. Did you mean 'max_steps'?"),
        ("--model.widht=3", "model.init_args.widht is not an option of TinyTraining. Did you mean 'width'?"),
        ("--rnu=x", "rnu is not an option of `mmzoo fit`. Did you mean 'run'?"),
    ],
)
def test_flags_are_checked_like_files(config, flag, rest):
    assert findings(config, flags=[flag]) == [f"command line: {rest}"]


def test_a_flag_that_is_no_number_is_refused(config):
    (line,) = findings(config, flags=["--model.optimizer.lr", "nan"])
    assert line == "command line: model.init_args.optimizer.lr is nan, which is no finite number. Give a number."


def test_a_flag_may_choose_another_class(config):
    assert findings(config, flags=["--model", "tiny_training.SeveralTraining", "--model.width=2"]) == []
    assert "has no Nothing" in findings(config, flags=["--model=tiny_training.Nothing"])[0]


def test_options_of_parents_reached_through_kwargs_are_known(config, tmp_path, monkeypatch):
    (tmp_path / "with_kwargs.py").write_text(
        "from tiny_training import TinyTraining\n\n\nclass Wider(TinyTraining):\n"
        "    def __init__(self, extra: int = 1, **kwargs):\n        super().__init__(**kwargs)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = "model: {class_path: with_kwargs.Wider, init_args: {extra: 1, width: 2, widht: 3}}"
    assert [line.split(": ", 1)[1] for line in findings(config, text)] == [
        "model.init_args.widht is not an option of Wider. Did you mean 'width'?"
    ]


def test_a_missing_dependency_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = findings(config, "model: {class_path: needs_something.Model}")[0]
    assert "needs_something needs 'package_that_nobody_has', which is not installed" in line
