"""CrossEarth-SAR at a glance, torch-free: names, variants and where each part lives."""

from __future__ import annotations

from typing import Any

from mmzoo.families import Command, Family

#: The fixture size: 64 tokens and CLS, all quirks of the full model (spec section 8). Its branches start open, since it
#: is trained from nothing.
TINY: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "layerscale_value": 0.1,
    "descriptor_block": 8,
}

#: The demo's size: backscatter in dB, and descriptors of the power behind it, so that looks are looks.
TINY_DEMO: dict[str, Any] = {
    **TINY,
    "domain": "db",
    "value_range": [-35.0, 5.0],
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.2, 0.2, 0.2],
    "descriptor_input": "raster",
}

#: DINOv2 ViT-S, B and L at patch 16 and 512 px, six experts in every block, one a token (spec section 1.1).
S: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
B: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
L: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}

family = Family(
    name="crossearth_sar",
    task="radar image encoder: DINOv2 with sparse experts, chosen by token and by the physics of the image",
    paper="CrossEarth-SAR, arXiv 2603.12008",
    licence="Apache-2.0 (this code); the authors' code and weights could not be seen, nor their licence",
    config="geospatial.crossearth_sar.configuration:CrossEarthSARConfig",
    model="geospatial.crossearth_sar.modeling:CrossEarthSARModel",
    processor="geospatial.crossearth_sar.processing:CrossEarthSARImageProcessor",
    official="geospatial.crossearth_sar.official",
    contract="geospatial.crossearth_sar.contract",
    stages={
        "pretraining": "geospatial.crossearth_sar.training:CrossEarthSARSegmentation",
        "fine_tuning": "geospatial.crossearth_sar.training:FineTuning",
    },
    other_models={
        "AutoModelForSemanticSegmentation": (
            "geospatial.crossearth_sar.segmentation_model:CrossEarthSARForSegmentation"
        ),
    },
    demo="geospatial.crossearth_sar.demo:main",
    suites=("sar_segmentation",),
    variants={"tiny": TINY, "tiny-demo": TINY_DEMO, "S": S, "B": B, "L": L},
)

commands = {
    "segment": Command(
        "geospatial.crossearth_sar.segment:main", "class maps of whole scenes: Cloud Optimized GeoTIFF, any size"
    ),
    "benchmarks list": Command(
        "geospatial.crossearth_sar.benchmark_command:list_main", "show the radar benchmarks and their data sets"
    ),
    "benchmarks build": Command(
        "geospatial.crossearth_sar.benchmark_command:build_main", "make lists and masks of a radar benchmark"
    ),
    "pseudo-label": Command(
        "geospatial.crossearth_sar.pseudo_label:main", "label rasters by segmentation models, with confidence and votes"
    ),
}
