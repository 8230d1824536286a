"""`mmzoo reconstruct`: encode images and decode them from a growing number of levels."""

from __future__ import annotations

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


def _load(source: str, levels: list[int] | None) -> tuple[EvoTokModel, list[int]]:
    """The model, and the level counts to decode: those asked for, else what the pixels were trained on."""
    from mmzoo.hub.load import from_pretrained
    from tokenizers_visual.evotok.modeling import EvoTokModel

    model = from_pretrained(source)
    if not isinstance(model, EvoTokModel):
        raise InputError(f"{source} is a {model.config.model_type!r}, not an EvoTok. Name an EvoTok's folder.")
    wanted = levels or [model.config.pixel_levels]
    if not all(1 <= count <= model.config.levels for count in wanted):
        given = ",".join(map(str, wanted))
        raise InputError(f"--levels {given}: this model has {model.config.levels}. Give 1 to {model.config.levels}.")
    return model, wanted


def _reconstructions(model: EvoTokModel, crop: Any, levels: list[int]) -> dict[str, Any]:
    """The crop and what each number of levels gives, as PIL images, by the end of their file names."""
    import torch

    from tokenizers_visual.evotok.crops import pixels_to_tensor
    from tokenizers_visual.evotok.processing import EvoTokImageProcessor

    processor = EvoTokImageProcessor(image_size=model.config.image_size)
    images = pixels_to_tensor(crop).unsqueeze(0)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prefix was asked for by name here
        codes, _ = model.encode(images)
        decoded = {f"levels{count}": model.decode_pixels(codes[..., :count]) for count in levels}
    return {end: processor.postprocess(tensor)[0] for end, tensor in {"input": images, **decoded}.items()}


def main(argv: list[str], prog: str) -> int:
    """`mmzoo reconstruct IMAGE... --model FOLDER --out FOLDER [--levels 1,2,4]`: PNG files, input beside each level."""
    parser = CommandParser(prog=prog, description="Encode images and decode them, level by level.")
    parser.add_argument("images", nargs="+", type=Path, help="image files; the middle of each is taken, as a square")
    parser.add_argument("--model", required=True, help="model folder, checkpoint folder or Hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME_input.png, NAME_levelsN.png")
    parser.add_argument("--levels", help="level counts, e.g. 1,2,4; default: those the pixels were trained on")
    arguments = parser.parse_args(argv)
    wanted = _levels(arguments.levels) if arguments.levels is not None else None
    _check_files(arguments.images, arguments.out)
    model, levels = _load(arguments.model, wanted)
    # All are decoded before anything is written: a broken image at the end leaves no half of a set.
    crops = {file.stem: _crop(file, model.config.image_size) for file in arguments.images}
    with refused_writes_named(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
        for stem, crop in crops.items():
            for end, picture in _reconstructions(model, crop, levels).items():
                with replacing(arguments.out / f"{stem}_{end}.png") as temporary:
                    picture.save(temporary, "PNG")
    sys.stderr.write(f"wrote {len(crops) * (1 + len(levels))} images to {arguments.out}\n")
    return 0
