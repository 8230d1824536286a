"""Each raw layout, on small fakes and on damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_engine.sources.caption_pairs import CaptionSource
from data_engine.sources.coco import CocoSource
from data_engine.sources.dota import DotaSource
from data_engine.sources.geotiff_pairs import GeotiffPairSource
from data_engine.sources.image_masks import ImageMaskSource
from data_engine.sources.llava import LlavaSource
from data_engine.sources.question_answers import QuestionSource
from data_engine.sources.referring import ReferringSource
from data_engine.sources.source import Source
from data_engine.sources.zoom_chain import ZoomChainSource
from data_engine.stored_sample import Region, StoredSample, Turn
from mmzoo.errors import InputError

TALK = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]


def written(folder: Path, rows, name: str = "rows.json") -> Path:
    file = folder / name
    lines = name.endswith("l")
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    return file


def only(source: Source) -> StoredSample:
    (sample,) = source.samples()
    return sample


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_llava_reads_text_one_image_and_several(tmp_path, name):
    several = [{"role": "user", "content": "<image><image> which?"}, {"role": "assistant", "content": "the first"}]
    rows = [
        {"id": "x", "image": "a/b.jpg", "conversations": TALK},
        {"conversations": [{"from": "system", "value": "be brief"}, {"from": "human", "value": "hi"}]},
        {"images": ["a.jpg", "b.jpg"], "messages": several},
    ]
    source = LlavaSource(name="Talk 1", annotations=written(tmp_path, rows, name), images=tmp_path, license="MIT")
    one, text, two = source.samples()
    assert [sample.key for sample in (one, text, two)] == [f"talk_1-{number:09d}" for number in (1, 2, 3)]
    assert one.images[0].path == tmp_path / "a/b.jpg"
    assert one.conversation == (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))
    assert (one.meta, one.license, one.source) == ({"id": "x"}, "MIT", "Talk 1")
    assert text.conversation[0] == Turn("system", "be brief")
    assert not text.images
    assert [file.name for file in two.images] == ["a.jpg", "b.jpg"]
    assert two.origin == (f"{name}:3" if name.endswith("l") else f"{name}:1, row 3")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": ["a.jpg", "b.jpg"], "conversations": TALK}, "1 <image> in the conversation for 2 images"),
        ({"conversations": TALK}, "1 <image> in the conversation for 0 images"),
        ({"image": "a.jpg", "conversations": []}, "'conversations' is empty"),
        ({"image": "a.jpg", "conversation": TALK}, "no 'conversations'. Did you mean 'conversation'"),
        ({"image": "a.jpg", "conversations": [{"from": "humman", "value": "x"}]}, "unknown speaker 'humman'. Did you"),
        ({"image": "a.jpg", "conversations": [{"from": "human"}]}, "has no text 'value'"),
        ({"image": 3, "conversations": TALK}, "'image' is 3"),
        ({"image": False, "conversations": TALK}, "'image' is False"),
        ({"image": "a.jpg", "images": ["b.jpg"], "conversations": TALK}, "both 'image' and 'images'"),
        ({"image": "../a.jpg", "conversations": TALK}, "leaves"),
        ({"video": "a.mp4", "conversations": TALK}, "Videos are not read"),
    ],
)
def test_llava_names_what_is_wrong_and_where(tmp_path, row, message):
    file = written(tmp_path, [{"conversations": [{"from": "human", "value": "hi"}]}, row], "rows.jsonl")
    with pytest.raises(InputError) as mistake:
        list(LlavaSource(name="t", annotations=file, images=tmp_path).samples())
    assert message in str(mistake.value)
    assert str(mistake.value).startswith(f"{file}:2: ")


def test_llava_puts_a_missing_placeholder_in_front_only_when_told(tmp_path):
    file = written(tmp_path, [{"image": "a.jpg", "conversations": [{"from": "human", "value": "what?"}]}])
    with pytest.raises(InputError, match="missing_placeholder"):
        only(LlavaSource(name="t", annotations=file, images=tmp_path))
    sample = only(LlavaSource(name="t", annotations=file, images=tmp_path, missing_placeholder="prefix"))
    assert sample.conversation[0].text == "<image>\nwhat?"


def test_captions_of_rows_and_of_text_files(tmp_path):
    rows = [{"image": "a.jpg", "caption": ["one", "two"], "license": "CC0"}, {"image": "b.jpg", "caption": "three"}]
    first, second = CaptionSource(name="c", images=tmp_path, annotations=written(tmp_path, rows)).samples()
    assert (first.text, first.meta["captions"], first.license) == ("one", ["one", "two"], "CC0")
    assert (second.text, second.meta) == ("three", {})
    folder = touched(tmp_path / "pairs", "x/a.jpg", "x/a.txt", "b.png", "b.txt")
    (folder / "b.txt").write_text("a bee\n")
    (folder / "x/a.txt").write_text("an ant")
    samples = list(CaptionSource(name="c", images=folder).samples())
    assert [(sample.images[0].name, sample.text) for sample in samples] == [("b.png", "a bee"), ("x/a.jpg", "an ant")]


def test_captions_that_are_missing_or_empty_are_named(tmp_path):
    folder = touched(tmp_path, "a.jpg", "a.txt", "b.jpg")
    with pytest.raises(InputError, match=r"1 files have no partner, the first is 'b\.jpg'"):
        list(CaptionSource(name="c", images=folder).samples())
    (folder / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.txt:1: the caption is empty"):
        list(CaptionSource(name="c", images=folder).samples())
    with pytest.raises(InputError, match="'caption' is empty"):
        list(
            CaptionSource(
                name="c", images=folder, annotations=written(tmp_path, [{"image": "a", "caption": []}])
            ).samples()
        )


def test_questions_know_their_numbers(tmp_path):
    row = {"image": "a.jpg", "question": "how many?", "answer": "3", "answer_type": "number", "license": "MIT"}
    sample = only(QuestionSource(name="q", annotations=written(tmp_path, [row]), images=tmp_path))
    assert sample.number == 3.0
    assert sample.conversation == (Turn("user", "<image>\nhow many?"), Turn("assistant", "3"))
    assert (sample.license, sample.meta) == ("MIT", {"answer_type": "number"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "few"}, "the answer 'few' is none"),
        ({"license": 3}, "'license' is 3, str is due"),
        ({"question": "what is <image>?"}, "2 <image> in the conversation for 1 images"),
    ],
)
def test_questions_name_what_is_wrong(tmp_path, change, message):
    row = {"image": "a.jpg", "question": "how many?", "answer": "3", "answer_type": "number", **change}
    with pytest.raises(InputError, match=message):
        only(QuestionSource(name="q", annotations=written(tmp_path, [row]), images=tmp_path))


def coco(**changes) -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 9, "height": 8}, {"id": 3, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 2, 2], "iscrowd": 1, "segmentation": []},
        ],
        **changes,
    }


def test_coco_reads_boxes_polygons_and_quads(tmp_path):
    file = written(tmp_path, coco())
    first, second = CocoSource(name="c", annotations=file, images=tmp_path).samples()
    corners = ((0, 0), (4, 0), (4, 4), (0, 4))
    assert first.regions[0] == Region("car", box=(1, 2, 4, 6), polygons=(corners,))
    assert first.regions[1] == Region("car", box=(0, 0, 2, 2), ignore=True)
    assert (second.regions, second.images[0].name, first.origin) == ((), "b.jpg", "rows.json:images[0]")
    assert (first.stated, second.stated) == ((9, 8), None)
    quads = next(CocoSource(name="c", annotations=file, images=tmp_path, segmentation="quad").samples())
    assert quads.regions[0] == Region("car", box=(1, 2, 4, 6), quad=corners)


def test_coco_keeps_run_lengths(tmp_path):
    mask = {"size": [8, 9], "counts": [10, 62]}
    file = written(tmp_path, coco(annotations=[{"image_id": 3, "category_id": 1, "segmentation": mask}]))
    regions = [sample.regions for sample in CocoSource(name="c", annotations=file, images=tmp_path).samples()]
    assert regions == [(), (Region("car", rle=mask),)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, r"annotations\[0\]: image_id 9"),
        ({"annotations": [{"image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1]}]}, "category_id 2 is not among"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1]}]}, "4 numbers are due"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, -1, 1]}]}, "ends before it starts"),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, "neither 'bbox' nor"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "segmentation": [[1, 2, 3]]}]}, "a polygon of 3 numbers"),
        ({"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}]}, r"images\[1\]: image id 7 is there"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, r"categories\[1\]: category id 1 is there"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 10**400, 1]}]}, "4 numbers are due"),
        ({"categories": None}, "no list 'categories'"),
    ],
)
def test_coco_names_what_is_wrong(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        list(CocoSource(name="c", annotations=written(tmp_path, coco(**change)), images=tmp_path).samples())


def test_coco_with_other_shapes_is_no_set_of_quads(tmp_path):
    shape = {"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 1, 1, 2, 0]]}
    file = written(tmp_path, coco(annotations=[shape]))
    with pytest.raises(InputError, match="not the eight numbers"):
        list(CocoSource(name="c", annotations=file, images=tmp_path, segmentation="quad").samples())


def test_referring_expressions_with_box_corners_and_mask(tmp_path):
    row = {"image_id": "P1.png", "dataset": "geochat", "question_id": 4, "question": "the red roof"}
    row |= {"bbox": [1, 2, 5, 6], "poly": [[1, 2], [5, 2], [5, 6], [1, 6]], "image_width": 9, "image_height": 9}
    file = written(tmp_path, [row, {**row, "mask_exists": False}], "rows.jsonl")
    first, second = ReferringSource(name="r", annotations=file, images=tmp_path / "i", masks=tmp_path / "m").samples()
    assert first.images[0].path == tmp_path / "i/geochat/P1.png"
    assert first.mask is not None
    assert first.mask.path == tmp_path / "m/geochat/P1_4.png"
    assert second.mask is None
    assert first.regions == (Region("the red roof", box=(1, 2, 5, 6), quad=((1, 2), (5, 2), (5, 6), (1, 6))),)
    assert (first.text, first.stated) == ("the red roof", (9, 9))
    bad = written(tmp_path, [{**row, "poly": [[1, 2]]}], "bad.jsonl")
    with pytest.raises(InputError, match=r"bad\.jsonl:1: 'poly' has 1 corners"):
        list(ReferringSource(name="r", annotations=bad, images=tmp_path).samples())


def test_dota_labels(tmp_path):
    touched(tmp_path, "images/P1.png", "images/P2.png", "labels/P2.txt")
    (tmp_path / "labels/P1.txt").write_text(
        "imagesource:GoogleEarth\ngsd:0.5\n0 0 4 0 4 4 0 4 plane 0\n1 1 2 1 2 2 1 2 ship 2\n"
    )
    first, second = DotaSource(name="d", labels=tmp_path / "labels", images=tmp_path / "images").samples()
    assert first.regions[0] == Region("plane", quad=((0, 0), (4, 0), (4, 4), (0, 4)))
    assert first.regions[1].ignore
    assert first.meta == {"imagesource": "GoogleEarth", "gsd": "0.5", "difficult": [0, 2]}
    assert (second.regions, second.meta) == ((), {})


@pytest.mark.parametrize(
    "line", ["1 2 3 plane 0", "0 0 4 0 4 4 0 x plane 0", "0 0 4 0 4 4 0 nan plane 0", "0 0 4 0 4 4 0 4 plane 7"]
)
def test_dota_names_the_line(tmp_path, line):
    touched(tmp_path, "images/P1.png", "labels/P1.txt")
    (tmp_path / "labels/P1.txt").write_text(f"gsd:1\n{line}\n")
    with pytest.raises(InputError, match=r"P1\.txt:2: "):
        list(DotaSource(name="d", labels=tmp_path / "labels", images=tmp_path / "images").samples())


def test_zoom_chains_keep_evidence_and_crop(tmp_path):
    info = {"rbox": [[0, 0, 4, 0, 4, 4, 0, 4]], "crop_hbox": [[0, 0, 204, 204]]}
    base = {"id": "x", "image": "P1.png", "image_ori_width": 4000, "image_ori_height": 4000, "bbox_info": info}
    choice = {"Text": "which?", "Answer choices": ["(A) red", "(B) blue"], "Ground truth": "B"}
    rows = [{**base, "question": "is it?", "answer": "yes"}, {**base, **choice}]
    open_ended, chosen = ZoomChainSource(name="z", annotations=written(tmp_path, rows), images=tmp_path).samples()
    assert open_ended.conversation == (Turn("user", "<image>\nis it?"), Turn("assistant", "yes"))
    assert open_ended.regions[0].quad == ((0, 0), (4, 0), (4, 4), (0, 4))
    assert open_ended.regions[1] == Region("crop", box=(0, 0, 204, 204))
    assert chosen.conversation[0].text == "<image>\nwhich? The choices are listed below:\n(A) red\n(B) blue"
    assert chosen.meta["Answer choices"] == ["(A) red", "(B) blue"]
    assert chosen.stated == (4000, 4000)
    for given, message in (([[1, 2]], r"\[1, 2\], 4 numbers are due"), (5, "5, list is due")):
        bad = written(tmp_path, [{**base, "bbox_info": {"crop_hbox": given}, "question": "q", "answer": "a"}])
        with pytest.raises(InputError, match=rf"rows\.json:1, row 1: 'crop_hbox' is {message}"):
            list(ZoomChainSource(name="z", annotations=bad, images=tmp_path).samples())


def test_images_and_masks_are_paired_by_name(tmp_path):
    touched(tmp_path, "images/x/a.jpg", "images/b.tif", "masks/x/a_m.png", "masks/b_m.png")
    options = {"images": tmp_path / "images", "masks": tmp_path / "masks", "classes": {1: "water"}, "ignore": 255}
    samples = list(ImageMaskSource(name="m", mask_suffix="_m", **options).samples())
    assert [(s.images[0].name, s.mask and s.mask.name) for s in samples] == [
        ("b.tif", "b_m.png"),
        ("x/a.jpg", "x/a_m.png"),
    ]
    assert samples[0].meta == {"classes": {"1": "water"}, "ignore": 255}
    with pytest.raises(InputError, match="does not end in mask_suffix"):
        list(ImageMaskSource(name="m", mask_suffix="_mask", **options).samples())
    touched(tmp_path, "images/c.jpg")
    with pytest.raises(InputError, match=r"'c\.jpg'"):
        list(ImageMaskSource(name="m", mask_suffix="_m", **options).samples())


def test_geotiffs_are_paired_by_name_and_role(tmp_path):
    touched(tmp_path, "after/a.tif", "before/a.TIF", "label/a.tiff")
    partners = {"before": tmp_path / "before", "label": tmp_path / "label"}
    sample = only(GeotiffPairSource(name="g", rasters=tmp_path / "after", partners=partners))
    assert [file.name for file in sample.rasters] == ["a.tif", "before/a.TIF", "label/a.tiff"]
    assert sample.meta == {"roles": ["scene", "before", "label"]}


def test_two_files_of_one_stem_are_refused(tmp_path):
    touched(tmp_path, "i/a.jpg", "i/a.png", "m/a.png")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have one stem"):
        list(ImageMaskSource(name="m", images=tmp_path / "i", masks=tmp_path / "m").samples())
