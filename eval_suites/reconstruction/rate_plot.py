"""The rate-distortion curve as a picture: PSNR over bits a px, the tokenizer's prefixes beside the codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmzoo.report.plot_record import PointGroup, PointPanel
from mmzoo.report.plots import point_chart

TEMPLATE = "rate_distortion.svg.jinja"
#: What a method's bits are: a photograph of 128 px in a few hundred bytes is mostly header, so both are drawn.
NAMES = {
    "tokenizer": "tokenizer: codes, no header",
    "jpeg": "JPEG: whole file",
    "jpeg_bare": "JPEG: container left out",
    "webp": "WebP: whole file",
    "webp_bare": "WebP: container left out",
}


def curve_svg(curve: Sequence[Mapping[str, Any]], what: str) -> str:
    """The curve (see rate_distortion.py) as an SVG file. what: size of the images and the like, for the title.

    Points whose PSNR is infinite or absent cannot be drawn, and the legend says how many those are.
    """
    groups = [_group(curve, method) for method in dict.fromkeys(row["method"] for row in curve)]
    panel = PointPanel(f"Rate and distortion, {what}", "bits a px", "mean PSNR, dB", groups)
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(c=point_chart(panel))


def _group(curve: Sequence[Mapping[str, Any]], method: str) -> PointGroup:
    own = [row for row in curve if row["method"] == method]
    drawn = [row for row in own if isinstance(row["bpp"], float) and isinstance(row["psnr"], float)]
    over = sum(1 for row in own if isinstance(row["over_budget"], float) and row["over_budget"] > 0)
    notes = [f"{len(own) - len(drawn)} not drawn: exact"] if len(drawn) < len(own) else []
    notes += [f"{over} of {len(own)} over budget"] if over else []
    name = NAMES.get(method, method) + (f" ({', '.join(notes)})" if notes else "")
    points = sorted((row["bpp"], row["psnr"]) for row in drawn)
    return PointGroup(name, [x for x, _ in points], [y for _, y in points])
