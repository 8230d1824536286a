"""`mmzoo data why RUN --step N`: the samples that an optimiser step consumed, where they lie, and how they looked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from data_engine.batch_plan import LoaderSettings, ledger_of
from data_engine.data_order import folders_moved, open_order
from data_engine.index import INDEX_FOLDER
from data_engine.ledger import Ledger, rank_window, sample_generator
from data_engine.mixed_source import MixedReader
from data_engine.pack_ledger import PackLedger
from data_engine.reader import ShardReader
from data_engine.remote import DEFAULT_CACHE_GB, RemoteSettings, open_index
from data_engine.sample_source import SampleReader
from data_engine.steps import Stretch, from_json, stretch_of
from mmzoo.errors import EXIT_OK, CommandParser, InputError
from mmzoo.training.run_files import CONFIG_FILE, DATA_STEPS_FILE, RECORD_FILE

if TYPE_CHECKING:
    from mmzoo.training.data_module import ShardData

SHARD_DATA = "mmzoo.training.data_module.ShardData"
#: Who read a sample, and where it stands.
SLOT_COLUMNS = ("position", "epoch", "batch", "slot", "rank", "place", "member")
COLUMNS = (*SLOT_COLUMNS, "source", "shard", "offset", "size", "key", "path")
#: Of packs.
PACK_COLUMNS = (*SLOT_COLUMNS, "tokens", "source", "shard", "offset", "size", "key", "path")
#: Of sources that have files in the place of shards, where a sample is a window of one.
FILE_COLUMNS = (*SLOT_COLUMNS[:-1], "source", "key", "window", "path")


@dataclass(frozen=True, slots=True)
class ConsumedSample:
    """One sample of a step.

    `position`, `epoch`: in the virtual sequence. `batch`: which of the step's batches (accumulation). `slot`: place in
    that batch over all ranks; `rank`, `place`: who read it, and where it stands in that rank's part; `member`: its
    place in its pack, where samples are packed (slots and places then count packs). `source`, `shard`,
    `key`: the sample; `offset`, `size`: its first member in the shard, in bytes; `path`: of the file it was built from.
    `window`: (top, left, height, width) in px where the transform reads a window of a file; then `shard` is that file's
    name, `offset` 0 and `size` the file's.
    `tokens`: in a pack, from and to (excluded), where the sample was planned to stand; behind one that was broken, or
    made shorter than planned, samples move up. `planned`: what the transform was told of it, see over_long.py.
    """

    position: int
    epoch: int
    batch: int
    slot: int
    rank: int
    place: int
    member: int
    source: str
    shard: str
    key: str
    offset: int
    size: int
    path: str
    row: int
    window: tuple[int, ...] | None = None
    tokens: tuple[int, int] | None = None
    planned: dict[str, Any] | None = None

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


def open_reader(stretch: Stretch, moved: Sequence[str], remote: RemoteSettings) -> ShardReader | MixedReader:
    """A reader of what the steps were trained on; `remote`: where shards from a URL are kept.

    InputError when it is gone or not the same any more.
    """
    if stretch.order:
        mixed = open_order(stretch.order, folders_moved(stretch.order, moved), remote)
        reader: ShardReader | MixedReader = MixedReader(mixed)
    else:
        reader = ShardReader(open_index(moved[-1] if moved else stretch.index, remote))
    if reader.index.identity != stretch.identity:
        raise InputError(
            f"the shards in {reader.index.folder} are not those of this step. Give the old ones with --index"
        )
    return reader


def shard_cache(run: Path) -> RemoteSettings:
    """Where the run kept the shards that it fetched; the default where nothing says."""
    config = run / CONFIG_FILE
    options = _data_section(config).get("init_args", {}) if config.is_file() else {}
    return RemoteSettings(
        Path(options["cache_dir"]) if options.get("cache_dir") else None, options.get("cache_gb", DEFAULT_CACHE_GB)
    )


def _data_section(config: Path) -> dict[str, Any]:
    return yaml.safe_load(config.read_text(encoding="utf-8"))["data"]


def data_of_files(run: Path, stretch: Stretch) -> ShardData | None:
    """The run's own data module where it reads files and no shards (rasters), else None.

    InputError when the files are gone or not the same any more.
    """
    config = run / CONFIG_FILE
    if stretch.order or (Path(stretch.index) / INDEX_FOLDER).is_dir() or not config.is_file():
        return None
    if _data_section(config)["class_path"] == SHARD_DATA:
        return None
    from mmzoo.training.step_picture import data_of_config

    data = data_of_config(config)
    if data.open_index().identity != stretch.identity:
        raise InputError(f"the files below {data.index_folder} are not those of this step, or were changed since")
    return data


def consumed(stretch: Stretch, step: int, reader: SampleReader, transform: Any = None) -> list[ConsumedSample]:
    """The samples of the update number `step`, in the order of batch, slot and member.

    `transform`: tells the windows of samples that are files.
    """
    settings = LoaderSettings(stretch.index, stretch.split, stretch.global_batch, stretch.seed)
    ledger = ledger_of(settings, reader.index)
    found = []
    for batch, positions in enumerate(stretch.positions_of(step)):
        windows = [rank_window(0, len(positions), rank, stretch.ranks) for rank in range(stretch.ranks)]
        for slot, position in enumerate(positions):
            rank = next(rank for rank, (start, stop) in enumerate(windows) if start <= slot < stop)
            epoch, rows = ledger.rows_at(position)
            here = {"position": position, "epoch": epoch, "batch": batch, "slot": slot, "rank": rank}
            here["place"] = slot - windows[rank][0]
            packed = _in_pack(ledger, rows)
            for member, row in enumerate(rows):
                if isinstance(reader, ShardReader | MixedReader):
                    where = _in_shard(reader, row)
                else:
                    where = _in_file(reader, row, transform, sample_generator(stretch.seed, epoch, position, member))
                found.append(ConsumedSample(**here, member=member, row=row, **where, **packed[member]))
    return found


def _in_pack(ledger: Ledger, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Where each sample of a pack stands in it; of a single sample nothing."""
    if not isinstance(ledger, PackLedger):
        return [{} for _ in rows]
    ends = np.cumsum(ledger.plan.total[rows]).tolist()
    starts = [0, *ends[:-1]]
    return [
        {"tokens": (start, end), "planned": ledger.plan.of_row(row)}
        for row, start, end in zip(rows, starts, ends, strict=True)
    ]


def _in_shard(reader: ShardReader | MixedReader, row: int) -> dict[str, Any]:
    place = reader.fault(row, reader.index.fields[0], "")
    where = {"source": place.source, "shard": place.shard, "offset": place.offset, "size": reader.size(row)}
    return {**where, "key": reader.key(row), "path": str(reader.meta(row).get("path", ""))}


def _in_file(reader: SampleReader, row: int, transform: Any, random: Any) -> dict[str, Any]:
    sample, place = reader.sample(row), reader.fault(row, reader.index.fields[0], "")
    path = Path(str(sample.meta["path"])).absolute()
    where = {"source": sample.source, "shard": place.shard, "offset": place.offset, "size": path.stat().st_size}
    window = tuple(transform.window_of(sample, random)) if hasattr(transform, "window_of") else None
    return {**where, "key": sample.key, "path": str(path), "window": window}


def _text(samples: Sequence[ConsumedSample]) -> str:
    columns = COLUMNS if samples[0].window is None else FILE_COLUMNS
    columns = columns if samples[0].tokens is None else PACK_COLUMNS
    rows = [columns, *(tuple(_cell(name, getattr(sample, name)) for name in columns) for sample in samples)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    lines = ("  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return (":" if name == "tokens" else ",").join(map(str, value))


def _as_json(step: int, stretch: Stretch, samples: Sequence[ConsumedSample]) -> dict[str, Any]:
    rows = [{"sample_id": sample.sample_id, **asdict(sample)} for sample in samples]
    for row in rows:
        del row["row"]
        for name in ("window", "tokens", "planned"):
            if row[name] is None:
                del row[name]
    return {"step": step, "index": stretch.index, "skipped_positions": list(stretch.skips), "samples": rows}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of `mmzoo fit`, or one of its checkpoint folders")
    parser.add_argument("--step", type=int, required=True, help="update number, as in metrics.csv")
    parser.add_argument(
        "--index",
        action="append",
        default=[],
        metavar="FOLDER",
        help="where the shards lie now, if they were moved; for a mixture NAME=FOLDER, once for each moved source",
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the samples as the model saw them")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data why`."""
    given = _parser(prog).parse_args(argv)
    run, png = given.run.absolute(), given.png and given.png.absolute()
    moved = [_absolute(text) for text in given.index]
    stretch = stretch_of(read_history(given.run), given.step)
    with _where_it_ran(run):
        data = None if moved else data_of_files(run, stretch)
        if data is None:
            reader: SampleReader = open_reader(stretch, moved, shard_cache(run))
            samples = consumed(stretch, given.step, reader)
        else:
            reader = data.open_reader(data.loader_settings(stretch.split))
            samples = consumed(stretch, given.step, reader, data.transform)
        _note_untrained(run, given.step)
        if png:
            from mmzoo.training.step_picture import write_step_picture

            write_step_picture(png, run / CONFIG_FILE, reader, stretch.seed, samples)
            sys.stderr.write(f"wrote {len(samples)} samples to {given.png}\n")
    if given.json:
        sys.stdout.write(json.dumps(_as_json(given.step, stretch, samples), indent=1) + "\n")
    else:
        sys.stdout.write(_text(samples))
    return EXIT_OK


def _absolute(moved: str) -> str:
    """FOLDER or NAME=FOLDER with the whole path; an address as it is."""
    name, equals, folder = moved.rpartition("=") if not Path(moved).exists() else ("", "", moved)
    return f"{name}{equals}{folder if '://' in folder else Path(folder).absolute()}"


@contextmanager
def _where_it_ran(run: Path) -> Iterator[None]:
    """In the folder that relative paths of the run's config start from, where it still is."""
    records = [place / RECORD_FILE for place in (run, run.parent.parent)]
    record = next((file for file in records if file.is_file()), None)
    known = json.loads(record.read_text(encoding="utf-8")).get("working_directory") if record else None
    with chdir(known if known and Path(known).is_dir() else Path.cwd()):
        yield


def _note_untrained(run: Path, step: int) -> None:
    record = run / RECORD_FILE
    steps = json.loads(record.read_text(encoding="utf-8")).get("steps") if record.is_file() else None
    if isinstance(steps, int) and step > steps:
        sys.stderr.write(f"note: the run ended after step {steps}; this is what step {step} would consume\n")
