"""`mmzoo reconstruct`: encode images and decode them from a growing number of levels."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzoo.durable_files import refused_writes_named, replacing
from mmzoo.errors import CommandParser, InputError

if TYPE_CHECKING:
    from tokenizers_visual.evotok.modeling import EvoTokModel


def _levels(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as fault:
        raise InputError(f"--levels {text!r}: give numbers separated by commas, e.g. --levels 1,2,4.") from fault


def _check_files(files: list[Path], out: Path) -> None:
    """Before the long work: InputError for what is no file, outputs that would collide, a folder that cannot be."""
    for file in files:
        if not file.is_file():
            kind = "is a folder; name the images in it" if file.is_dir() else "does not exist; check the name"
            raise InputError(f"the image {str(file)!r} {kind}.")
    stems = [file.stem for file in files]
    if len(set(stems)) != len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"two of the images are called {twice!r}, so their outputs would collide. Rename one.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Name a folder.")


def _crop(file: Path, size: int) -> Any:
    """The middle of an image as a PIL image, (size, size) px."""
    from PIL import Image

    from data_engine.decode import decode_image
    from tokenizers_visual.evotok.crops import adm_center_crop

    try:
        pixels = decode_image(file.read_bytes())
    except InputError as fault:
        raise InputError(f"{str(file)!r}: {fault}. Leave it out or replace it.") from fault
    except OSError as fault:
        raise InputError(f"{str(file)!r} cannot be read ({fault.strerror}). Leave it out or replace it.") from fault
    return adm_center_crop(Image.fromarray(pixels), size)


def load_tokenizer(source: str) -> EvoTokModel:
    """The EvoTok of a model folder, checkpoint folder or Hub id, in evaluation mode. InputError: another family."""
    from mmzoo.hub.load import from_pretrained
    from tokenizers_visual.evotok.modeling import EvoTokModel

    model = from_pretrained(source)
    if not isinstance(model, EvoTokModel):
        raise InputError(f"{source} is a {model.config.model_type!r}, not an EvoTok. Name an EvoTok's folder.")
    return model


def _load(source: str, levels: list[int] | None) -> tuple[EvoTokModel, list[int]]:
    """The model, and the level counts to decode: those asked for, else what the pixels were trained on."""
    model = load_tokenizer(source)
    wanted = levels or [model.config.pixel_levels]
    if not all(1 <= count <= model.config.levels for count in wanted):
        given = ",".join(map(str, wanted))
        raise InputError(f"--levels {given}: this model has {model.config.levels}. Give 1 to {model.config.levels}.")
    return model, wanted


def _refuse_not_finite(tensors: list[Any]) -> None:
    """InputError instead of pictures that look like some, of a model that has none."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError(
            "the model's output is not finite (NaN or infinite): its training has diverged, or its weights are "
            "damaged. Name an earlier checkpoint, or train again with a lower learning rate."
        )


def _reconstructions(model: EvoTokModel, crop: Any, levels: list[int]) -> dict[int, Any]:
    """What each number of levels gives of a crop, as PIL images of its size."""
    import torch

    from tokenizers_visual.evotok.crops import pixels_to_tensor
    from tokenizers_visual.evotok.processing import EvoTokImageProcessor

    processor = EvoTokImageProcessor(image_size=model.config.image_size)
    images = pixels_to_tensor(crop).unsqueeze(0)
    size = (crop.height, crop.width)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prefix was asked for by name here
        codes, latent = model.encode(images)
        decoded = {count: model.decode_pixels(codes[..., :count], output_size=size) for count in levels}
    _refuse_not_finite([latent, *decoded.values()])
    return {count: processor.postprocess(tensor)[0] for count, tensor in decoded.items()}


def _psnr(first: Any, second: Any) -> float:
    """PSNR in dB of two pictures of one size, on their bytes (peak 255); inf when they are equal."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(np.asarray(first), np.asarray(second), data_range=255))


def _write(out: Path, pictures: dict[str, dict[str, Any]], measured: dict[str, dict[int, float]]) -> int:
    """All pictures and the sheet as PNG files; how many."""
    from tokenizers_visual.evotok.picture_sheet import picture_sheet

    files = {f"{stem}_{end}.png": picture for stem, ends in pictures.items() for end, picture in ends.items()}
    rows = []
    for stem, ends in pictures.items():
        texts = [stem, *(f"{count}: {value:.2f} dB" for count, value in measured[stem].items())]
        rows.append(list(zip(texts, ends.values(), strict=True)))
    files["sheet.png"] = picture_sheet(rows)
    with refused_writes_named(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, picture in files.items():
            with replacing(out / name) as temporary:
                picture.save(temporary, "PNG")
    return len(files)


def _table(measured: dict[str, dict[int, float]], levels: list[int]) -> str:
    """PSNR in dB: a row an image, a column a number of levels; the mean below, where there are several."""
    rows = [(stem, [values[count] for count in levels]) for stem, values in measured.items()]
    if len(rows) > 1:
        rows.append(
            ("mean", [sum(column) / len(column) for column in zip(*(values for _, values in rows), strict=True)])
        )
    width = max(len("PSNR, dB"), *(len(name) for name, _ in rows))
    lines = [f"{'PSNR, dB':<{width}}" + "".join(f"{f'levels {count}':>11}" for count in levels)]
    lines += [f"{name:<{width}}" + "".join(f"{value:>11.2f}" for value in values) for name, values in rows]
    return "\n".join(lines) + "\n"


def _record(out: Path, model: EvoTokModel, levels: list[int], measured: dict[str, dict[int, float]]) -> dict[str, Any]:
    """What --json prints; the PSNR of equal pictures, infinite, is null."""
    receipt = model.load_receipt
    images = [
        {
            "image": stem,
            "input": str(out / f"{stem}_input.png"),
            "levels": {
                str(count): {
                    "psnr_db": value if math.isfinite(value) else None,
                    "picture": str(out / f"{stem}_levels{count}.png"),
                }
                for count, value in values.items()
            },
        }
        for stem, values in measured.items()
    ]
    return {
        "model": receipt.in_brief() if receipt else None,
        "size_px": model.config.image_size,
        "levels": levels,
        "sheet": str(out / "sheet.png"),
        "images": images,
    }


def main(argv: list[str], prog: str) -> int:
    """`mmzoo reconstruct IMAGE... --model FOLDER --out FOLDER [--levels 1,2,4]`: pictures, a sheet, PSNR by level."""
    parser = CommandParser(prog=prog, description="Encode images and decode them, level by level; print the PSNR.")
    parser.add_argument("images", nargs="+", type=Path, help="image files; the middle of each is taken, as a square")
    parser.add_argument("--model", required=True, help="model folder, checkpoint folder or Hub id")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for NAME_input.png, NAME_levelsN.png, sheet.png"
    )
    parser.add_argument("--levels", help="level counts, e.g. 1,2,4; default: those the pixels were trained on")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout")
    arguments = parser.parse_args(argv)
    wanted = _levels(arguments.levels) if arguments.levels is not None else None
    _check_files(arguments.images, arguments.out)
    model, levels = _load(arguments.model, wanted)
    # All are decoded before anything is written: a broken image at the end leaves no half of a set.
    crops = {file.stem: _crop(file, model.config.image_size) for file in arguments.images}
    decoded = {stem: _reconstructions(model, crop, levels) for stem, crop in crops.items()}
    measured = {
        stem: {count: _psnr(crops[stem], picture) for count, picture in of_one.items()}
        for stem, of_one in decoded.items()
    }
    pictures = {
        stem: {"input": crops[stem], **{f"levels{count}": picture for count, picture in of_one.items()}}
        for stem, of_one in decoded.items()
    }
    written = _write(arguments.out, pictures, measured)
    sys.stderr.write(f"wrote {written} images to {arguments.out}\n")
    record = _record(arguments.out, model, levels, measured)
    sys.stdout.write(json.dumps(record, indent=1) + "\n" if arguments.json else _table(measured, levels))
    return 0
