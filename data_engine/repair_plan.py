"""What a repair keeps of damaged shards, decided sample by sample while they are checked; nothing is written here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_engine.code_fields import CODES_EXTENSION, CodesField
from data_engine.lint_content import content_faults, kind_of
from data_engine.records import RECORD_SCHEMA, SAMPLE_SCHEMA
from data_engine.removals import LEFT_OUT
from data_engine.tar_groups import Finding, Group, Member, key_faults
from mmzoo.errors import InputError

COPY_LEFT_OUT, MENDED, LOST = "copy left out", "mended", "lost"


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that was done, a line of repairs.jsonl. `action`: LEFT_OUT, COPY_LEFT_OUT (another sample of the key
    stays), MENDED, or LOST (the index lists `samples` of the shard that are in no tar). `offset`: bytes into the shard.
    """

    shard: str
    key: str | None
    offset: int | None
    action: str
    why: str
    samples: int = 0

    def as_json(self) -> dict[str, Any]:
        """The line; `samples` where it says something."""
        line = {"shard": self.shard, "key": self.key, "offset": self.offset, "action": self.action, "check": "repair"}
        return {**line, "why": self.why, **({"samples": self.samples} if self.samples else {})}


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A sound sample: where its members lie, (extension, byte offset, size) each, and the sha256 over their bytes."""

    key: str
    tar: Path
    members: tuple[tuple[str, int, int], ...]
    digest: str


@dataclass(slots=True)
class RepairPlan:
    """Judges the samples that lint visits. `kind`: of the shards; where no index says it, None until a sample does.

    `unknown_left_out`: samples of an unknown schema version are left out, instead of ending the repair.
    """

    kind: str | None
    codes: CodesField | None
    unknown_left_out: bool = False
    inferred: bool = False
    kept: dict[str, KeptSample] = field(default_factory=dict)
    repairs: list[Repair] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    found: int = 0
    visited: set[Finding] = field(default_factory=set)

    def visit(self, tar: Path, group: Group, faults: Sequence[Finding]) -> None:
        """Decides on one sample. InputError: what no repair can judge, a schema version or a kind that is unknown."""
        self.found += 1
        self.keys.add(group.key)
        self.visited.update(faults)
        self._check_schema(tar, group)
        sound = group if not faults else self._mended(tar, group, faults)
        if sound is None:
            return
        why = self._foreign(tar, sound)
        if why:
            self._note(tar, group, LEFT_OUT, why)
        elif sound.key in self.kept:
            first = self.kept[sound.key].tar.name
            self._note(tar, group, COPY_LEFT_OUT, f"duplicate key, the one in {first} stays")
        else:
            places = tuple((member.extension, member.offset, len(member.data)) for member in sound.members)
            self.kept[sound.key] = KeptSample(sound.key, tar, places, digest_of(each.data for each in sound.members))

    def _mended(self, tar: Path, group: Group, faults: Sequence[Finding]) -> Group | None:
        """The group without what does not belong to it, when the rest is sound; otherwise it is left out."""
        bad_key = next((what for member in group.members for what in key_faults(member.name, group.key)), None)
        members, dropped = _without_strays(group.members)
        rest = replace(group, members=members)
        inside = list(content_faults(tar.name, rest, self.codes)) if members and not bad_key else []
        if bad_key or not members or inside:
            self._note(tar, group, LEFT_OUT, bad_key or (inside if members else faults)[0].what)
            return None
        for member, why in dropped:
            self.repairs.append(Repair(tar.name, group.key, member.offset, MENDED, f"member taken out: {why}"))
        if any(what.what.startswith("key out of order") for what in faults):
            self._note(tar, group, MENDED, "key out of order: put where it belongs")
        return rest

    def _foreign(self, tar: Path, group: Group) -> str | None:
        """Why a sound sample is none of these shards, or None. InputError: nothing says which kind they are."""
        kind = kind_of(group, self.codes)
        if self.kind is None:
            self.kind, self.inferred = kind, True
        if kind == self.kind:
            return None
        if self.inferred:
            raise InputError(
                f"{tar}: key {group.key} is of {kind}, others are of {self.kind}, and no index says which it should "
                "be. Move tars of one kind to a folder of their own"
            )
        return f"a sample of {kind} among {self.kind}"

    def _check_schema(self, tar: Path, group: Group) -> None:
        if self.codes is None and any(member.extension == CODES_EXTENSION for member in group.members):
            raise InputError(
                f"{tar}: key {group.key} holds codes, and no index says what they must be. Encode again: mmzoo encode"
            )
        for member in group.members:
            version = _schema_version(member.data) if member.extension == "json" else None
            if version in (None, SAMPLE_SCHEMA, RECORD_SCHEMA) or self.unknown_left_out:
                continue
            raise InputError(
                f"{tar}: key {group.key} has schema version {version}, this mmzoo knows {SAMPLE_SCHEMA} and "
                f"{RECORD_SCHEMA}. Update mmzoo; if its json is damaged, give --leave-out-unknown"
            )

    def _note(self, tar: Path, group: Group, action: str, why: str) -> None:
        self.repairs.append(Repair(tar.name, group.key, group.offset, action, why))

    def finished(self, findings: Sequence[Finding]) -> list[Repair]:
        """All that is done, in the order of the shards. `findings`: all of lint; those of samples are known."""
        mended = [
            Repair(each.shard, each.key, each.offset, MENDED, each.what)
            for each in findings
            if each not in self.visited
        ]
        settled = [
            replace(each, action=COPY_LEFT_OUT) if each.action == LEFT_OUT and each.key in self.kept else each
            for each in self.repairs
        ]
        return sorted([*mended, *settled], key=lambda each: (each.shard, each.offset or 0))


def digest_of(parts: Any) -> str:
    """sha256 over the bytes of members, one after the other."""
    digest = hashlib.sha256()
    for data in parts:
        digest.update(data)
    return digest.hexdigest()


def _without_strays(members: Sequence[Member]) -> tuple[list[Member], list[tuple[Member, str]]]:
    """The members that may belong to a sample; those that do not, and why: foreign ones, and second copies."""
    kept: list[Member] = []
    dropped: list[tuple[Member, str]] = []
    for member in members:
        if member.faults:
            dropped.append((member, member.faults[0]))
        elif any(each.extension == member.extension and each.data == member.data for each in kept):
            dropped.append((member, f"member {member.name!r} is there twice, with the same bytes"))
        else:
            kept.append(member)
    return kept, dropped


def _schema_version(data: bytes) -> int | None:
    """The schema version that a json states, None where it states none that is a number."""
    try:
        version = json.loads(data.decode("utf-8"))["schema_version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return version if isinstance(version, int) and not isinstance(version, bool) else None
