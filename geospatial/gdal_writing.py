"""Writes through GDAL that are refused, as one line: its errors name the last step, not the reason, and libtiff tells
the reason to nobody but stderr.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from mmzoo.durable_files import NoSpaceError
from mmzoo.errors import InputError

STDERR = 2
#: How lines of libtiff's own begin.
LIBTIFF = b"_tiff"
FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


@contextmanager
def gdal_writes_named(target: Path) -> Iterator[None]:
    """Turns what GDAL and rasterio raise into an InputError that names `target`; NoSpaceError, when the disk is full.

    What others write to stderr meanwhile comes out at the end.
    """
    with tempfile.TemporaryFile() as heard:
        try:
            with _stderr_to(heard):
                yield
        except (RasterioError, CPLE_BaseError) as fault:
            raise _refusal(target, fault, _lines(heard)) from fault
        finally:
            for line in _lines(heard):
                if not line.startswith(LIBTIFF):
                    os.write(STDERR, line)


@contextmanager
def _stderr_to(file: BinaryIO) -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(STDERR)
    os.dup2(file.fileno(), STDERR)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, STDERR)
        os.close(kept)


def _lines(file: BinaryIO) -> list[bytes]:
    file.seek(0)
    return file.readlines()


def _refusal(target: Path, fault: BaseException, heard: list[bytes]) -> InputError:
    texts = [" ".join(str(each).split()) for each in _causes(fault)]
    told = [*texts, *(line.decode(errors="replace") for line in heard)]
    full = next((reason for reason in FULL if any(reason in text for text in told)), None)
    kind = InputError if full is None else NoSpaceError
    return kind(f"{target} cannot be written ({full or texts[-1]}). Free space, or choose a writable folder")


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    """A fault and what led to it, the first reason last."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__
