"""The reconstruction suite at a glance; README.md beside it is the protocol."""

from __future__ import annotations

from eval_suites.description import Suite
from eval_suites.reconstruction.options import OPTIONS

suite = Suite(
    name="reconstruction",
    version="2",
    title="how close an image tokenizer's output is to its input, at each number of levels and at how many bits",
    metrics=(
        *("psnr", "ssim", "ssim_range2", "lpips_vgg", "lpips_alex", "semantic_cosine", "rfid"),
        *("bpp", "entropy_bpp", "codebook_usage", "codebook_perplexity"),
        *(f"{codec}_{kind}" for codec in ("jpeg", "webp") for kind in ("psnr", "ssim", "bpp", "over_budget")),
        *(f"{codec}_bare_{kind}" for codec in ("jpeg", "webp") for kind in ("psnr", "ssim", "bpp", "over_budget")),
    ),
    unit="image",
    measure="eval_suites.reconstruction.measure:measure",
    evaluate="eval_suites.reconstruction.evaluate:evaluate",
    options=OPTIONS,
    headline=("psnr", "ssim", "lpips_vgg", "rfid", "semantic_cosine", "bpp"),
)
