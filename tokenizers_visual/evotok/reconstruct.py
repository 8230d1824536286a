"""`mmzoo reconstruct`: encode images and decode them from a growing number of levels."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from mmzoo.errors import InputError


def _levels(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as fault:
        raise InputError(f"--levels {text!r}: give numbers separated by commas, e.g. --levels 1,2,4.") from fault


def main(argv: list[str], prog: str) -> int:
    """`mmzoo reconstruct IMAGE... --model FOLDER --out FOLDER [--levels 1,2,4]`: PNG files, input beside each level."""
    parser = argparse.ArgumentParser(prog=prog, description="Encode images and decode them, level by level.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", required=True, help="model folder, checkpoint folder or Hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME_input.png, NAME_levelsN.png")
    parser.add_argument(
        "--levels", default=None, help="level counts, e.g. 1,2,4; default: those the pixels were trained on"
    )
    arguments = parser.parse_args(argv)
    wanted = _levels(arguments.levels) if arguments.levels else None
    stems = [file.stem for file in arguments.images]
    if len(set(stems)) != len(stems):
        raise InputError("two of the images have the same name, so their outputs would collide. Rename one.")
    import torch
    from PIL import Image

    from data_engine.decode import decode_image
    from mmzoo.hub.load import from_pretrained
    from tokenizers_visual.evotok.crops import adm_center_crop, pixels_to_tensor
    from tokenizers_visual.evotok.modeling import EvoTokModel
    from tokenizers_visual.evotok.processing import EvoTokImageProcessor

    pictures = []
    for file in arguments.images:
        if not file.is_file():
            raise InputError(f"there is no image {file}.")
        try:
            pictures.append(decode_image(file.read_bytes(), None, None))
        except InputError as fault:
            raise InputError(f"{file}: {fault}") from fault
    model = from_pretrained(arguments.model)
    if not isinstance(model, EvoTokModel):
        raise InputError(f"{arguments.model} is a {model.config.model_type!r}, not an EvoTok.")
    wanted = wanted or [model.config.pixel_levels]
    if not all(1 <= count <= model.config.levels for count in wanted):
        raise InputError(f"--levels {wanted}: this model has levels 1 to {model.config.levels}.")
    processor = EvoTokImageProcessor(image_size=model.config.image_size)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prefix was asked for by name here
        for file, pixels in zip(arguments.images, pictures, strict=True):
            crop = adm_center_crop(Image.fromarray(pixels), model.config.image_size)
            images = pixels_to_tensor(crop).unsqueeze(0)
            codes, _ = model.encode(images)
            processor.postprocess(images)[0].save(arguments.out / f"{file.stem}_input.png")
            for count in wanted:
                decoded = model.decode_pixels(codes[..., :count])
                processor.postprocess(decoded)[0].save(arguments.out / f"{file.stem}_levels{count}.png")
    sys.stderr.write(f"wrote {len(pictures) * (1 + len(wanted))} images to {arguments.out}\n")
    return 0
