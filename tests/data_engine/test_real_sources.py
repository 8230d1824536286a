"""Sources on real records: photographs and drawings with questions, thermal frames, satellite tiles, radar rasters.

Where no set is in a layout, the test writes real records in that layout.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from data_engine.lint import lint_folder
from data_engine.sources.caption_pairs import CaptionSource
from data_engine.sources.coco import CocoSource
from data_engine.sources.dota import DotaSource
from data_engine.sources.geotiff_pairs import GeotiffPairSource
from data_engine.sources.image_masks import ImageMaskSource
from data_engine.sources.llava import LlavaSource
from data_engine.sources.question_answers import QuestionSource
from data_engine.sources.referring import ReferringSource
from data_engine.sources.zoom_chain import ZoomChainSource
from tests.data_engine.made_sources import built


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]


def lines(file: Path, rows: list[dict]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def aerial(shared) -> Path:
    return shared / "data/optical_rs"


@pytest.fixture(scope="module")
def frames(aerial) -> list[dict]:
    """Six thermal frames with boxes that are also oriented."""
    rows = [row for row in records(aerial) if row["group"] == "hit_uav"]
    return [row for row in rows if all("obb" in entry for entry in row["objects"]) and row["objects"]][:6]


def test_questions_about_science_figures(shared, tmp_path):
    folder = shared / "data/science"
    every = QuestionSource(name="science", annotations=folder / "annotations.jsonl", images=folder)
    samples = list(every.samples())
    assert len(samples) == 1403
    assert sum(sample.number is not None for sample in samples) == 377
    file = lines(tmp_path / "some.jsonl", records(folder)[::100])
    reader = built(tmp_path / "out", QuestionSource(name="science", annotations=file, images=folder))
    for row, sample in enumerate(samples[::100]):
        assert reader.stored(row).images == tuple(image.loaded() for image in sample.images)
        assert reader.stored(row).conversation == sample.conversation
        assert reader.index.facts(row).image_sizes == [(sample.meta["width"], sample.meta["height"])]
    assert lint_folder(tmp_path / "out") == []


def test_dialogs_over_two_pictures(shared, tmp_path):
    folder = shared / "data/science"
    first, second = (row for row in records(folder)[:400:200])
    talk = [{"from": "human", "value": "<image><image> What is asked of them?"}]
    talk += [{"from": "gpt", "value": f"{first['question']} {second['question']}"}]
    file = tmp_path / "talk.json"
    file.write_text(json.dumps([{"image": [first["image"], second["image"]], "conversations": talk}]))
    reader = built(tmp_path / "out", LlavaSource(name="talk", annotations=file, images=folder))
    assert reader.index.facts(0).image_sizes == [(row["width"], row["height"]) for row in (first, second)]
    assert reader.sample(0).fields["image1"].shape == (second["height"], second["width"], 3)


def test_captions_of_satellite_pictures(aerial):
    source = CaptionSource(name="c", annotations=aerial / "annotations.jsonl", images=aerial, caption="captions")
    samples = list(source.samples())
    assert len(samples) == 297
    assert all(sample.text and sample.license and sample.images[0].read()[:2] for sample in samples)


def test_thermal_frames_as_coco_dota_and_referring(aerial, frames, tmp_path):
    images = [{"id": n, "file_name": row["image"]} for n, row in enumerate(frames)]
    labels = sorted({entry["label"] for row in frames for entry in row["objects"]})
    objects = [(n, entry) for n, row in enumerate(frames) for entry in row["objects"]]
    annotations = [
        {
            "image_id": n,
            "category_id": labels.index(entry["label"]),
            "segmentation": [[value for point in entry["obb"] for value in point]],
        }
        for n, entry in objects
    ]
    categories = [{"id": n, "name": label} for n, label in enumerate(labels)]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (tmp_path / "dota").mkdir()
    (tmp_path / "frames").mkdir()
    for row in frames:
        stem = Path(row["image"]).stem
        (tmp_path / "frames" / f"{stem}.jpg").write_bytes((aerial / row["image"]).read_bytes())
        text = [
            " ".join(map(str, np.ravel(o["obb"]))) + f" {o['label']} {int(o.get('ignore', 0))}" for o in row["objects"]
        ]
        (tmp_path / "dota" / f"{stem}.txt").write_text("\n".join(text))
    phrases = [
        {"image_id": frames[n]["image"], "question": f"a {entry['label']}", "bbox": entry["bbox"], "poly": entry["obb"]}
        for n, entry in objects
    ]
    coco = CocoSource(name="coco", annotations=tmp_path / "coco.json", images=aerial, segmentation="quad")
    dota = DotaSource(name="dota", labels=tmp_path / "dota", images=tmp_path / "frames")
    found = {Path(sample.images[0].name).stem: [region.quad for region in sample.regions] for sample in coco.samples()}
    assert found == {Path(sample.images[0].name).stem: [r.quad for r in sample.regions] for sample in dota.samples()}
    assert sum(map(len, found.values())) == len(objects) > 20
    file = lines(tmp_path / "phrases.jsonl", phrases)
    referring = ReferringSource(name="referring", annotations=file, images=aerial)
    assert [sample.regions[0].quad for sample in referring.samples()] == [
        tuple(map(tuple, entry["obb"])) for _, entry in objects
    ]
    reader = built(tmp_path / "out", coco, dota)
    assert reader.index.count == 12
    stored = [{reader.stored(row).images[0].data for row in rows} for rows in (range(6), range(6, 12))]
    assert stored[0] == stored[1]


def test_zoom_chains_over_large_photographs(aerial, tmp_path):
    large = [row for row in records(aerial) if row["image"].startswith("large/")]
    rows = [
        {
            "id": f"{row['id']}-{n}",
            "image": row["image"],
            "image_ori_width": row["width"],
            "image_ori_height": row["height"],
            "question": asked["question"],
            "answer": asked["answer"],
            "bbox_info": {"rbox": [], "crop_hbox": [asked["roi"]]},
        }
        for row in large
        for n, asked in enumerate(row["vqa"])
        if "roi" in asked
    ]
    source = ZoomChainSource(name="zoom", annotations=lines(tmp_path / "zoom.jsonl", rows), images=aerial)
    samples = list(source.samples())
    assert len(samples) == len(rows) > 10
    for sample, row in zip(samples, rows, strict=True):
        assert sample.regions[0].box is not None
        x1, y1, x2, y2 = sample.regions[0].box
        assert 0 <= x1 < x2 <= row["image_ori_width"]
        assert 0 <= y1 < y2 <= row["image_ori_height"]


def test_floods_as_image_and_mask(shared, tmp_path):
    folder = shared / "data/sar/ombria"
    for kind in ("after", "mask"):
        (tmp_path / kind).mkdir()
        for file in sorted((folder / kind).iterdir())[:5]:
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
    source = ImageMaskSource(name="flood", images=tmp_path / "after", masks=tmp_path / "mask", classes={1: "flooded"})
    reader = built(tmp_path / "out", source)
    for row in range(5):
        fields = reader.sample(row).fields
        assert set(np.unique(fields["mask"])) <= {0, 1, 255}
        assert fields["mask"].shape == fields["image"].shape[:2]


def test_radar_rasters_keep_their_place_on_earth(shared, tmp_path):
    folder = shared / "data/sar/s1_water"
    source = GeotiffPairSource(name="water", rasters=folder / "image", partners={"label": folder / "label"})
    reader = built(tmp_path / "out", source)
    assert reader.index.count == 42
    sample, stored = reader.sample(3), reader.stored(3)
    scene = folder / "image" / stored.rasters[0].name
    assert stored.rasters[0].data == scene.read_bytes()
    with rasterio.open(scene) as file, rasterio.MemoryFile(stored.rasters[0].data) as memory, memory.open() as kept:
        assert (kept.crs, kept.transform, kept.nodata) == (file.crs, file.transform, file.nodata)
        assert sample.meta["rasters"][0]["crs"] == file.crs.to_string() == "EPSG:3395"
        assert sample.meta["rasters"][0]["transform"] == list(file.transform)[:6]
        assert np.array_equal(sample.fields["raster"], file.read())
    assert set(np.unique(sample.fields["raster1"])) <= {0, 1, 255}
