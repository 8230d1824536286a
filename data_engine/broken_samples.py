"""What is wrong with one sample, and where: the record that travels from a worker to the quarantine file.

A sample is broken when its own bytes are: an image that cannot be decoded, a json that cannot be read, a transform that
refuses it. A shard that is gone or cut is no broken sample, and neither is a fault in a program.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmzoo.errors import InputError


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken sample. `offset`: of the faulty member, in bytes into the shard.

    Of a folder of files, which has no shards: `shard` is the path below the folder and `offset` 0; `in_folder` says so
    in messages and is no part of the quarantine file.
    """

    source: str
    shard: str
    key: str
    offset: int
    reason: str
    in_folder: bool = False

    @property
    def where(self) -> str:
        """Source, shard, key and byte offset, or source and file, for messages."""
        if self.in_folder:
            return f"source {self.source}, file {self.shard}"
        return f"source {self.source}, shard {self.shard}, key {self.key}, offset {self.offset}"


class BrokenSampleError(InputError):
    """A sample cannot be read: `fault` says which and why, `remedy` what to do about it."""

    def __init__(self, fault: Fault, remedy: str) -> None:
        super().__init__(f"{fault.where}: {fault.reason}. {remedy}")
        self.fault = fault
