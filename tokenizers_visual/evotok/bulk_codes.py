"""Pictures to codes in bulk: threads read and crop ahead while the model encodes, shard after shard."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data_engine.broken_samples import BrokenSampleError, Fault
from data_engine.code_fields import CODES, CODES_EXTENSION, CodesField
from data_engine.decode import MAX_PIXELS
from data_engine.index import ShardIndex
from data_engine.progress import tracked
from data_engine.quarantine import BrokenSample, ErrorBudget, Quarantine
from data_engine.shards import ShardWriter
from data_engine.sources.pictures import Picture, Pictures
from mmzoo.durable_files import write_text
from mmzoo.errors import InputError
from mmzoo.ops.exact_float32 import exact_float32
from tokenizers_visual.evotok.code_folder import CodeFolder, FinishedShard, opened
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.processing import EvoTokImageProcessor

#: Batches that are read before the model asks for them.
BATCHES_AHEAD = 3
#: More than this is a slip of the finger that would end in the system's refusal of memory or threads.
MOST = {"batch_size": 4096, "workers": 256, "shard_samples": 10_000_000}
LARGEST_SIDE = 4096  #: px


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """How to encode. The first five decide what is written, and are recorded; the rest only how fast.

    `levels` of each position are kept. Pictures become (size, size) px by `resize`: "adm_center_crop" or "stretch".
    `shard_samples`: pictures a shard. `fast`: bfloat16 autocast, whose codes differ from the exact ones.
    """

    levels: int
    size: int
    resize: Literal["adm_center_crop", "stretch"] = "adm_center_crop"
    shard_samples: int = 8192
    fast: bool = False
    batch_size: int = 32
    workers: int = 4
    budget: ErrorBudget = field(default_factory=ErrorBudget)


@dataclass(frozen=True, slots=True)
class EncodeSummary:
    """What stands at `output` now. `encoded`: pictures that this run did, of `images` in all.

    `agreement`: with `fast`, the share of codes per level equal to the exact ones in the first batch.
    """

    output: str
    identity: str
    images: int
    encoded: int
    broken: int
    skipped: int
    shards: int
    bytes: int
    codes: dict[str, Any]
    rules: dict[str, int]
    seconds: float
    agreement: list[float] | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A picture of a row with its crop (3, size, size) in [-1, 1], or why there is none (None: no image at all)."""

    row: int
    picture: Picture | None = None
    crop: Tensor | None = None
    fault: Fault | None = None


def recorded_settings(model: EvoTokModel, pictures: Pictures, settings: EncodeSettings) -> dict[str, Any]:
    """What encode.json holds: all that decides the bytes of the shards. Names of folders are no part of it."""
    receipt = model.load_receipt
    return {
        "source": {"kind": pictures.kind, "name": pictures.name, "identity": pictures.identity, **pictures.reading},
        "model": {"files": receipt.files if receipt else {}, "config": _sizes_of(model)},
        "levels": settings.levels,
        "size": settings.size,
        "resize": settings.resize,
        "shard_samples": settings.shard_samples,
        "fast": settings.fast,
    }


def _sizes_of(model: EvoTokModel) -> dict[str, Any]:
    names = ("image_size", "patch_size", "codebook_size", "latent_dim", "pixel_levels", "semantic_levels")
    return {name: getattr(model.config, name) for name in names}


def encode_pictures(
    model: EvoTokModel, pictures: Pictures, output: Path, settings: EncodeSettings, receipt_name: str | None = None
) -> EncodeSummary:
    """Codes of all pictures as shards at `output`, continuing what is there. `receipt_name`: file for the receipt.

    InputError: unusable settings, an `output` that is something else, the error budget spent. Finished shards stay.
    """
    _check(model, settings)
    start = time.monotonic()
    with opened(output, recorded_settings(model, pictures, settings)) as folder:
        if receipt_name and model.load_receipt is not None:
            write_text(output / receipt_name, json.dumps(model.load_receipt.as_json(), indent=1) + "\n")
        encoded = 0 if folder.complete else _Encoder(model, pictures, settings, folder).run()
        return _summary(folder, encoded, time.monotonic() - start)


def _check(model: EvoTokModel, settings: EncodeSettings) -> None:
    config = model.config
    if not 1 <= settings.levels <= config.levels:
        raise InputError(f"--levels {settings.levels}: this model has {config.levels}. Give 1 to {config.levels}")
    _check_size(settings.size, config.patch_size, config.image_size)
    if settings.resize not in ("adm_center_crop", "stretch"):
        raise InputError(f"--resize {settings.resize!r}: give adm_center_crop or stretch, which make one size of all")
    for name, most in MOST.items():
        given = getattr(settings, name)
        if not 1 <= given <= most:
            bound = "at least 1" if given < 1 else f"at most {most:,}"
            raise InputError(f"--{name.replace('_', '-')} {given}: give {bound}")


def _check_size(size: int, patch: int, own: int) -> None:
    """A size that the patch does not divide would lose its last rows unseen; the model's own, as it was trained, may.

    InputError: that, less than a patch, or more than LARGEST_SIDE.
    """
    if size < patch:
        raise InputError(f"--size {size}: a patch has {patch} px. Give at least that")
    if size > LARGEST_SIDE:
        raise InputError(f"--size {size}: give at most {LARGEST_SIDE} px")
    if size % patch and size != own:
        below = size // patch * patch
        raise InputError(
            f"--size {size}: patches of {patch} px do not divide it, its last rows would be lost. Give {below} or "
            f"{below + patch}"
        )


class _Encoder:
    """One run over the shards that are not finished yet."""

    def __init__(self, model: EvoTokModel, pictures: Pictures, settings: EncodeSettings, folder: CodeFolder) -> None:
        self.model, self.pictures, self.settings, self.folder = model, pictures, settings, folder
        self.processor = EvoTokImageProcessor(settings.size, settings.resize)
        grid = settings.size // model.config.patch_size
        self.field = CodesField.of((grid, grid, settings.levels), model.config.codebook_size)
        self.quarantine = Quarantine(settings.budget, pictures.count, folder.quarantine)
        self.agreement: list[float] | None = None

    def run(self) -> int:
        """Encodes what is missing, then writes the index; how many pictures this run encoded."""
        count, size = self.pictures.count, self.settings.shard_samples
        shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
        records = {number: self.folder.finished(number) for number in range(len(shards))}
        missing = [number for number, record in records.items() if record is None]
        encoded = 0
        with ThreadPoolExecutor(self.settings.workers) as pool:
            rows = [row for number in missing for row in shards[number]]
            ready = tracked(self._read_ahead(pool, rows), "encoding", len(rows))
            try:
                for number in missing:
                    records[number] = self._encode_shard(number, itertools.islice(ready, len(shards[number])))
                    encoded += len(records[number].key)  # pyright: ignore[reportOptionalMemberAccess]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        self._finish([record for record in records.values() if record is not None])
        return encoded

    def _read_ahead(self, pool: ThreadPoolExecutor, rows: list[int]) -> Iterator[_Ready]:
        """The pictures of the rows in order, a bounded number of them read in advance."""
        waiting: deque[Future[_Ready]] = deque()
        upcoming = iter(rows)
        for row in itertools.islice(upcoming, BATCHES_AHEAD * self.settings.batch_size):
            waiting.append(pool.submit(self._ready, row))
        while waiting:
            ready = waiting.popleft().result()
            for row in itertools.islice(upcoming, 1):
                waiting.append(pool.submit(self._ready, row))
            yield ready

    def _ready(self, row: int) -> _Ready:
        try:
            picture = self.pictures.read(row)
            return _Ready(row) if picture is None else _Ready(row, picture, self._crop(picture))
        except BrokenSampleError as error:
            return _Ready(row, fault=error.fault)

    def _crop(self, picture: Picture) -> Tensor:
        height, width, _ = picture.pixels.shape
        scaled = self.settings.size**2 * max(height, width) / min(height, width)
        if self.settings.resize == "adm_center_crop" and scaled > MAX_PIXELS:
            reason = f"{width} x {height} px: too long and narrow to be scaled to {self.settings.size} px"
            in_folder = self.pictures.kind == "folder"
            fault = Fault(self.pictures.name, picture.path, picture.key, 0, reason, in_folder)
            raise BrokenSampleError(fault, "Crop it, or take it out")
        return self.processor.preprocess(picture.pixels)["pixel_values"][0]

    def _encode_shard(self, number: int, ready: Iterator[_Ready]) -> FinishedShard:
        with self.folder.writing(number) as (writer, record):
            rules: Counter[str] = Counter()
            while batch := list(itertools.islice(ready, self.settings.batch_size)):
                self._leave_out(batch, record)
                sound = [(one.row, one.picture, one.crop) for one in batch if one.picture and one.crop is not None]
                if not sound:
                    continue
                codes = self._codes(torch.stack([crop for _, _, crop in sound]))
                for (row, picture, _), of_one in zip(sound, codes, strict=True):
                    rules.update(picture.rules)
                    self._add(writer, record, row, picture, of_one)
            record.rules = dict(sorted((+rules).items()))
            if self.agreement is not None:
                record.notes["agreement"] = self.agreement
        return record

    def _leave_out(self, batch: list[_Ready], record: FinishedShard) -> None:
        broken = [BrokenSample(one.fault, "all", epoch=0, position=one.row) for one in batch if one.fault]
        record.broken += len(broken)
        record.skipped += sum(one.picture is None and one.fault is None for one in batch)
        self.quarantine.add(broken)

    def _add(self, writer: ShardWriter, record: FinishedShard, row: int, picture: Picture, codes: Any) -> None:
        members = {CODES_EXTENSION: self.field.pack(codes), **picture.members}
        places = writer.add(picture.key, members)
        record.key.append(picture.key)
        record.row.append(row)
        record.path.append(picture.path)
        record.sha256.append(picture.sha256)
        record.height.append(picture.pixels.shape[0])
        record.width.append(picture.pixels.shape[1])
        record.offset.append([place.offset for place in places])
        record.size.append([place.size for place in places])

    @torch.inference_mode()
    def _codes(self, crops: Tensor) -> Any:
        """crops (B, 3, S, S) -> codes (B, h, w, levels) as a numpy array."""
        images = crops.to(self.model.device)
        if not self.settings.fast:
            with exact_float32(images.device.type):
                codes, latent = self.model.encode(images)
        else:
            with torch.autocast(images.device.type, torch.bfloat16):
                codes, latent = self.model.encode(images, fast=True)
            if self.agreement is None:
                self.agreement = self._agreement(images, codes)
        if not bool(latent.isfinite().all()):
            raise InputError("the model's latent is not finite. Look at its training: it has diverged")
        return codes[..., : self.settings.levels].cpu().numpy()

    def _agreement(self, images: Tensor, codes: Tensor) -> list[float]:
        """Share of `codes` (B, h, w, L) per level that are the exact ones."""
        with exact_float32(images.device.type):
            exact, _ = self.model.encode(images)
        return (codes == exact).flatten(0, 2).double().mean(0)[: self.settings.levels].tolist()

    def _finish(self, records: list[FinishedShard]) -> None:
        def joined(name: str) -> list[Any]:
            return [value for record in records for value in getattr(record, name)]

        if not joined("key"):
            raise InputError(
                f"no sound image among the {self.pictures.count} of {self.pictures.name}. Broken ones are listed in "
                f"{self.folder.quarantine}"
            )
        rules: Counter[str] = Counter()
        for record in records:
            rules.update(record.rules)
        notes = [record.notes["agreement"] for record in records if "agreement" in record.notes]
        description = {
            "source": self.pictures.name,
            "fields": [CODES, *self.pictures.other_fields],
            CODES: self.field.as_json(),
            "rules": dict(sorted(rules.items())),
            "rejected": sum(record.broken for record in records),
            "skipped": sum(record.skipped for record in records),
            "encode": {**self.folder.settings, "agreement": notes[0] if notes else None},
        }
        splits = self.pictures.splits(joined("row"), joined("path"), joined("sha256"))
        self.folder.finish(records, splits, description)


def _summary(folder: CodeFolder, encoded: int, seconds: float) -> EncodeSummary:
    index = ShardIndex.open(folder.folder)
    content = index.content
    return EncodeSummary(
        output=str(folder.folder),
        identity=index.identity,
        images=index.count,
        encoded=encoded,
        broken=content["rejected"],
        skipped=content["skipped"],
        shards=len(index.shards),
        bytes=sum(shard["bytes"] for shard in content["shards"]),
        codes=content[CODES],
        rules=content["rules"],
        seconds=round(seconds, 3),
        agreement=content["encode"]["agreement"],
    )
