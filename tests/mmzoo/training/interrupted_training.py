"""The tiny training with a record of what it saw, slow enough to be killed, and callbacks that break things on time."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

from lightning.pytorch import Callback
from tiny_training import TinyTraining

from mmzoo.training import checkpoint_folder
from mmzoo.training.optimizers import OptimizerSettings


class RecordingTraining(TinyTraining):
    """Appends a line per batch to `seen.jsonl` in the run folder: step, first global slot, ids, a hash per sample."""

    def __init__(self, width: int = 4, seconds: float = 0.0, optimizer: OptimizerSettings | None = None):
        super().__init__(width, optimizer)
        self.seconds = seconds

    def losses(self, batch, turn):
        rank, count = self.trainer.global_rank, len(batch["sample_ids"])
        hashes = [hashlib.sha256(sample.numpy().tobytes()).hexdigest()[:16] for sample in batch["pixels"]]
        line = {"step": self.trainer.global_step + 1, "slot": rank * count, "ids": batch["sample_ids"], "bytes": hashes}
        # One write call a line, so that the lines of two ranks do not mix.
        file = os.open(Path(self.trainer.default_root_dir) / "seen.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (json.dumps(line) + "\n").encode())
        os.close(file)
        time.sleep(self.seconds)
        return super().losses(batch, turn)

    def validation_step(self, batch, batch_idx):
        time.sleep(self.seconds)
        return super().validation_step(batch, batch_idx)


def stream(run, after=0):
    """{(step, global slot): (id, bytes)} of the lines of a run after a step; a later line replaces an earlier one."""
    found = {}
    for line in map(json.loads, (run / "seen.jsonl").read_text().splitlines()):
        if line["step"] > after:
            for place, pair in enumerate(zip(line["ids"], line["bytes"], strict=True)):
                found[line["step"], line["slot"] + place] = pair
    return found


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(Callback):
    """`kill -9` of this process at a point of a step: "seal" and "publish" lie inside the save."""

    def __init__(self, point: str, step: int):
        self.point, self.step = point, step

    def on_train_start(self, trainer, pl_module):
        real = getattr(checkpoint_folder, self.point, None)
        if real is not None:
            setattr(checkpoint_folder, self.point, lambda *given: kill() if self._now(trainer) else real(*given))

    def _now(self, trainer):
        return trainer.global_step == self.step

    def on_validation_batch_end(self, trainer, *_):
        if self.point == "validation" and not trainer.sanity_checking and self._now(trainer):
            kill()


class SignalAt(Callback):
    """Signals this process in the middle of a training step, `times` times."""

    def __init__(self, number: int, step: int, times: int = 1):
        self.number, self.step, self.times = number, step, times

    def on_before_backward(self, trainer, *_):
        if trainer.global_step + 1 == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class SignalInValidation(Callback):
    def __init__(self, number: int):
        self.number = number

    def on_validation_batch_end(self, trainer, *_):
        if not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)


class FillDisk(Callback):
    """Writes until the disk of `folder` is full, after step `first`; makes room again after step `last`."""

    def __init__(self, folder: str, first: int, last: int):
        self.file, self.first, self.last = Path(folder) / "filler", first, last

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.first:
            with self.file.open("ab", buffering=0) as file:
                for size in (65536, 4096, 1):
                    try:
                        while file.write(b"x" * size):
                            pass
                    except OSError:
                        continue
        elif trainer.global_step == self.last:
            self.file.unlink()


class LoseShards(Callback):
    """Renames the shards that no reader has opened yet, after a step."""

    def __init__(self, folder: str, step: int):
        self.folder, self.step = Path(folder), step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            for shard in self.folder.glob("*.tar"):
                shard.rename(shard.with_suffix(".gone"))
