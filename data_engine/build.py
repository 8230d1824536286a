"""`mmzoo data build images SRC DST`: a folder of images becomes webdataset shards with an index, or nothing.
`mmzoo data build -c CONFIG`: so do conversations, captions, detections, masks, rasters of several sources.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_engine.byte_size import byte_size
from data_engine.decode import quiet_pillow
from data_engine.image_shards import DEFAULT_VAL_FRACTION, BuildSettings, BuildSummary, build_image_shards
from data_engine.output_folder import REJECTED_FILE
from mmzoo.errors import EXIT_OK, CommandParser, InputError

__all__ = ["BuildSettings", "BuildSummary", "build_image_shards", "byte_size", "main", "summary_text"]

NAMED_FILES = 10  # of each list in the summary


def summary_text(summary: BuildSummary) -> str:
    """The summary for people, several lines."""
    splits = ", ".join(f"{count} {name}" for name, count in summary.splits.items())
    lines = [
        f"{summary.images} images ({splits}) in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB: {summary.output}"
    ]
    rules = ", ".join(f"{name} {count}" for name, count in summary.rules.items() if name != "decoded")
    lines += [f"image rules: {rules}"] if rules else []
    for title, names in (
        ("skipped, no images", summary.skipped),
        (f"rejected, see {REJECTED_FILE}", [f"{item['path']}: {item['reason']}" for item in summary.rejected]),
        ("same content, kept", [f"{second} = {first}" for first, second in summary.duplicates]),
    ):
        if names:
            lines.append(f"{title} ({len(names)}):")
            lines += [f"  {name}" for name in names[:NAMED_FILES]]
            lines += [f"  ... and {len(names) - NAMED_FILES} more"] if len(names) > NAMED_FILES else []
    return "\n".join(lines)


def _parser(prog: str) -> CommandParser:
    parser = CommandParser(prog=prog, description=__doc__, epilog=f"A config is explained by: {prog} -c FILE --help")
    add = parser.add_argument
    add("kind", choices=["images"], help="what the files are")
    add("source", type=Path, metavar="SRC", help="folder of images, at any depth")
    add("output", type=Path, metavar="DST", help="folder for the shards: new, empty, or with --overwrite")
    add("--val-fraction", type=float, help=f"share of groups in the split 'val' (default {DEFAULT_VAL_FRACTION})")
    add("--split-file", type=Path, help='JSON {"relative path": "train" or "val"} instead of --val-fraction')
    add("--group", metavar="REGEX", help="its first capture group in a path names what stays in one split")
    add("--shard-size", default="256MB", help="size that a shard stays below (default 256MB)")
    add("--overwrite", action="store_true", help="replace a shard set of ours at DST")
    add("--json", action="store_true", help="print the summary as JSON on stdout")
    return parser


def _from_config(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data build -c CONFIG`; its modules are imported here, the kind `images` needs none of them."""
    from dataclasses import replace

    from data_engine.build_config import __doc__ as keys
    from data_engine.build_config import read_config
    from data_engine.build_records import build_from_config

    parser = CommandParser(prog=prog, description=keys, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="YAML file, see above")
    parser.add_argument("--workers", type=int, help="processes, instead of the config's")
    parser.add_argument("--overwrite", action="store_true", help="replace a shard set of ours at the output")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    given = parser.parse_args(argv)
    config = read_config(given.config)
    if given.workers is not None and given.workers < 1:
        raise InputError(f"--workers {given.workers}: 1 or more are needed")
    config = replace(config, workers=given.workers or config.workers, overwrite=given.overwrite or config.overwrite)
    with quiet_pillow():
        build_from_config(config, given.json)
    return EXIT_OK


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data build`."""
    if set(argv) & {"-c", "--config"}:
        return _from_config(argv, prog)
    given = _parser(prog).parse_args(argv)
    settings = BuildSettings(
        source=given.source,
        output=given.output,
        val_fraction=given.val_fraction,
        split_file=given.split_file,
        group=given.group,
        shard_bytes=byte_size(given.shard_size),
        overwrite=given.overwrite,
    )
    with quiet_pillow():
        summary = build_image_shards(settings)
    if given.json:
        sys.stdout.write(json.dumps(asdict(summary), indent=1) + "\n")
    else:
        sys.stderr.write(summary_text(summary) + "\n")
    return EXIT_OK
