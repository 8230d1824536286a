"""`mmzoo data why RUN --step N`: the samples that an optimiser step consumed, where they lie, and how they looked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_engine.index import ShardIndex
from data_engine.ledger import Ledger, rank_window
from data_engine.reader import ShardReader
from data_engine.remote import open_index as open_shards
from data_engine.steps import Stretch, from_json, stretch_of
from mmzoo.errors import EXIT_OK, CommandParser, InputError
from mmzoo.training.run_files import CONFIG_FILE, DATA_STEPS_FILE, RECORD_FILE

COLUMNS = ("position", "epoch", "batch", "slot", "rank", "place", "shard", "offset", "size", "key", "path")


@dataclass(frozen=True, slots=True)
class ConsumedSample:
    """One sample of a step.

    `position`, `epoch`: in the virtual sequence. `batch`: which of the step's batches (accumulation). `slot`: place in
    that batch over all ranks; `rank`, `place`: who read it, and where it stands in that rank's part. `source`, `shard`,
    `key`: the sample; `offset`, `size`: its first member in the shard, in bytes; `path`: of the file it was built from.
    """

    position: int
    epoch: int
    batch: int
    slot: int
    rank: int
    place: int
    source: str
    shard: str
    key: str
    offset: int
    size: int
    path: str
    row: int

    @property
    def sample_id(self) -> str:
        """As in `sample_ids` of a batch."""
        return f"{self.source}/{self.key}@{self.position}"


def read_history(folder: Path) -> list[Stretch]:
    """The data record of a run folder or of a checkpoint folder. InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}. Give the folder that `mmzoo fit` named")
    for file, read in (
        (folder / DATA_STEPS_FILE, lambda content: content),
        (folder / "data_state.json", lambda content: content["history"]),
    ):
        if file.is_file():
            try:
                return from_json(read(json.loads(file.read_text(encoding="utf-8"))))
            except (ValueError, KeyError, TypeError) as fault:
                raise InputError(f"{file} cannot be read ({fault}). Try a checkpoint folder of the run") from None
    raise InputError(f"{folder} has no {DATA_STEPS_FILE}: no run of `mmzoo fit`, or one that never began to train")


def open_index(stretch: Stretch, moved_to: Path | None) -> ShardIndex:
    """The shards that the steps were trained on. InputError when they are gone or not the same any more."""
    index = open_shards(moved_to or stretch.index)
    if index.identity != stretch.identity:
        raise InputError(f"the shards in {index.folder} are not those of this step. Give the old ones with --index")
    return index


def consumed(stretch: Stretch, step: int, reader: ShardReader) -> list[ConsumedSample]:
    """The samples of the update number `step`, in the order of batch and slot."""
    index = reader.index
    ledger = Ledger(index.split_rows(stretch.split), stretch.seed)
    found = []
    for batch, positions in enumerate(stretch.positions_of(step)):
        windows = [rank_window(0, len(positions), rank, stretch.ranks) for rank in range(stretch.ranks)]
        for slot, position in enumerate(positions):
            rank = next(rank for rank, (start, stop) in enumerate(windows) if start <= slot < stop)
            epoch, row = ledger.locate(position)
            shard, offset, size = index.place(row, index.fields[0])
            found.append(
                ConsumedSample(
                    position=position,
                    epoch=epoch,
                    batch=batch,
                    slot=slot,
                    rank=rank,
                    place=slot - windows[rank][0],
                    source=index.source,
                    shard=shard.name,
                    key=reader.key(row),
                    offset=offset,
                    size=size,
                    path=str(reader.meta(row).get("path", "")),
                    row=row,
                )
            )
    return found


def _text(samples: Sequence[ConsumedSample]) -> str:
    rows = [COLUMNS, *(tuple(str(getattr(sample, name)) for name in COLUMNS) for sample in samples)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ("  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _as_json(step: int, stretch: Stretch, samples: Sequence[ConsumedSample]) -> dict[str, Any]:
    rows = [{"sample_id": sample.sample_id, **asdict(sample)} for sample in samples]
    for row in rows:
        del row["row"]
    return {"step": step, "index": stretch.index, "skipped_positions": list(stretch.skips), "samples": rows}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of `mmzoo fit`, or one of its checkpoint folders")
    parser.add_argument("--step", type=int, required=True, help="update number, as in metrics.csv")
    parser.add_argument("--index", type=Path, help="where the shards lie now, if they were moved")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the samples as the model saw them")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data why`."""
    given = _parser(prog).parse_args(argv)
    stretch = stretch_of(read_history(given.run), given.step)
    reader = ShardReader(open_index(stretch, given.index))
    samples = consumed(stretch, given.step, reader)
    _note_untrained(given.run, given.step)
    if given.png:
        from mmzoo.training.step_picture import write_step_picture

        write_step_picture(given.png, given.run / CONFIG_FILE, reader, stretch.seed, samples)
        sys.stderr.write(f"wrote {len(samples)} samples to {given.png}\n")
    if given.json:
        sys.stdout.write(json.dumps(_as_json(given.step, stretch, samples), indent=1) + "\n")
    else:
        sys.stdout.write(_text(samples))
    return EXIT_OK


def _note_untrained(run: Path, step: int) -> None:
    record = run / RECORD_FILE
    steps = json.loads(record.read_text(encoding="utf-8")).get("steps") if record.is_file() else None
    if isinstance(steps, int) and step > steps:
        sys.stderr.write(f"note: the run ended after step {steps}; this is what step {step} would consume\n")
