"""The metrics of the suite: what each one's number is. Torch-free, since suite.py shows them."""

from __future__ import annotations

from eval_suites.description import Kind

#: Means over images, in the order of the record.
PER_IMAGE = {
    "psnr": Kind("dB", True),
    "ssim": Kind("", True),
    "ssim_range2": Kind("", True),
    "lpips_vgg": Kind("", False),
    "lpips_alex": Kind("", False),
    "semantic_cosine": Kind("", True),
    "bpp": Kind("bits/px"),
}
CODEC_KINDS = {
    "psnr": Kind("dB", True),
    "ssim": Kind("", True),
    "bpp": Kind("bits/px"),
    "over_budget": Kind(),
}
CODEC_NAMES = ("jpeg", "webp")  #: those of eval_suites.metrics.image_codecs, which imports Pillow
#: Whether a codec's container counts: the part of a name that says so, and the word for it.
COUNTINGS = {"": True, "_bare": False}
RFID, ENTROPY = Kind("", False), Kind("bits/px", False)
USAGE, PERPLEXITY = Kind("", True), Kind("codes", True)


def codec_kinds(names: tuple[str, ...]) -> dict[str, Kind]:
    """The means over images of these codecs, by name."""
    return {
        f"{name}{suffix}_{kind}": CODEC_KINDS[kind] for name in names for suffix in COUNTINGS for kind in CODEC_KINDS
    }


#: Every metric of the suite, without its level.
KINDS = {
    **PER_IMAGE,
    "rfid": RFID,
    "entropy_bpp": ENTROPY,
    "codebook_usage": USAGE,
    "codebook_perplexity": PERPLEXITY,
    **codec_kinds(CODEC_NAMES),
}
