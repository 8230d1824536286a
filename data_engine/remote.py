"""Shards that lie at a URL: the side index is fetched when opened, each shard, whole, when first read.

    https://host/sets/photos    s3://bucket/photos    hf://datasets/owner/name/photos    file:///mnt/photos

The folder of the cache is named after the identity of the index, so a set that changed at its URL is another set.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_engine.download import Transfer, expecting, expecting_hash, expecting_json, fetch
from data_engine.flush import flush
from data_engine.index import INDEX_FILE, INDEX_FOLDER, ShardIndex, read_description
from data_engine.shard_cache import ShardCache, locked
from mmzoo.errors import InputError

URL = re.compile(r"[a-z][a-z0-9+.-]*://.+")
#: Names from a foreign index become paths here.
SAFE_SHARD, SAFE_COLUMN = re.compile(r"[A-Za-z0-9_-][\w.-]*\.tar"), re.compile(r"\w+")
DEFAULT_CACHE_GB = 50.0


def is_remote(place: Path | str) -> bool:
    """Whether shards lie at a URL, and not in a folder."""
    return isinstance(place, str) and URL.fullmatch(place) is not None


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Where fetched shards are kept: `cache_dir` (default: mmzoo/shards in the user's cache folder) and how many GB
    (10**9 bytes) of them; the side indexes, some 40 bytes a sample, come on top.
    """

    cache_dir: Path | None = None
    cache_gb: float = DEFAULT_CACHE_GB
    transfer: Transfer = field(default_factory=Transfer)

    def __post_init__(self) -> None:
        if self.cache_gb <= 0:
            raise InputError(f"data.init_args.cache_gb must be above 0, not {self.cache_gb}")

    @property
    def folder(self) -> Path:
        """The cache folder."""
        if self.cache_dir is not None:
            return self.cache_dir.absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmzoo" / "shards"


def open_index(place: Path | str, settings: RemoteSettings | None = None) -> ShardIndex:
    """The index of a shard folder, or of shards at a URL. InputError as of ShardIndex.open and fetch."""
    if is_remote(place):
        return RemoteIndex.at(str(place), settings or RemoteSettings())
    return ShardIndex.open(place)


class RemoteIndex(ShardIndex):
    """An index whose shards are fetched into the cache when they are read."""

    max_open = 1  # an open shard is one that the cache cannot let go

    def __init__(
        self, folder: Path, content: dict[str, Any], identity: str, url: str, settings: RemoteSettings
    ) -> None:
        super().__init__(folder, content, identity)
        self.url = url
        self.settings = settings
        self._cache = ShardCache(settings.folder, int(settings.cache_gb * 1e9))

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteIndex, (self.folder, self.content, self.identity, self.url, self.settings)

    @property
    def remedy(self) -> str:
        """What to do about broken samples."""
        return f"Check the original of {self.url} with: mmzoo data lint FOLDER"

    @classmethod
    def at(cls, url: str, settings: RemoteSettings) -> RemoteIndex:
        """Fetches the side index, checks each of its columns, and opens it; no shard is fetched."""
        url = url.rstrip("/")
        if "?" in url:
            raise InputError(f"{url} has a query, to which no file name can be added. Give the address of the folder")
        cache = settings.folder
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".incoming-", dir=cache) as incoming:
                content, identity = _fetch_description(url, Path(incoming), settings)
                folder = cache / identity[:32]
                (folder / INDEX_FOLDER).mkdir(parents=True, exist_ok=True)
                with locked(folder / ".index.lock"):
                    _fetch_columns(url, folder, content, settings)
                    (Path(incoming) / INDEX_FOLDER / INDEX_FILE).replace(folder / INDEX_FOLDER / INDEX_FILE)
        except OSError as fault:
            raise InputError(
                f"the shard cache {cache} cannot be used ({fault.strerror}). Name another data.init_args.cache_dir"
            ) from None
        index = cls(folder, content, identity, url, settings)
        for name in content["columns"]:
            index.column(name)
        return index

    def open_shard(self, shard: int) -> int:
        """A descriptor of a shard, fetched if need be. InputError: it cannot be had."""
        listed = self.content["shards"][shard]
        address = f"{self.url}/{listed['name']}"
        check = expecting(listed["bytes"], listed["sha256"])
        try:
            return self._cache.open(
                self.paths[shard], listed["bytes"], lambda file: fetch(address, file, self.settings.transfer, check)
            )
        except OSError as fault:
            raise InputError(
                f"{address} cannot be kept in {self.folder} ({fault.strerror}). Name another data.init_args.cache_dir"
            ) from None


def _fetch_description(url: str, folder: Path, settings: RemoteSettings) -> tuple[dict[str, Any], str]:
    """The parsed index.json, fetched into `folder`, and its identity."""
    file = folder / INDEX_FOLDER / INDEX_FILE
    file.parent.mkdir()
    address = f"{url}/{INDEX_FOLDER}/{INDEX_FILE}"
    fetch(address, file, settings.transfer, expecting_json)
    try:
        content, identity = read_description(folder)
        names = [shard["name"] for shard in content["shards"] if shard["bytes"] and shard["sha256"]]
        columns = [name for name, listed in content["columns"].items() if listed["sha256"]]
    except (InputError, LookupError, TypeError, AttributeError) as fault:
        reason = str(fault).replace(str(file), "it")
        raise InputError(f"{address} is not an index of shards: {reason}") from None
    odd = [name for name in names if not SAFE_SHARD.fullmatch(name)]
    odd += [name for name in columns if not SAFE_COLUMN.fullmatch(name)]
    if odd:
        raise InputError(f"{address} names a file {odd[0]!r}, which may lead out of the folder: refused. Ask its maker")
    return content, identity


def _fetch_columns(url: str, folder: Path, content: dict[str, Any], settings: RemoteSettings) -> None:
    for name, listed in content["columns"].items():
        file = folder / INDEX_FOLDER / f"{name}.npy"
        if file.exists():  # it got its name after it was checked
            continue
        partial = file.with_name(f".{name}.npy.partial")
        try:
            fetch(f"{url}/{INDEX_FOLDER}/{file.name}", partial, settings.transfer, expecting_hash(listed["sha256"]))
            flush(partial)
            shutil.move(partial, file)
        finally:
            partial.unlink(missing_ok=True)
