"""The reconstruction suite at a glance; README.md beside it is the protocol."""

from __future__ import annotations

from eval_suites.description import Suite

suite = Suite(
    name="reconstruction",
    version="2",
    title="how close an image tokenizer's output is to its input at each number of levels, and at how many bits",
    metrics=("psnr", "ssim"),
    unit="image",
    measure="eval_suites.reconstruction.measure:measure",
)
