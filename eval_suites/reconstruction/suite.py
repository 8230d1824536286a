"""The reconstruction suite at a glance, torch-free; README.md beside it is the protocol."""

from __future__ import annotations

from eval_suites.description import Option, Suite, whole_numbers

suite = Suite(
    name="reconstruction",
    version="1",
    title="PSNR and SSIM of an image tokenizer at each number of decoded levels, and how its codebooks are used",
    metrics=("psnr", "ssim"),
    unit="image",
    measure="eval_suites.reconstruction.measure:measure",
    evaluate="eval_suites.reconstruction.evaluate:evaluate",
    options=(
        Option("levels", "numbers of decoded levels, e.g. 1,2,4 (default: those the pixels train on)", whole_numbers),
    ),
)
