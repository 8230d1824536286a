"""The base of every family's model: a PreTrainedModel whose `from_pretrained` is strict and leaves a receipt."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmzoo.errors import InputError
from mmzoo.hub.quiet import no_progress_bars
from mmzoo.hub.receipt import LoadReceipt, make_receipt

NAMES_SHOWN = 5


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def own_memory(model: torch.nn.Module) -> None:
    """Copies every tensor: a loaded one maps its file, so that overwriting the file would change the live model."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


class ZooModel(PreTrainedModel):
    """A model of the zoo. Weights come from safetensors only, and all of them, or loading is refused."""

    load_receipt: LoadReceipt | None = None

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | Path,
        *arguments: Any,
        allow_missing: tuple[str, ...] = (),
        receipt_file: str | Path | None = None,
        quiet: bool = False,
        **options: Any,
    ) -> Any:
        """Loads a model folder; InputError unless every parameter and persistent buffer comes from its files.

        `allow_missing` holds regular expressions for names that may keep their starting values. The receipt is
        `model.load_receipt`, one line on stderr unless `quiet`, and a JSON file where `receipt_file` says so.
        """
        where = str(pretrained_model_name_or_path)
        options.update(use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True)
        try:
            with no_progress_bars():
                loaded: Any = super().from_pretrained(where, *arguments, **options)
            model, report = loaded
        except Exception as fault:
            # transformers and safetensors raise many types for a damaged or incomplete folder; each is the folder's
            # fault as long as the folder is named, so they become one line.
            if isinstance(fault, InputError | KeyboardInterrupt | MemoryError):
                raise
            first_line = str(fault).strip().splitlines()[0] if str(fault).strip() else ""
            raise InputError(
                f"{where} could not be loaded as {cls.__name__}: {type(fault).__name__} {first_line}"
            ) from fault
        receipt = make_receipt(model, Path(where), report)
        cls._refuse_gaps(where, receipt, allow_missing)
        own_memory(model)
        model.load_receipt = receipt
        if receipt_file is not None:
            receipt.write(Path(receipt_file))
        if not quiet:
            sys.stderr.write(receipt.summary() + "\n")
        return model

    @staticmethod
    def _refuse_gaps(where: str, receipt: LoadReceipt, allow_missing: tuple[str, ...]) -> None:
        forbidden = [name for name in receipt.missing if not any(re.fullmatch(p, name) for p in allow_missing)]
        for kind, names in (
            ("lacks", forbidden),
            ("has unknown", receipt.unexpected),
            ("has misshapen", receipt.mismatched),
        ):
            if names:
                raise InputError(
                    f"{where} {kind} tensors: {_some(list(names))}. The weights do not belong to this config; "
                    f"check the folder, or pass allow_missing=[regex] to keep starting values on purpose."
                )
