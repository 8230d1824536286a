"""The records that cross a wall: what a shard holds, what a transform is given, what a batch is made of.

**The json member of a sample** (one a sample, UTF-8, `SAMPLE_SCHEMA`): `schema_version`; `source`, the name of the
data set; `path`, the file's path relative to the folder that was built; `sha256` of the image member; `width` and
`height` in px as decoded, that is after EXIF orientation; `mode`, Pillow's name of the stored pixels; `format`, JPEG,
PNG, ...

**A batch** is a plain dict. Whatever the transform returned is there under the same key, stacked on dimension 0
(strings as lists), B = samples on this rank. The loader adds:

    sample_ids   list[str], length B: "source/key@position", so that any step can be explained
    positions    int64 (B,): positions in the virtual global sequence (see ledger.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SAMPLE_SCHEMA = 1
SAMPLE_KEYS = ("schema_version", "source", "path", "sha256", "width", "height", "mode", "format")
RECORD_SCHEMA = 2  # of samples with other fields than one image, see record_members.py
RECORDS = "records"  # the kind, in index.json, of shards of such samples
RESERVED_BATCH_KEYS = ("sample_ids", "positions")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, read and decoded.

    `fields` of an image shard is {"image": uint8 (H, W, 3), RGB}, of a code shard {"codes": int16 or int32 (h, w, L)},
    see code_fields.py; `meta` is the sample's json. A record shard gives, where the sample has them, {"image",
    "image1", ...: uint8 (H, W, 3), "mask": int32 (H, W), "raster", "raster1", ...: (bands, H, W) in their own dtype},
    and always {"conversation": tuple of Turn, "regions": tuple of Region, "text": str or None, "number": float or
    None}, see stored_sample.py.
    """

    key: str
    source: str
    fields: Mapping[str, Any]
    meta: Mapping[str, Any]


def key_of(sample_id: str) -> str:
    """The key in a batch's sample id, "source/key@position"; a source may hold slashes, a key does not."""
    return sample_id.rpartition("@")[0].rpartition("/")[2]
