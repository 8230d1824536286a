"""Measures one fold of the study: each held-out picture level by level, and linear probes of every representation.

Writes `pixels.jsonl` (one row a held-out image, model and number of levels: psnr, ssim, semantic_cosine) and
`probes.jsonl` (one row a held-out image and representation: correct). Probes are fitted on training images only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_engine.decode import DecodeRules
from data_engine.index import ShardIndex
from data_engine.reader import ShardReader
from eval_suites.metrics.linear_probe import fit_probe
from eval_suites.metrics.reconstruction import psnr, ssim, to_bytes

BATCH = 32
CELLS = 8  #: pictures are averaged to this many cells a side before a probe sees their pixels


@dataclass(frozen=True)
class Pictures:
    """All pictures of a fold: `paths` and `labels` (N,), `held_out` bool (N,), `images` (N, 3, S, S) in [-1, 1]."""

    paths: list[str]
    labels: np.ndarray
    held_out: np.ndarray
    images: Tensor


def read_pictures(shards: Path, processor: Any, label_of: Callable[[str], str]) -> Pictures:
    """Every picture of a shard folder, resized and cropped by the model's own processor."""
    index = ShardIndex.open(shards)
    reader = ShardReader(index, DecodeRules())
    samples = [reader.sample(row) for row in range(index.count)]
    images = torch.cat([processor(sample.fields["image"])["pixel_values"] for sample in samples])
    paths = [str(sample.meta["path"]) for sample in samples]
    held_out = np.isin(np.arange(index.count), index.split_rows("val"))
    return Pictures(paths, np.array([label_of(path) for path in paths]), held_out, images)


@torch.inference_mode()
def measure_fold(pictures: Pictures, models: Mapping[str, Any], teacher: Any, layer: int, out: Path) -> None:
    """`models`: tokenizers by name. `teacher`: a SigLIP tower, of which hidden state `layer` is the models' target."""
    target = _batched(lambda x: teacher(x, output_hidden_states=True).hidden_states[layer], pictures.images)
    pixels: list[dict[str, Any]] = []
    probes = _probe_rows(pictures, "picture", 0, _cells(pictures.images))
    probes += _probe_rows(pictures, "teacher", 0, target.mean(1))
    for name, model in models.items():
        codes = _batched(lambda x, model=model: model.encode(x)[0], pictures.images)
        latent = _batched(model.encode_latent, pictures.images)
        probes += _probe_rows(pictures, f"{name}: latent, mean", 0, latent.mean((2, 3)))
        for levels in range(1, codes.shape[-1] + 1):
            read = _read_outs(model, codes[..., :levels])
            pixels += _pixel_rows(pictures, name, levels, read["image"], read["semantics"], target)
            probes += [
                row
                for representation, features in _representations(read).items()
                for row in _probe_rows(pictures, f"{name}: {representation}", levels, features)
            ]
    _write_rows(out / "pixels.jsonl", pixels)
    _write_rows(out / "probes.jsonl", probes)


def _read_outs(model: Any, codes: Tensor) -> dict[str, Tensor]:
    """What a prefix of the levels gives: "sum" (N, D, h, w), "image" (N, 3, S, S), "semantics" (N, h*w, C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prefixes that the read-outs were not trained on are the subject
        return {
            "sum": _batched(model.quantizer.decode, codes).float(),
            "image": _batched(model.decode_pixels, codes).float(),
            "semantics": _batched(model.decode_semantics, codes).float(),
        }


def _representations(read: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features (N, D) that a probe sees."""
    return {
        "partial sum, mean": read["sum"].mean((2, 3)),
        "partial sum, all places": read["sum"].flatten(1),
        "semantic read-out, mean": read["semantics"].mean(1),
        "pixel read-out": _cells(read["image"]),
    }


def _cells(images: Tensor) -> Tensor:
    """images (N, 3, S, S) -> (N, 3 * CELLS * CELLS): the mean colour of each cell."""
    return F.adaptive_avg_pool2d(images, CELLS).flatten(1)


def _pixel_rows(
    pictures: Pictures, model: str, levels: int, decoded: Tensor, semantics: Tensor, target: Tensor
) -> Iterator[dict[str, Any]]:
    kept = torch.from_numpy(pictures.held_out)
    truth, found = to_bytes(pictures.images[kept]), to_bytes(decoded[kept])
    cosine = F.cosine_similarity(semantics[kept].double(), target[kept].double(), dim=-1).mean(1)
    figures = zip(psnr(truth, found).tolist(), ssim(truth, found).tolist(), cosine.tolist(), strict=True)
    for number, (decibels, similarity, alike) in zip(np.flatnonzero(pictures.held_out), figures, strict=True):
        row = {"path": pictures.paths[number], "model": model, "levels": levels}
        yield {**row, "psnr": decibels, "ssim": similarity, "semantic_cosine": alike}


def _probe_rows(pictures: Pictures, representation: str, levels: int, features: Tensor) -> list[dict[str, Any]]:
    values, out = features.double().numpy(), pictures.held_out
    probe = fit_probe(values[~out], pictures.labels[~out])
    correct = probe.predict(values[out]) == pictures.labels[out]
    frame = {"representation": representation, "levels": levels, "dimensions": values.shape[1]}
    return [
        {"path": pictures.paths[number], **frame, "correct": bool(hit)}
        for number, hit in zip(np.flatnonzero(out), correct, strict=True)
    ]


def _batched(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    return torch.cat([function(part) for part in values.split(BATCH)])


def _write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
