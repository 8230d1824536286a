"""LightningCLI for this zoo: our base classes, run folders, loggers and checkpoints; one verb at a time."""

from __future__ import annotations

import inspect
import json
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from mmzoo.durable_files import NoSpaceError, sweep_temporaries
from mmzoo.errors import InputError
from mmzoo.folder_lock import InUseError, only_writer
from mmzoo.training import resume_config, run_record
from mmzoo.training.checkpoint_folder import LAST, TRAINER_FILE, read_seal, resolve_checkpoint, sweep
from mmzoo.training.checkpoints import FolderCheckpoint, initialise_from, read_data_state, resume
from mmzoo.training.chosen_methods import MethodsInRecord
from mmzoo.training.config_check import Section, load_class
from mmzoo.training.data_module import CONSENT, ShardData
from mmzoo.training.data_state import DataPosition
from mmzoo.training.kept_results import keep_results
from mmzoo.training.last_validation import LastValidation
from mmzoo.training.lean_steps import AskedOnce, Unprofiled, leave_out_empty_hooks, stop_asking_for_gpus
from mmzoo.training.loggers import MetricsCsv, TensorBoard
from mmzoo.training.module import ZooModule
from mmzoo.training.progress import Throughput, progress_callback
from mmzoo.training.ranks import agreed_name, is_first_process
from mmzoo.training.speed import SpeedSettings
from mmzoo.training.stepping import is_trial, updates
from mmzoo.training.stop_signals import StopOnSignal, exit_code, stopping
from mmzoo.training.strategies import check_support
from mmzoo.training.validation_images import ValidationImages
from mmzoo.training.weight_average import WeightAverage

#: Arguments of the trainer's methods that are ours to give.
OUR_ARGUMENTS = {
    "model",
    "datamodule",
    "train_dataloaders",
    "val_dataloaders",
    "dataloaders",
    "weights_only",
    "verbose",
}
#: A child process that Lightning starts for another rank reads its run folder here: its own clock would name another.
RUN_FOLDER_VARIABLE = "MMZOO_RUN_FOLDER"
#: Changed settings that an error line names.
MOST_NAMED = 4
#: Options of ours that only a resumed training has.
RESUME_OPTIONS = ["allow_changes", "skip_steps"]
IN_USE_ADVICE = "Wait for it, stop it (SIGTERM saves first), or choose another folder with --run"
TRAINER_DEFAULTS = {
    # Ranks are split by data_engine; stdout is for data, so no summary table there.
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}


def sections(verb: str) -> dict[str, Section]:
    """The top-level keys of a config and what they may hold."""
    method = inspect.signature(getattr(Trainer, verb)).parameters
    ours = ["seed_everything", "run", "init_from", *(RESUME_OPTIONS if verb == "fit" else [])]
    plain = [*ours, *(name for name in method if name not in {"self", *OUR_ARGUMENTS})]
    return {
        "model": Section(base=ZooModule),
        "data": Section(base=ShardData),
        "trainer": Section(options_of=Trainer),
        "checkpoint": Section(options_of=FolderCheckpoint),
        "ema": Section(options_of=WeightAverage),
        "images": Section(options_of=ValidationImages),
        "speed": Section(options_of=SpeedSettings),
        **{name: Section() for name in plain},
    }


def _mistake_in(fault: BaseException | None) -> InputError | None:
    while fault is not None and not isinstance(fault, InputError):
        fault = fault.__cause__ or fault.__context__
    return fault


def _tidy(checkpoints: Path) -> None:
    """Removes what a killed training left half-written in its run; nothing of one that is still training."""
    run = checkpoints.parent
    if not (checkpoints.is_dir() and os.access(run, os.W_OK)):
        return
    with suppress(InUseError), only_writer(run, "another training", IN_USE_ADVICE):
        for note in sweep(checkpoints):
            sys.stderr.write(f"note: {checkpoints}: {note}\n")
        for place in (run, *run.glob("images/*")):
            sweep_temporaries(place)


class ConfigOfStart(SaveConfigCallback):
    """Keeps the full config of every start; Lightning's own refuses a second start in the same folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, save_to_log_dir=False, **kwargs)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        text = self.parser.dump(self.config, skip_unset=False)
        run_record.save_config(Path(trainer.default_root_dir), text)


class ZooCLI(LightningCLI):
    """Parses, builds and runs one verb. `argv`: what the user typed; `arguments`: what is parsed instead of it."""

    def __init__(self, verb: str, prog: str, argv: list[str], arguments: list[str], config: str | None) -> None:
        self.verb = verb
        self.argv = argv
        self.config_name = config
        self.checkpoint: Path | None = None
        self.run_folder = Path()
        with ExitStack() as self.held:
            super().__init__(
                ZooModule,
                ShardData,
                save_config_callback=ConfigOfStart,
                trainer_defaults=dict(TRAINER_DEFAULTS),
                seed_everything_default=0,
                parser_kwargs={
                    "prog": prog.rpartition(" ")[0] or "mmzoo",
                    "exit_on_error": False,
                    verb: {"exit_on_error": False},
                },
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=[verb, *arguments],
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )

    def subcommands(self) -> dict[str, set[str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Only the verb at hand: each further parser would cost its building time."""
        return {self.verb: set(OUR_ARGUMENTS)}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str | None, default=None, help="run folder (default: runs/CONFIG-TIME)")
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="checkpoint or model folder to take the model's weights from, nothing else",
        )
        if self.verb == "fit":
            for name, text in (
                ("allow_changes", f"consent to a resume with another data order: {', '.join(CONSENT)}"),
                ("skip_steps", "steps A..B whose data a resumed training leaves out"),
            ):
                parser.add_argument(f"--{name}", type=str | None, default=None, help=text)
        parser.add_lightning_class_args(FolderCheckpoint, "checkpoint")
        parser.add_lightning_class_args(WeightAverage, "ema")
        parser.add_lightning_class_args(ValidationImages, "images")
        parser.add_class_arguments(SpeedSettings, "speed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's hyperparameters override the user's flags."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.verb]
        model_class = load_class(config.model.class_path)
        fused = any(value for key, value in config.model.items() if key.endswith("optimizer.fused"))
        check_support(config.trainer, model_class.turns, model_class.__name__, fused)
        if config.ckpt_path and config.init_from:
            raise InputError("--ckpt_path and --init_from exclude each other: the first brings weights as well.")
        if config.ckpt_path:
            folder = resume_config.find_checkpoint(config.ckpt_path, config.run, self.config_name)
            if self.verb == "fit" and "LOCAL_RANK" not in os.environ:
                _tidy(folder.parent)
            config.ckpt_path = str(folder)
            self.checkpoint = resolve_checkpoint(folder)
        elif self.verb == "fit":
            self._check_resume_options(config)
        self._prepare_run_folder(config.run or config.trainer.default_root_dir)

    def _check_resume_options(self, config: Any) -> None:
        for name in RESUME_OPTIONS:
            if config[name]:
                raise InputError(f"--{name} is for a resumed training. Add --ckpt_path last, or a checkpoint folder")

    def _prepare_run_folder(self, given: str | None) -> None:
        if inherited := os.environ.get(RUN_FOLDER_VARIABLE) if "LOCAL_RANK" in os.environ else None:
            self.run_folder = Path(inherited)
            return
        of_checkpoint = (
            self.checkpoint and self.checkpoint.parent.name == "checkpoints" and self.checkpoint.parent.parent
        )
        if not (given or of_checkpoint):
            given = f"runs/{agreed_name(run_record.default_name(self.config_name), 'run')}"
        run = Path(given or str(of_checkpoint)).absolute()
        if is_first_process():
            run_record.refuse_foreign(run)
        self.run_folder = run if self.verb == "fit" else run / self.verb
        os.environ[RUN_FOLDER_VARIABLE] = str(self.run_folder)
        self.held.enter_context(run_record.run_folder(self.run_folder))
        if self.verb == "fit" and is_first_process():
            self.held.enter_context(only_writer(self.run_folder, "another training", IN_USE_ADVICE))

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as fault:
            # jsonargparse wraps what a class raises while it is built; a user's mistake in there is shown as it was.
            if (mistake := _mistake_in(fault)) is not None:
                raise self._beside_changes(mistake) from None
            raise

    def _beside_changes(self, mistake: InputError) -> InputError:
        """The mistake, and what this start changed against its checkpoint: there the cause of it often is."""
        if self.checkpoint is None:
            return mistake
        config = self._parser(self.verb).dump(self.config[self.verb], skip_unset=False)
        changed = [key for key, *_ in resume_config.changes_since(self.checkpoint, config)]
        more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        named = f"{', '.join(changed[:MOST_NAMED])}{more}"
        return InputError(f"{mistake} (Differs from {self.checkpoint.name}: {named})") if changed else mistake

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        callbacks: list[Callback] = [DataPosition(), Throughput(), LastValidation(), StopOnSignal(), AskedOnce()]
        configured = config.get("callbacks") or []
        has_bar = any(
            isinstance(callback, ProgressBar) for callback in configured if not isinstance(configured, Callback)
        )
        if config.get("enable_progress_bar") is not False and not has_bar:
            callbacks.append(progress_callback())
        self.trainer_defaults["callbacks"] = callbacks
        loggers: list[MetricsCsv | TensorBoard] = []
        if config.get("logger") in (None, True):
            step = read_seal(self.checkpoint)["step"] if self.checkpoint and self.verb == "fit" else None
            loggers = [MetricsCsv(self.run_folder, step), TensorBoard(self.run_folder, step)]
            kwargs["logger"] = loggers
        if config.get("profiler") is None:
            kwargs["profiler"] = Unprofiled()
        trainer = super().instantiate_trainer(default_root_dir=str(self.run_folder), **kwargs)
        leave_out_empty_hooks(trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
        keep_results(trainer)
        for logger in loggers:
            logger.trainer = trainer
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, FolderCheckpoint)]
        try:
            return super()._instantiate_trainer(config, callbacks)
        except (ValueError, MisconfigurationException) as fault:
            raise InputError(f"trainer: Lightning refuses it: {' '.join(str(fault).split())}") from fault

    def after_instantiate_classes(self) -> None:
        if init_from := self._get(self.config, "init_from"):
            initialise_from(self.model, init_from)
        if self.verb == "fit":
            self._get(self.config_init, "speed").apply(self.model.model)
        if self.checkpoint is not None and self.verb == "fit":
            # Here, so that a refused resume leaves the run folder as it was.
            allowed = resume_config.consents(self._get(self.config, "allow_changes"), CONSENT)
            skipped = resume_config.step_ranges(self._get(self.config, "skip_steps"))
            self.datamodule.load_data_state(read_data_state(self.checkpoint), allowed)
            self.datamodule.skip_steps(skipped)

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs the verb between the start and the end of its run record."""
        if not self.trainer.is_global_zero or is_trial(self.trainer):
            super()._run_subcommand(subcommand)
            return
        identity = self.datamodule.identity()  # before anything moves: without its data the run is refused
        if self.verb == "fit" and self.checkpoint is None and (place := run_record.set_aside(self.run_folder)):
            sys.stderr.write(
                f"note: the earlier training in {self.run_folder} was moved to {place}; "
                f"to go on with one instead: --ckpt_path last\n"
            )
        parser, config = self._parser(self.verb), self.config[self.verb]
        text = parser.dump(config, skip_unset=False)
        record = run_record.RunRecord(self.run_folder, self.verb, self.argv, text)
        if self.checkpoint is not None and self.verb == "fit":
            record.write(**self._describe_resume(text))
        record.write(
            seed=config.seed_everything,
            resumed_from=str(self.checkpoint) if self.checkpoint else None,
            init_from=config.init_from,
            data={"index": str(self.datamodule.index_folder), "identity": identity},
            receipts=self.model.receipts,
        )
        callbacks: list[Callback] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        callbacks.append(MethodsInRecord(record))
        try:
            super()._run_subcommand(subcommand)
        except (KeyboardInterrupt, SystemExit) as ending:
            code = exit_code(ending)
            if not stopping(self.trainer):
                sys.stderr.write(f"stopped at once; saved before: {self._last_checkpoint()}\n")
            self._end(record, "interrupted", exit_code=code)
            raise SystemExit(code) from None
        except BaseException as fault:
            self._end(record, "failed", error=f"{type(fault).__name__}: {fault}")
            if isinstance(fault, MisconfigurationException):
                raise InputError(f"Lightning refuses this config: {' '.join(str(fault).split())}") from fault
            raise
        self._end(record, "finished")

    def _last_checkpoint(self) -> str:
        last = self.run_folder / "checkpoints" / LAST
        return str(last.resolve()) if last.exists() else "nothing"

    def _describe_resume(self, config: str) -> dict[str, Any]:
        """Shows what this start changes against the checkpoint; returns it for the run record."""
        assert self.checkpoint is not None
        changes = resume_config.changes_since(self.checkpoint, config)
        if changes:
            table = resume_config.difference_table(changes)
            sys.stderr.write(f"settings that differ from {self.checkpoint.name}:\n{table}")
        skipped = resume_config.step_ranges(self._get(self.config, "skip_steps"))
        return {"changed_settings": [list(row) for row in changes], "skipped_steps": skipped}

    def _end(self, record: run_record.RunRecord, status: str, **values: Any) -> None:
        try:
            metrics = self.model.with_newest_loss(self.trainer.callback_metrics)
            record.end(status, updates(self.trainer), metrics, **values)
        except NoSpaceError as full:
            # How the run ended is more important than that it could not be written down.
            sys.stderr.write(f"note: {full}\n")

    def fit(self, model: ZooModule, datamodule: ShardData, ckpt_path: str | None = None) -> None:  # noqa: ARG002
        """Trains, from the start or on from a checkpoint."""
        if self.trainer.is_global_zero:
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
            sys.stderr.write(f"training {trained:,} parameters; run folder: {self.run_folder}\n")
            done = read_seal(self.checkpoint)["step"] if self.checkpoint else 0
            if 0 < self.trainer.max_steps <= done:
                sys.stderr.write(
                    f"note: {self.checkpoint} is at step {done} of {self.trainer.max_steps} already; "
                    f"to go on, raise --trainer.max_steps\n"
                )
        stop_asking_for_gpus()
        if self.checkpoint is None:
            self.trainer.fit(model, datamodule=datamodule)
        else:
            resume(self.trainer, model, datamodule, self.checkpoint)

    def validate(self, model: ZooModule, datamodule: ShardData, ckpt_path: str | None = None) -> None:  # noqa: ARG002
        """Measures on the validation split; the metrics go to stdout as one JSON document."""
        self._evaluate(self.trainer.validate, model, datamodule)

    def test(self, model: ZooModule, datamodule: ShardData, ckpt_path: str | None = None) -> None:  # noqa: ARG002
        """The module's test steps; the metrics go to stdout as one JSON document."""
        self._evaluate(self.trainer.test, model, datamodule)

    def _evaluate(self, method: Any, model: ZooModule, datamodule: ShardData) -> None:
        method(model, datamodule=datamodule, ckpt_path=self._trainer_file(), weights_only=True, verbose=False)
        if self.trainer.is_global_zero:
            metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
            sys.stdout.write(json.dumps(metrics, indent=1, sort_keys=True) + "\n")

    def predict(self, model: ZooModule, datamodule: ShardData, ckpt_path: str | None = None, **options: Any) -> None:  # noqa: ARG002
        """The module's predict steps; where predictions go is the module's or a writer callback's business."""
        self.trainer.predict(
            model, datamodule=datamodule, ckpt_path=self._trainer_file(), weights_only=True, return_predictions=False
        )

    def _trainer_file(self) -> Path | None:
        return self.checkpoint / TRAINER_FILE if self.checkpoint else None
