"""`mmzoo encode`: a folder of images, or shards of them, becomes shards of codes; a killed run is continued."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzoo.errors import EXIT_OK, CommandParser, InputError

if TYPE_CHECKING:
    from data_engine.sources.pictures import Pictures
    from tokenizers_visual.evotok.bulk_codes import EncodeSummary

SUFFIX = "Continue a killed or failed run with the same command: finished shards are kept."


def _parser(prog: str) -> CommandParser:
    parser = CommandParser(prog=prog, description=f"{__doc__} {SUFFIX}")
    add = parser.add_argument
    add("source", type=Path, metavar="SRC", help="folder of images, or of shards that `mmzoo data build` wrote")
    add("--model", required=True, help="model folder, checkpoint folder or Hub id")
    add("-o", "--out", type=Path, required=True, metavar="DST", help="folder for the shards of codes")
    add("--levels", type=int, help="levels to keep of each position (default: all that the model has)")
    add("--size", type=int, help="px, side of the square that is encoded (default: the model's image_size)")
    resize = ("adm_center_crop", "stretch")
    add("--resize", choices=resize, default=resize[0], help="how a picture becomes a square (default: %(default)s)")
    add("--batch-size", type=int, default=32, help="pictures at a time; codes do not depend on it (default 32)")
    add("--workers", type=int, default=4, help="threads that read and crop beside the model (default 4)")
    add("--shard-samples", type=int, default=8192, help="pictures a shard (default 8192)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default auto: a GPU where there is one)")
    add("--fast", action="store_true", help="bfloat16: faster on a GPU, other codes; the agreement is measured")
    add("--background", choices=["white"], help="colour under transparent pixels (default: alpha is dropped)")
    add("--val-fraction", type=float, default=0.1, help="of a folder: share of groups in the split 'val' (default 0.1)")
    add("--max-broken", type=int, help="broken pictures to leave out before giving up (default: none)")
    add("--max-broken-share", type=float, help="the same as a share of all, 0 to 1")
    add("--json", action="store_true", help="print the summary as JSON on stdout")
    return parser


def _pictures(given: Any) -> Pictures:
    from data_engine.decode import DecodeRules
    from data_engine.sources.pictures import open_pictures

    source, output = given.source.resolve(), given.out.resolve()
    if output == source or output in source.parents:
        raise InputError(f"the output {given.out} would hold the images themselves. Name another output folder")
    if not 0 <= given.val_fraction <= 1:
        raise InputError(f"--val-fraction {given.val_fraction} is not between 0 and 1")
    rules = DecodeRules(background=given.background, fast=True)
    return open_pictures(given.source, rules, given.val_fraction, leave_out=given.out)


def _encode(given: Any) -> EncodeSummary:
    from data_engine.quarantine import ErrorBudget
    from mmzoo.hub.device import usable_device
    from tokenizers_visual.evotok.bulk_codes import EncodeSettings, encode_pictures
    from tokenizers_visual.evotok.code_folder import RECEIPT_FILE
    from tokenizers_visual.evotok.reconstruct import load_tokenizer

    budget = ErrorBudget(given.max_broken, given.max_broken_share)
    pictures = _pictures(given)
    device = usable_device(given.device)
    model = load_tokenizer(given.model).to(device)  # pyright: ignore[reportArgumentType] - transformers wraps it
    settings = EncodeSettings(
        levels=model.config.levels if given.levels is None else given.levels,
        size=model.config.image_size if given.size is None else given.size,
        resize=given.resize,
        shard_samples=given.shard_samples,
        fast=given.fast,
        batch_size=given.batch_size,
        workers=given.workers,
        budget=budget,
    )
    return encode_pictures(model, pictures, given.out, settings, RECEIPT_FILE)


def summary_text(summary: EncodeSummary) -> str:
    """The summary for people, a few lines."""
    shape = " x ".join(map(str, summary.codes["shape"]))
    done = "all there already" if not summary.encoded else f"{summary.encoded} encoded in {summary.seconds:.1f} s"
    lines = [
        f"{summary.images} images ({done}), {shape} codes each as {summary.codes['dtype']}, "
        f"in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB: {summary.output}"
    ]
    rules = ", ".join(f"{name} {count}" for name, count in summary.rules.items() if name != "decoded")
    lines += [f"image rules: {rules}"] if rules else []
    lines += [f"no images, skipped: {summary.skipped}"] if summary.skipped else []
    lines += [f"broken, left out: {summary.broken}, listed in quarantine.jsonl"] if summary.broken else []
    if summary.agreement is not None:
        shares = " ".join(f"{share:.3f}" for share in summary.agreement)
        lines.append(f"share of codes equal to the exact ones, level by level (first batch): {shares}")
    return "\n".join(lines)


def main(argv: list[str], prog: str) -> int:
    """`mmzoo encode SRC --model M -o DST`."""
    from data_engine.decode import quiet_pillow

    given = _parser(prog).parse_args(argv)
    with quiet_pillow():
        summary = _encode(given)
    if given.json:
        sys.stdout.write(json.dumps(asdict(summary), indent=1) + "\n")
    else:
        sys.stderr.write(summary_text(summary) + "\n")
    return EXIT_OK
