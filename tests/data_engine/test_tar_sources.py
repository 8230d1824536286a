"""Tars of others, Energon's folders in both directions, and Hugging Face data sets on disk."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_engine.build_config import parse_config
from data_engine.build_records import build_records
from data_engine.records import RECORD_SCHEMA
from data_engine.sources.energon import EnergonSource, expand_braces
from data_engine.sources.hugging_face import HuggingFaceSource
from data_engine.sources.webdataset_tars import WebdatasetSource, tar_samples
from data_engine.stored_sample import StoredFile, StoredSample, Turn
from mmzoo.errors import InputError
from tests.data_engine.conftest import encode, picture
from tests.data_engine.made_sources import ListSource, built

PNG = encode(picture(1, 4, 5), "PNG")


def packed(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.parent


def talk(*turns: str) -> bytes:
    speakers = ("human", "gpt")
    return json.dumps(
        {"conversations": [{"from": speakers[n % 2], "value": text} for n, text in enumerate(turns)]}
    ).encode()


def test_tars_of_others_are_read_where_they_lie(tmp_path):
    packed(tmp_path / "b.tar", {"x/2.json": talk("<image> what?", "a cat"), "x/2.JPG": PNG})
    packed(tmp_path / "a.tar", {"1.png": PNG, "1.txt": b"a cat\n", "1.cls": b"3"})
    first, second = WebdatasetSource(name="w", folder=tmp_path, ignore=("cls",)).samples()
    assert (first.text, first.images[0].read(), first.meta) == ("a cat", PNG, {"key": "1"})
    assert second.conversation == (Turn("user", "<image> what?"), Turn("assistant", "a cat"))
    assert second.images[0].read() == PNG
    assert second.origin == "b.tar, key x/2"
    with pytest.raises(InputError, match=r"key 1: member \.cls has no place"):
        list(WebdatasetSource(name="w", folder=tmp_path).samples())


def test_a_placeholder_too_many_in_a_tar_is_named(tmp_path):
    packed(tmp_path / "a.tar", {"1.json": talk("<image> <image>"), "1.png": PNG})
    with pytest.raises(InputError, match="key 1: 2 <image> in the conversation for 1 images"):
        list(WebdatasetSource(name="w", folder=tmp_path).samples())


def test_damaged_tars_are_named(tmp_path):
    packed(tmp_path / "a.tar", {"1.png": PNG * 30, "1.txt": b"a"})
    whole = (tmp_path / "a.tar").read_bytes()
    for data in (b"no tar", whole[:700], b""):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(InputError, match=r"cannot read .*a\.tar"):
            list(tar_samples(tmp_path / "a.tar"))


def test_links_in_tars_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(InputError, match="is a link"):
        list(tar_samples(tmp_path / "a.tar"))


def test_our_own_records_come_back_as_they_went_in(tmp_path):
    mask = StoredFile("m.png", data=encode(np.ones((4, 5), np.uint8), "PNG"))
    sample = StoredSample(
        "", "", images=(StoredFile("a.png", data=PNG),) * 2, mask=mask, text="t", number=2.0, origin="o:1"
    )
    first = ListSource(name="first", given=(sample, sample))
    built(tmp_path / "one", first)
    again = built(tmp_path / "two", WebdatasetSource(name="first", folder=tmp_path / "one"))
    assert [again.stored(row) for row in range(2)] == list(first.samples())


@pytest.fixture
def energon(tmp_path) -> Path:
    folder = packed(
        tmp_path / "shard_0.tar",
        {
            **{"1.png": PNG, "1.json": b'{"q": "what?", "a": ["a cat", "cat"]}'},
            **{"2.png": PNG, "2.json": b'{"q": "who?", "a": "Tom"}', "3.png": PNG, "3.json": b'{"q": "", "a": []}'},
        },
    )
    (folder / ".nv-meta").mkdir()
    written(folder, "split.yaml", {"split_parts": {"train": ["shard_{0..0}.tar"]}, "exclude": ["shard_0.tar/3"]})
    kind = {"__module__": "megatron.energon", "__class__": "VQASample"}
    fields = {"image": "jpg,png", "context": "json[q]", "answers": "json[a]"}
    written(folder, "dataset.yaml", {"sample_type": kind, "field_map": fields})
    return folder


def written(folder: Path, name: str, content) -> None:
    (folder / ".nv-meta" / name).write_text(yaml.safe_dump(content))


def test_energon_is_read_by_its_field_map(energon):
    first, second = EnergonSource(name="e", folder=energon).samples()
    assert first.conversation == (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))
    assert first.meta == {"key": "1", "answers": ["a cat", "cat"]}
    assert first.images[0].read() == PNG
    assert second.conversation[1].text == "Tom"


def test_code_of_an_energon_folder_is_never_run(energon):
    (energon / ".nv-meta/sample_loader.py").write_text("raise SystemExit")
    with pytest.raises(InputError, match=r"sample_loader\.py of its own.*field_map: \{image: jpg, caption: txt\}"):
        list(EnergonSource(name="e", folder=energon).samples())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.yaml", {"sample_type": {"__class__": ["VQASample"]}}, "is not read"),
        ("dataset.yaml", {"sample_type": {"__class__": "ImageSample"}, "field_map": {3: "jpg"}}, "no field_map"),
        ("split.yaml", {"split_parts": {"train": "shard_0.tar"}}, r"split_parts\.train is no list of names"),
        ("split.yaml", {"split_parts": {"train": [5]}}, r"split_parts\.train is no list of names"),
        ("split.yaml", {"split_parts": {"train": ["shard_0.tar"]}, "exclude": "shard_0.tar"}, "exclude is no list"),
        ("split.yaml", {"split_parts": {"train": ["../shard_0.tar"]}}, "leaves"),
        ("split.yaml", {"split_parts": {"trian": ["a.tar"]}}, "no part 'train'. Did you mean 'trian'"),
        ("dataset.yaml", {"sample_type": {"__class__": "VQASampel"}}, "Did you mean 'VQASample'"),
        ("dataset.yaml", {"sample_type": {"__class__": "VQASample"}, "field_map": {"image": "jpg"}}, "lacks 'context'"),
        (
            "dataset.yaml",
            {"sample_type": {"__class__": "TextSample"}, "field_map": {"text": "json[b]"}},
            r"key 1: the json has nothing at 'json\[b\]'",
        ),
        (
            "dataset.yaml",
            {"sample_type": {"__class__": "ImageSample"}, "field_map": {"image": "gif"}},
            "no member for 'gif'",
        ),
    ],
)
def test_a_wrong_energon_folder_is_explained(energon, name, content, message):
    written(energon, name, content)
    with pytest.raises(InputError, match=message):
        list(EnergonSource(name="e", folder=energon).samples())


def test_braces_name_several_shards():
    assert expand_braces("a_{08..10}.tar") == ["a_08.tar", "a_09.tar", "a_10.tar"]
    assert expand_braces("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]
    assert expand_braces("a.tar") == ["a.tar"]


def for_energon(tmp_path: Path, **changes) -> dict:
    pictures = tmp_path / "pictures"
    for number in () if pictures.exists() else range(5):
        pictures.mkdir(exist_ok=True)
        (pictures / f"{number}.png").write_bytes(encode(picture(number, 4, 5), "PNG"))
        (pictures / f"{number}.txt").write_text(f"text {number}")
    source = {"kind": "captions", "name": "c", "images": str(pictures)}
    config = {"output": str(tmp_path / "out"), "shard_size": "6KB", "val_fraction": 0, "energon": "CaptioningSample"}
    return {**config, "sources": [source], **changes}


def test_energon_metadata_says_where_members_lie(tmp_path):
    summary = build_records(parse_config(for_energon(tmp_path), "c"))
    assert summary.card["shards"] > 1
    with sqlite3.connect(tmp_path / "out/.nv-meta/index.sqlite") as database:
        parts = database.execute("SELECT * FROM sample_parts").fetchall()
        samples = database.execute("SELECT * FROM samples").fetchall()
    assert len(samples) == 5
    for shard, number, name, offset, size in parts:
        data = (tmp_path / f"out/shard-{shard:06d}.tar").read_bytes()
        starts = np.frombuffer((tmp_path / f"out/shard-{shard:06d}.tar.idx").read_bytes(), np.uint64)
        assert starts[number] <= offset < offset + size <= starts[number + 1]
        if name == "json":
            assert json.loads(data[offset : offset + size])["source"] == "c"
    back = list(EnergonSource(name="e", folder=tmp_path / "out").samples())
    assert [sample.text for sample in back] == [f"text {number}" for number in range(5)]
    assert build_records(parse_config(for_energon(tmp_path), "c")).made is False
    build_records(parse_config(for_energon(tmp_path, shard_size="1MB", overwrite=True), "c"))
    assert not (tmp_path / "out/shard-000001.tar.idx").exists()


def test_what_energon_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="VQASample does not fit c-000000001: no conversation"):
        build_records(parse_config(for_energon(tmp_path, energon="VQASample"), "c"))
    with pytest.raises(InputError, match="splits are made of whole shards"):
        build_records(parse_config(for_energon(tmp_path, val_fraction=0.4), "c"))
    with pytest.raises(InputError, match="Did you mean 'CaptioningSample'"):
        parse_config(for_energon(tmp_path, energon="CaptionSample"), "c")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_energon_opens_our_shards(tmp_path):
    reason = "megatron-energon is not installed: make test-peers lets it open our shards, in an environment of its own"
    energon = pytest.importorskip("megatron.energon", reason=reason)
    build_records(parse_config(for_energon(tmp_path), "c"))
    data = energon.get_train_dataset(
        str(tmp_path / "out"),
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=1,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        repeat=False,
    )
    found = {batch.caption[0]: batch.image[0] for batch in energon.get_loader(data)}
    assert sorted(found) == [f"text {number}" for number in range(5)]
    for number in range(5):
        pixels = (found[f"text {number}"].permute(1, 2, 0) * 255).round().to(int).numpy()
        assert np.array_equal(pixels, picture(number, 4, 5))


def test_hugging_face_folders_keep_their_bytes(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    rows = {
        "picture": [{"bytes": PNG, "path": "a.png"}] * 2,
        "says": ["a cat", "a dog"],
        "chat": [[{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "yes"}]] * 2,
        "id": [4, 5],
    }
    made = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    made.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=made).save_to_disk(str(tmp_path / "parts"))
    source = HuggingFaceSource(name="h", folder=tmp_path / "one", image="picture", text="says", conversation="chat")
    first, second = source.samples()
    assert first.images[0] == StoredFile("a.png", data=PNG)
    assert (first.text, second.text, second.meta) == ("a cat", "a dog", {"id": 5})
    assert first.conversation == (Turn("user", "<image>?"), Turn("assistant", "yes"))
    assert len(
        list(
            HuggingFaceSource(
                name="h", folder=tmp_path / "parts", part="train", text="says", ignore=("picture",)
            ).samples()
        )
    )
    with pytest.raises(InputError, match="has the parts train"):
        list(HuggingFaceSource(name="h", folder=tmp_path / "parts", text="says").samples())
    with pytest.raises(InputError, match="no column 'say'\\. Did you mean 'says'"):
        list(HuggingFaceSource(name="h", folder=tmp_path / "one", text="say").samples())


@pytest.mark.parametrize(("byte", "kept"), [(2, None), (148, None), (None, 0), (None, 200), (None, 512)])
def test_a_tar_that_is_damaged_in_the_middle_does_not_end_there(tmp_path, byte, kept):
    """tarfile stops silently at a header it cannot read: every sample behind it would be lost."""
    packed(tmp_path / "a.tar", {f"{number}.png": PNG for number in range(4)})
    member = 512 + -(-len(PNG) // 512) * 512
    data = bytearray((tmp_path / "a.tar").read_bytes())
    if byte is None:
        data = data[: 2 * member + kept] if kept < 512 else data[: 4 * member]
    else:
        data[2 * member + byte] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*a\.tar: (damaged header|it has no end mark)"):
        list(tar_samples(tmp_path / "a.tar"))


def test_sparse_members_are_refused(tmp_path):
    (tmp_path / "1.png").write_bytes(PNG)
    os.truncate(tmp_path / "1.png", 2**20)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "a.tar", "-C", tmp_path, "1.png"], check=True)
    with pytest.raises(InputError, match=r"member '1\.png' is a link, a device or sparse"):
        list(tar_samples(tmp_path / "a.tar"))


def test_a_question_of_energon_with_a_placeholder_of_its_own_is_refused(tmp_path, energon):
    packed(tmp_path / "shard_0.tar", {"1.png": PNG, "1.json": b'{"q": "what is <image>?", "a": "x"}'})
    with pytest.raises(InputError, match=r"shard_0\.tar, key 1: 2 <image> in the conversation for 1 images"):
        list(EnergonSource(name="e", folder=energon).samples())


def test_a_record_that_lacks_its_lists_is_named(tmp_path):
    packed(tmp_path / "a.tar", {"1.json": json.dumps({"schema_version": RECORD_SCHEMA, "conversation": []}).encode()})
    with pytest.raises(InputError, match=r"key 1: damaged record"):
        list(WebdatasetSource(name="w", folder=tmp_path).samples())
