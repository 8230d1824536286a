"""A report that uses every part of the page, from pictures that ship with scikit-image. Nothing in it was trained."""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage import data

from mmzoo.report.record import (
    CodebookUsage,
    Curve,
    CurvePanel,
    Measure,
    MeasureTable,
    Picture,
    PictureGrid,
    PictureRow,
    RunReport,
)

SOURCES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "moon")


def photo(name: str, size: int) -> np.ndarray:
    """uint8 (size, size, 3) or, for grey ones, (size, size): the middle square of a picture of scikit-image."""
    picture = Image.fromarray(getattr(data, name)())
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side)))


def quantised(image: np.ndarray, colours: int, size: int) -> np.ndarray:
    """`image` at fewer pixels and colours, as a coarse reconstruction would be; its shape stays."""
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BOX).quantize(colours, dither=0)
    return np.asarray(small.convert("RGB").resize(image.shape[1::-1], Image.Resampling.BILINEAR))


def pictures(size: int = 160) -> PictureGrid:
    rows = []
    for name in SOURCES:
        image = photo(name, size)
        levels = [quantised(image, colours, side) for colours, side in ((4, 20), (8, 32), (24, 64), (96, 128))]
        captions = [f"{12 + 3.1 * index:.1f} dB" for index in range(4)]
        shown = [Picture(image), *(Picture(level, text) for level, text in zip(levels, captions, strict=True))]
        rows.append(PictureRow(f"{name}, held out", shown))
    columns = ("input", "1 level", "2 levels", "4 levels", "8 levels")
    return PictureGrid("Reconstructions, coarse to fine", columns, rows, "PSNR below each picture.")


def hard_pixels() -> PictureGrid:
    cells = [Picture(photo("astronaut", 28)), Picture(photo("moon", 28), "grey")]
    return PictureGrid("Small pictures", ("colour", "grey"), [PictureRow("", cells)])


def panels(length: int = 600) -> list[CurvePanel]:
    noise = np.random.default_rng(0).normal(size=(4, length))
    steps = tuple(range(1, length + 1))
    at = np.arange(1, length + 1)
    loss = 0.12 + 2.2 * np.exp(-at / 40) + 0.05 * noise[0]
    parts = [0.6 * loss + 0.02 * noise[1], 0.4 * loss + 0.02 * noise[2]]
    gradient = 10 ** (1.5 - at / length * 2 + 0.15 * noise[3])
    gradient[length // 2 : length // 2 + 30] = np.nan
    rate = 3e-4 * np.minimum(at / 60, (1 + np.cos(np.pi * np.maximum(at - 60, 0) / length)) / 2)
    return [
        CurvePanel("Loss", [Curve("train", steps, tuple(loss)), *_validation(length)]),
        CurvePanel(
            "Parts of the loss", [Curve("pixels", steps, tuple(parts[0])), Curve("features", steps, tuple(parts[1]))]
        ),
        CurvePanel("Gradient norm", [Curve("before clipping", steps, tuple(gradient))], logarithmic=True),
        CurvePanel("Learning rate", [Curve("rate", steps, tuple(rate))]),
        CurvePanel(
            "PSNR", [Curve("held out", (100, 200, 300, 400, 500, 600), (14.1, 16.8, 17.9, 18.3, 18.7, 18.8))], "dB"
        ),
        CurvePanel("Throughput", [Curve("train", steps, tuple(180 + 9 * noise[3]))], "images/s"),
        CurvePanel("Restarts", [Curve("codes", (), ())]),
    ]


def _validation(length: int) -> list[Curve]:
    at = np.arange(100, length + 1, 100)
    return [Curve("held out", tuple(at.tolist()), tuple((0.16 + 2.2 * np.exp(-at / 40)).tolist()))]


def full_report(size: int = 160) -> RunReport:
    """A page with all its parts; size: px of the large pictures."""
    psnr = Measure("PSNR, 8 levels", 18.8342, "dB", 17.93, 19.61, 0.95, 6, "images, 48 crops")
    ssim = Measure("SSIM, 8 levels", 0.61234, "", 0.571, 0.652, 0.95, 6, "images, 48 crops")
    lpips = Measure("LPIPS", None, note="no VGG16 weights on this machine; see --lpips-weights")
    speed = Measure("training speed", 181.37, "images/s", n=600, counted="steps")
    return RunReport(
        title="EvoTok tiny, learned from six photographs in one minute",
        summary="A residual tokenizer of 8 levels, trained on crops of six photographs, judged on crops it never saw.",
        command="mmzoo demo evotok --seed 0 --out runs/demo",
        headline=[psnr, ssim, lpips, speed],
        warnings=[
            "Six photographs are far too few to learn from: this page shows that the parts work, not what they can do."
        ],
        grids=[pictures(size), hard_pixels()],
        tables=[
            MeasureTable("Held-out crops", [psnr, ssim, lpips], "Intervals: bootstrap over images, 2,000 draws."),
            MeasureTable(
                "The run",
                [
                    speed,
                    Measure("parameters", 3_214_592),
                    Measure(
                        "gap to JPEG", -0.4, "dB", -1.2, 0.31, 0.95, 6, "images", "at equal bytes, container included"
                    ),
                ],
            ),
        ],
        curves=panels(),
        codebooks=[
            CodebookUsage(
                "Pixel levels",
                512,
                (0.998, 0.97, 0.94, 0.9, 0.81, 0.66, 0.4, 0.002),
                (431.0, 390.2, 351.9, 300.0, 222.2, 140.1, 61.5, 1.0),
                12_288,
            ),
            CodebookUsage(
                "Semantic levels", 16_384, (0.11, 0.09), (1_204.3, 933.1), 2_048, "Counted on held-out crops."
            ),
        ],
        facts={
            "family": "evotok",
            "variant": "tiny",
            "steps": "600",
            "seed": "0",
            "data": "six photographs of scikit-image, 32 crops each",
            "config": "train_configs/evotok/tiny-pretrain.yaml",
        },
        environment={"machine": "2 CPU cores, 8 GiB", "torch": "2.15.0", "precision": "32-true", "time": "58 s"},
        not_measured=[
            "LPIPS: no VGG16 weights on this machine.",
            "rFID: six images are too few for it to mean anything.",
        ],
        notes=["Crops of one photograph count as one image in the intervals."],
    )
