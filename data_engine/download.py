"""One file from a URL to the disk through fsspec, tried again when the way there fails.

A drop, a stall, a transfer that is cut, a server that answers 5xx and bytes that are not the expected ones may all pass
by themselves; a file that is not there, a refusal and a full disk do not, and end the attempts at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmzoo.errors import InputError

MAX_PAUSE = 30.0  # seconds
WORTH_ANOTHER_TRY = {408, 425, 429}  # of the 4xx: timeout, too early, too many requests
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR}
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


@dataclass(frozen=True, slots=True)
class Transfer:
    """How patient to be. `timeout`: seconds without a byte (HTTP; s3 and others have their own). `backoff`: seconds
    before the second attempt; each further pause is twice as long, at most 30 s.
    """

    attempts: int = 5
    timeout: float = 60.0
    backoff: float = 1.0


class WrongBytesError(OSError):
    """What arrived is not what was expected; the message says in what it differs."""


def fetch(url: str, target: Path, transfer: Transfer, check: Callable[[Path], None] | None = None) -> None:
    """Copies a URL to `target`, which may be left half written on an error.

    `check(target)` raises WrongBytesError to have it fetched again. InputError, one line with URL, attempts and last
    reason: it cannot be had.
    """
    import aiohttp

    for attempt in range(1, transfer.attempts + 1):
        try:
            _copy(url, target, transfer.timeout)
            if check is not None:
                check(target)
            return
        except (OSError, aiohttp.ClientError) as fault:
            if attempt == transfer.attempts or not _may_pass(fault):
                raise InputError(_refusal(url, attempt, fault)) from None
        time.sleep(min(MAX_PAUSE, transfer.backoff * 2 ** (attempt - 1)))


def expecting(size: int, sha256: str) -> Callable[[Path], None]:
    """The check of a file whose bytes are known by number and hash."""

    def check(file: Path) -> None:
        found = file.stat().st_size
        if found != size:
            raise WrongBytesError(f"{found} bytes arrived, the index says {size}")
        expecting_hash(sha256)(file)

    return check


def expecting_json(file: Path) -> None:
    """The check of a JSON file of which nothing is known beforehand: a transfer that was cut shows in most cases."""
    try:
        json.loads(file.read_bytes())
    except (ValueError, RecursionError) as fault:
        raise WrongBytesError(f"what arrived is not JSON ({fault})") from None


def expecting_hash(sha256: str) -> Callable[[Path], None]:
    """The check of a file whose hash is known."""

    def check(file: Path) -> None:
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                raise WrongBytesError("the sha256 of what arrived is not that of the index")

    return check


def _copy(url: str, target: Path, timeout: float) -> None:
    import aiohttp
    import fsspec

    protocol = url.partition("://")[0]
    options = {}
    if protocol in ("http", "https"):
        options["timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
    try:
        filesystem, path = fsspec.url_to_fs(url, **options)
    except ImportError:
        package = PACKAGES.get(protocol, f"fsspec's package for {protocol}")
        raise InputError(f"{url} needs a package that is not installed. Try: pip install {package}") from None
    except ValueError as fault:
        raise InputError(f"{url} cannot be read ({fault}). Known are file, http, https, s3, hf") from None
    filesystem.get_file(path, str(target))


def _may_pass(fault: Exception) -> bool:
    import aiohttp

    if isinstance(fault, aiohttp.ClientResponseError):
        return not 400 <= fault.status < 500 or fault.status in WORTH_ANOTHER_TRY
    if isinstance(fault, aiohttp.InvalidURL | FileNotFoundError | PermissionError):
        return False
    return not isinstance(fault, OSError) or fault.errno not in FATAL


def _refusal(url: str, attempts: int, fault: Exception) -> str:
    import aiohttp

    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    if isinstance(fault, aiohttp.TooManyRedirects):
        reason = "the server sends in a circle"
    elif isinstance(fault, aiohttp.ClientResponseError):
        reason = " ".join(f"the server answers {fault.status} {fault.message}".split())
    elif isinstance(fault, FileNotFoundError):
        reason = "there is no such file"
    elif isinstance(fault, TimeoutError):
        reason = "nothing more arrived (timeout)"
    else:
        reason = " ".join(str(fault).split()) or type(fault).__name__
    advice = "Check the address and the permissions" if not _may_pass(fault) else "Try again later, or copy the shards"
    if isinstance(fault, WrongBytesError):
        advice = "If it stays so, the original is damaged: check it with mmzoo data lint"
    elif isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "Free space, or name another data.init_args.cache_dir"
    return f"{url} could not be fetched, {tries}, at last: {reason}. {advice}"
