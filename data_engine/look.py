"""`mmzoo data inspect`: what shards hold. `mmzoo data lint`: whether all of it is sound."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_engine.code_fields import CODES
from data_engine.decode import quiet_pillow
from data_engine.index import ShardIndex
from data_engine.lint import lint_folder
from data_engine.reader import ShardReader
from data_engine.remote import is_remote, open_index
from mmzoo.errors import EXIT_FAULT, EXIT_OK, CommandParser, InputError, nearest

FIRST_KEYS = 5
SUGGESTED_FROM = 5000  # keys among which a misspelt one is looked for


def describe(index: ShardIndex) -> dict[str, Any]:
    """Counts, splits, sizes, formats and first keys of a shard folder, as JSON values. Sizes in bytes, sides in px."""
    content = index.content
    longer = np.maximum(index.column("width"), index.column("height"))
    return {
        "folder": str(index.folder),
        "identity": index.identity,
        "kind": content["kind"],
        "source": index.source,
        "samples": index.count,
        "splits": {split: len(index.split_rows(split)) for split in index.splits},
        "shards": len(index.shards),
        "bytes": sum(shard["bytes"] for shard in content["shards"]),
        **{f"{field}_bytes": _bytes_of(index, field) for field in index.fields if field != "json"},
        **{name: content[name] for name in ("formats", CODES) if name in content},
        "first_keys": [index.key(row) for row in range(min(FIRST_KEYS, index.count))],
        "longer_side_px": size_histogram(longer[longer > 0]),  # a sample of text has none
    }


def _bytes_of(index: ShardIndex, field: str) -> int:
    return int(index.column("size")[:, index.fields.index(field)].sum())


def size_histogram(sides: np.ndarray) -> dict[str, int]:
    """How many sides, in px, lie in each range between powers of two, e.g. {"128-255": 12}; empty ends are left out."""
    if not len(sides):
        return {}
    powers = np.floor(np.log2(np.maximum(sides, 1))).astype(int)
    counts = np.bincount(powers)
    return {f"{2**power}-{2 ** (power + 1) - 1}": int(counts[power]) for power in range(powers.min(), len(counts))}


def _description_text(described: dict[str, Any]) -> str:
    histogram = described.pop("longer_side_px")
    width = max(map(len, described))
    lines = [f"{name:<{width}}  {_value_text(value)}" for name, value in described.items()]
    lines += ["", "longer side, px"] if histogram else []
    most = max(histogram.values(), default=0)
    lines += [f"{span:>13}  {count:>9}  {'#' * -(-40 * count // most)}" for span, count in histogram.items()]
    return "\n".join(lines) + "\n"


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value_text(entry)}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _show_sample(index: ShardIndex, key: str, out: Path | None) -> None:
    """Prints the json of a sample; writes its decoded image to `out` as PNG."""
    row = index.find(key)
    if row is None:
        known = [index.key(row) for row in range(min(index.count, SUGGESTED_FROM))]
        match = nearest(key, known)
        close = f" Did you mean {match!r}?" if match else ""
        raise InputError(f"no sample {key!r} in {index.folder}.{close} See: mmzoo data inspect {index.folder}")
    reader = ShardReader(index)
    if out is not None:
        if "image" not in index.fields:
            raise InputError(
                f"{index.folder} holds {', '.join(index.fields)} and no images: --out has nothing to write"
            )
        picture = io.BytesIO()
        Image.fromarray(reader.sample(row).fields["image"]).save(picture, "PNG")
        _write_whole(out, picture.getvalue())
    sys.stdout.write(json.dumps({"key": key, **reader.meta(row)}, indent=1, ensure_ascii=False) + "\n")


def _write_whole(path: Path, data: bytes) -> None:
    building = path.with_name(f".{path.name}.building-{os.getpid()}")
    try:
        building.write_bytes(data)
        building.replace(path)
    except OSError as fault:
        building.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {fault.strerror}. Name another file") from None


def inspect(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data inspect FOLDER`."""
    parser = CommandParser(prog=prog, description="Show what a shard folder holds.")
    parser.add_argument("folder", help="folder that `mmzoo data build` wrote, or its URL")
    parser.add_argument("--sample", metavar="KEY", help="print the json of one sample instead")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="with --sample: write its decoded image there")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    given = parser.parse_args(argv)
    if given.out and not given.sample:
        raise InputError("--out needs --sample KEY: which image to write")
    index = open_index(given.folder)
    if given.sample:
        with quiet_pillow():
            _show_sample(index, given.sample, given.out)
        return EXIT_OK
    described = describe(index)
    if is_remote(given.folder):
        described = {**described, "folder": given.folder, "cached_in": described["folder"]}
    sys.stdout.write(json.dumps(described, indent=1) + "\n" if given.json else _description_text(described))
    return EXIT_OK


def lint(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data lint FOLDER`: exit code 0 when all is sound, 1 when something was found."""
    parser = CommandParser(prog=prog, description="Prove that every sample of a shard folder is sound.")
    parser.add_argument("folder", help="folder of shards, on this machine")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    given = parser.parse_args(argv)
    if is_remote(given.folder):
        raise InputError(f"lint reads every byte of a folder, and {given.folder} is a URL. Copy the shards here first")
    with quiet_pillow():
        findings = lint_folder(Path(given.folder))
    if given.json:
        listed = [asdict(finding) for finding in findings]
        sys.stdout.write(json.dumps({"total": len(listed), "findings": listed}, indent=1) + "\n")
    else:
        sys.stdout.writelines(f"{finding.line()}\n" for finding in findings)
        sys.stdout.write(f"{len(findings)} findings\n" if findings else "sound: no findings\n")
        if findings:
            sys.stderr.write(f"mend with: mmzoo data repair {given.folder} -o NEW\n")
    return EXIT_FAULT if findings else EXIT_OK
