"""What the index tells of samples without reading them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_engine.index import ShardIndex, key_hash, write_index
from data_engine.sample_facts import fact_arrays
from data_engine.shards import ShardWriter

ROW = st.tuples(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), max_size=3))


def test_shards_of_images_without_the_columns_tell_the_size_of_their_image(shard_folder):
    index = ShardIndex.open(shard_folder(4))
    facts = index.facts(2)
    assert facts.text_characters == 0
    assert facts.image_sizes == [(16, 12)]
    assert facts.bytes == {"image": index.span(2, "image")[2], "json": index.span(2, "json")[2]}
    columns = index.fact_columns()
    assert columns.image_row.tolist() == [0, 1, 2, 3]
    assert columns.image_height.tolist() == [12] * 4


def test_a_row_without_an_image_has_none(tmp_path):
    index = _index(tmp_path, [(5, []), (7, [(3, 4), (9, 2)])])
    assert index.facts(0) == (5, [], {"json": 2})
    assert index.facts(1) == (7, [(3, 4), (9, 2)], {"json": 2})


@given(rows=st.lists(ROW, min_size=1, max_size=6))
def test_arrays_and_single_rows_tell_the_same(tmp_path_factory, rows):
    index = _index(tmp_path_factory.mktemp("shards"), rows)
    columns = index.fact_columns()
    for row, (characters, sizes) in enumerate(rows):
        mine = columns.image_row == row
        found = list(zip(columns.image_width[mine].tolist(), columns.image_height[mine].tolist(), strict=True))
        assert index.facts(row)[:2] == (characters, sizes) == (columns.text_characters[row], found)


def _index(folder, rows) -> ShardIndex:
    with ShardWriter(folder, 10**6) as writer:
        places = [writer.add(f"row-{row}", {"json": b"{}"})[0] for row in range(len(rows))]
    columns = {
        "shard": np.array([place.shard for place in places], np.int32),
        "offset": np.array([[place.offset] for place in places], np.int64),
        "size": np.array([[place.size] for place in places], np.int64),
        "key_hash": np.array([key_hash(f"row-{row}") for row in range(len(rows))], np.uint64),
        "split": np.zeros(len(rows), np.uint8),
        **fact_arrays(*zip(*rows, strict=True)),
    }
    description = {"kind": "records", "source": "made", "fields": ["json"], "splits": {"names": ["train", "val"]}}
    write_index(folder, description, writer.shards, columns)
    return ShardIndex.open(folder)
