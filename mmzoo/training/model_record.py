"""What the `model/` folder of a checkpoint says of its run: run.json so far, and what is true of this step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from mmzoo.training.last_validation import LastValidation
from mmzoo.training.module import ZooModule
from mmzoo.training.run_files import RECORD_FILE
from mmzoo.training.stepping import updates


def model_record(trainer: Trainer, module: ZooModule) -> dict[str, Any]:
    """The `record` of save_model. Metrics only where validation ran on these very weights, after this step."""
    file = Path(trainer.default_root_dir) / RECORD_FILE
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    last = next((callback for callback in callbacks if isinstance(callback, LastValidation)), None)
    measured = last is not None and last.step == updates(trainer)
    return {
        **record,
        "step": updates(trainer),
        "variant": module.variant,
        "receipts": module.receipts,
        "metrics": last.metrics if last and measured else {},
        "samples": last.samples if last and measured else None,
    }
