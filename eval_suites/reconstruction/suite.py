"""The reconstruction suite at a glance; README.md beside it is the protocol."""

from __future__ import annotations

from eval_suites.description import Suite
from eval_suites.reconstruction.kinds import KINDS
from eval_suites.reconstruction.options import OPTIONS

suite = Suite(
    name="reconstruction",
    version="2",
    title="how close an image tokenizer's output is to its input, at each number of levels and at how many bits",
    metrics=tuple(KINDS),
    unit="image",
    measure="eval_suites.reconstruction.measure:measure",
    evaluate="eval_suites.reconstruction.evaluate:evaluate",
    options=OPTIONS,
    subject="image tokenizers, which encode a picture as codes and decode its pixels from them",
    needs=("encode", "decode_pixels"),
    kinds=KINDS,
    headline=("psnr", "ssim", "lpips_vgg", "rfid", "semantic_cosine", "bpp"),
)
