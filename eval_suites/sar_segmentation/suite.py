"""The segmentation suite at a glance; README.md beside it is the protocol."""

from __future__ import annotations

from eval_suites.description import Kind, Suite
from eval_suites.sar_segmentation.options import OPTIONS

SCORES = ("miou", "iou", "mf1", "f1", "oa", "macc", "kappa", "boundary_miou", "boundary_iou", "image_miou")
DROPS = ("miou_drop", "mf1_drop", "oa_drop", "macc_drop", "kappa_drop", "boundary_miou_drop")

suite = Suite(
    name="sar_segmentation",
    version="1",
    title="how well class maps of rasters agree with masks, over whole sets, at edges, and from source to target",
    metrics=(*SCORES, *DROPS),
    unit="raster, or group of rasters",
    measure="eval_suites.sar_segmentation.counts:count",
    evaluate="eval_suites.sar_segmentation.evaluate:evaluate",
    remake="eval_suites.sar_segmentation.figures:remake",
    options=OPTIONS,
    subject="segmentation models, which give each pixel of a raster the probabilities of its classes",
    needs=("segment",),
    kinds={**dict.fromkeys(SCORES, Kind("", True)), **dict.fromkeys(DROPS, Kind("", False))},
    headline=("miou", "mf1", "oa", "kappa", "boundary_miou", "image_miou", "miou_drop"),
)
