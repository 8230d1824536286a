"""The base of every family's model: a PreTrainedModel whose `from_pretrained` is strict and leaves a receipt."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmzoo.errors import InputError
from mmzoo.hub.quiet import no_progress_bars, no_warnings
from mmzoo.hub.receipt import LoadReceipt, check_receipt_file, make_receipt
from mmzoo.hub.source import CONFIG_FILE, HUB_OPTIONS, ModelSource, find_source, read_config, refuse_misspelt_keys
from mmzoo.hub.weights import Stored, kind_of, stored_tensors, weight_files
from mmzoo.hub.whole_numbers import restore_whole_numbers
from mmzoo.hub.zoo_file import check_files

NAMES_SHOWN = 5
SHOWN_OF_A_FAULT = 300  # characters
#: Options of transformers that would take weights from elsewhere than the folder's safetensors files.
REFUSED_OPTIONS = ("gguf_file", "state_dict", "subfolder", "variant")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _patterns(allow_missing: str | Iterable[str]) -> list[re.Pattern[str]]:
    texts = (allow_missing,) if isinstance(allow_missing, str) else tuple(allow_missing)
    patterns = []
    for text in texts:
        try:
            patterns.append(re.compile(text))
        except (re.error, TypeError) as fault:
            raise InputError(f"allow_missing: {text!r} is no regular expression ({fault}). Correct it.") from fault
    return patterns


def own_memory(model: torch.nn.Module) -> None:
    """Copies every tensor: a loaded one maps its file, so that overwriting the file would change the live model."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def chosen_methods(model: Any) -> dict[str, str]:
    """`ZooModel.chosen_methods` of a model of the zoo; nothing of any other."""
    return model.chosen_methods() if isinstance(model, ZooModel) else {}


class ZooModel(PreTrainedModel):
    """A model of the zoo. Weights come from safetensors only, and all of them, or loading is refused."""

    load_receipt: LoadReceipt | None = None

    def chosen_methods(self) -> dict[str, str]:
        """{what: the way taken} where the same thing can be computed in several ways and the device or the precision
        decides, here and under the autocast of the caller. Records name it: two ways agree to rounding only.
        """
        return {}

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | Path, *arguments: Any, revision: str | None = None, **options: Any
    ) -> Any:
        """Loads a folder, a checkpoint or a Hub id (at `revision`) as `from_source` does; see there for options."""
        hub = {name: options.pop(name) for name in HUB_OPTIONS if options.get(name) is not None}
        source = find_source(pretrained_model_name_or_path, revision=revision, **hub)
        return cls.from_source(source, *arguments, **options)

    @classmethod
    def from_source(
        cls,
        source: ModelSource,
        *arguments: Any,
        allow_missing: str | Iterable[str] = (),
        receipt_file: str | Path | None = None,
        quiet: bool = False,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """Loads a model folder; InputError unless every parameter and persistent buffer comes from its files.

        `allow_missing` holds regular expressions for names that may keep their starting values. The receipt is
        `model.load_receipt`, one line on stderr unless `quiet`, and a JSON file where `receipt_file` says so. What
        zoo.json records of the files is checked. `options` are transformers'; with `output_loading_info` the result
        is (model, transformers' report).
        """
        patterns = _patterns(allow_missing)
        if receipt_file is not None:
            check_receipt_file(Path(receipt_file))
        cls._refuse_options(options)
        cls._refuse_other_family(source)
        refuse_misspelt_keys(cls.config_class, source.folder)
        files = weight_files(source.folder)
        hashes = check_files(source.folder, [CONFIG_FILE, *files])
        stored = stored_tensors(source.folder, files)
        model, report = cls._load(source, arguments, options)
        restore_whole_numbers(model, source.folder, stored)
        receipt = make_receipt(model, source, hashes, stored, report)
        _refuse_gaps(source.name, receipt, patterns)
        _refuse_other_kinds(source.name, model.state_dict(), stored)
        own_memory(model)
        model.load_receipt = receipt
        if receipt_file is not None:
            receipt.write(Path(receipt_file))
        if not quiet:
            sys.stderr.write(receipt.summary() + "\n")
        return (model, report) if output_loading_info else model

    @classmethod
    def _load(cls, source: ModelSource, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        """transformers' own loading; whatever it raises becomes one line."""
        options = {**options, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            with no_progress_bars(), no_warnings():
                loaded: Any = super().from_pretrained(str(source.folder), *arguments, **options)
            model, report = loaded
        except Exception as fault:
            # transformers and safetensors raise many types for a damaged or incomplete folder; each is the folder's
            # fault as long as the folder is named, so they become one line.
            if isinstance(fault, MemoryError):
                raise
            if isinstance(fault, InputError):  # a value that the family's configuration refuses
                raise InputError(f"{source.name} could not be loaded: {CONFIG_FILE}: {fault}") from fault
            raise InputError(
                f"{source.name} could not be loaded as {cls.__name__}: {type(fault).__name__}: "
                f"{' '.join(str(fault).split())[:SHOWN_OF_A_FAULT]}. Fetch or save the model again."
            ) from fault
        model.config.name_or_path = model.name_or_path = source.name
        return model, report

    @classmethod
    def _refuse_options(cls, options: Mapping[str, Any]) -> None:
        wrong = [name for name in REFUSED_OPTIONS if options.get(name)]
        wrong += ["use_safetensors"] if options.get("use_safetensors") is False else []
        if wrong:
            raise InputError(
                f"{cls.__name__}.from_pretrained does not take {', '.join(wrong)}: weights come from the safetensors "
                f"files of a model folder. Leave it out, or name the folder that holds them."
            )

    @classmethod
    def _refuse_other_family(cls, source: ModelSource) -> None:
        config, own = read_config(source.folder), getattr(cls.config_class, "model_type", None)
        if config["model_type"] != own:
            raise InputError(
                f"{source.name} holds a {config['model_type']!r} model and {cls.__name__} is a {own!r}. "
                f"Load it with mmzoo.from_pretrained."
            )
        if config.get("transformers_weights"):
            raise InputError(
                f"{source.name}: config.json names weights of its own (transformers_weights). Remove that line, and "
                f"call the file model.safetensors."
            )


def _refuse_gaps(where: str, receipt: LoadReceipt, allowed: list[re.Pattern[str]]) -> None:
    forbidden = [name for name in receipt.missing if not any(pattern.fullmatch(name) for pattern in allowed)]
    for kind, names in (
        ("lacks", forbidden),
        ("has unknown", receipt.unexpected),
        ("has misshapen", receipt.mismatched),
    ):
        if names:
            raise InputError(
                f"{where} {kind} tensors: {_some(names)}. The weights do not belong to this config; "
                f"check the folder, or pass allow_missing=[regex] to keep starting values on purpose."
            )


def _refuse_other_kinds(where: str, state: Mapping[str, torch.Tensor], stored: Mapping[str, Stored]) -> None:
    """Floats of another width are converted and noted; integers in a float's place are somebody's mistake."""
    wrong = [
        f"{name} ({stored[name].dtype}, not {kind_of(tensor.dtype)})"
        for name, tensor in state.items()
        if name in stored and stored[name].kind != kind_of(tensor.dtype)
    ]
    if wrong:
        raise InputError(
            f"{where} stores tensors as another kind of number: {_some(wrong)}. Save the model again in its own dtypes."
        )
