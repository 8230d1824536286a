"""EvoTok's demo: photographs -> shards -> teacher -> tokenizer -> measured on unseen photographs -> reloaded -> report.

Every step but the measuring is a command that a user would type; it is shown before it runs.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from data_engine.index import ShardIndex
from data_engine.sources import scikit_image
from mmzoo.demo import Demo
from mmzoo.errors import InputError
from mmzoo.report.run_report import write_report
from tokenizers_visual.evotok.demo_measure import CROPS, examine, results
from tokenizers_visual.evotok.demo_report import report_of

TEACHER_CONFIG, TOKENIZER_CONFIG = "evotok/tiny-demo-teacher", "evotok/tiny-demo"
#: Share of photographs that are held out: many for a data set, because a dozen photographs are few.
HELD_OUT = "0.25"
TRAINING_PHOTOGRAPHS = 2  # the teacher learns to tell them apart


def main(demo: Demo) -> Path:
    """Runs the whole demo and returns the report's path."""
    started = time.perf_counter()
    shards = demo.out / "shards"
    photographs, group = demo.images, []
    if photographs is None:
        photographs, group = demo.out / "photographs", ["--group", scikit_image.GROUP]
        scikit_image.copy_pictures(photographs)
    demo.run("shards", "data", "build", "images", photographs, shards, "--val-fraction", HELD_OUT, *group)
    index = ShardIndex.open(shards)
    check_enough(photographs, index)
    teacher, tokenizer = demo.out / "teacher", demo.out / "tokenizer"
    flags = ["--data.init_args.index", shards, *_validation(len(index.split_rows("val"))), *_length(demo.steps)]
    demo.run("teacher", "fit", "-c", TEACHER_CONFIG, *flags, "--run", teacher)
    source = ["--model.init_args.teacher.source", teacher / "checkpoints" / "best" / "model"]
    demo.run("tokenizer", "fit", "-c", TOKENIZER_CONFIG, *flags, *source, "--run", tokenizer)
    outcome = examine(demo, index, tokenizer / "checkpoints" / "best")
    demo.seconds["all"] = time.perf_counter() - started
    (demo.out / "results.json").write_text(json.dumps(results(outcome), indent=1) + "\n", encoding="utf-8")
    return write_report(report_of(outcome), demo.out / "report.html")


def check_enough(photographs: Path, index: ShardIndex) -> None:
    """InputError unless there are two photographs to tell apart, and one that no training sees."""
    training, held_out = (len(index.split_rows(split)) for split in ("train", "val"))
    if training < TRAINING_PHOTOGRAPHS or held_out < 1:
        raise InputError(
            f"{photographs} gives {training} images to learn from and {held_out} to measure on, and the demo needs "
            f"{TRAINING_PHOTOGRAPHS} and 1. Add images; 8 or more are a good start."
        )


def _validation(photographs: int) -> list[str]:
    """Flags that make a validation look at about CROPS crops, whatever the number of held-out photographs."""
    passes = max(1, round(CROPS / max(1, photographs)))
    batches = -(-min(photographs * passes, 4 * CROPS) // (CROPS // 2))
    return ["--data.init_args.val_passes", str(passes), "--trainer.limit_val_batches", str(batches)]


def _length(steps: int | None) -> list[str]:
    """Flags for a training of `steps` updates with five validations."""
    if steps is None:
        return []
    return ["--trainer.max_steps", str(steps), "--data.init_args.steps_per_epoch", str(max(1, steps // 5))]
