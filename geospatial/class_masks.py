"""Class masks: rasters of class ids, checked against the table of classes that the user gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from geospatial.raster import Raster, RasterSettings, Window
from mmzoo.errors import InputError

#: What the loss and the scores leave out, in every label that training sees.
IGNORE = 255
MOST_CLASSES = 255
IDS_SHOWN = 8
#: Masks hold class ids, which no domain applies to; the name only satisfies the reader.
_MASK_SETTINGS = RasterSettings(domain="display8", nodata=None)


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of the model's outputs.

    `ids`: the id of each class in the masks, integers; `names`: of each class; `ignore`: ids that mean "not labelled".
    `remap`: (id in the masks, id of a class) pairs of a data set with classes of its own; then only those are known.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    ignore: tuple[int, ...] = (IGNORE,)
    remap: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.ids) <= MOST_CLASSES:
            raise InputError(f"the class table has {len(self.ids)} classes. Give 1 to {MOST_CLASSES}")
        if len(self.ids) != len(self.names) or len(set(self.ids)) != len(self.ids):
            raise InputError(f"the class table needs one name for each id, and each id once: {self.ids}, {self.names}")
        both = set(self.ids) & set(self.ignore)
        if both:
            raise InputError(f"the class id {min(both)} is also one to ignore. Remove it from one of the two")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, given: Mapping[int, str] | Path | str, ignore: int | tuple[int, ...] = IGNORE) -> ClassTable:
        """From {id: name}, or from a JSON or YAML file that holds that. InputError: another shape."""
        content = _from_file(Path(given)) if isinstance(given, str | Path) else given
        if not isinstance(content, Mapping) or not content:
            raise InputError(f"a class table maps ids to names, such as {{0: land, 1: water}}, not {content!r}")
        try:
            ids = tuple(int(key) for key in content)
        except (TypeError, ValueError):
            raise InputError(f"the ids of a class table are whole numbers, not {list(content)}. Mend it") from None
        left_out = (ignore,) if isinstance(ignore, int) else tuple(ignore)
        return cls(ids, tuple(str(name) for name in content.values()), left_out)

    def remapped(self, remap: Mapping[int, int] | None) -> ClassTable:
        """The same classes, for masks with other ids: {id in the masks: id of a class or one to ignore}.

        InputError: a target that is neither.
        """
        if remap is None:
            return self
        known = {*self.ids, *self.ignore}
        for number, target in remap.items():
            if target not in known:
                raise InputError(f"remap sends {number} to {target}, which is no id of the class table. Known: {known}")
        classes = tuple((number, target) for number, target in remap.items() if target in self.ids)
        ignored = tuple(number for number, target in remap.items() if target in self.ignore)
        return replace(self, ignore=tuple({*self.ignore, *ignored} - {number for number, _ in classes}), remap=classes)

    def places(self) -> dict[int, int]:
        """Place in the table of each id in the masks."""
        place = {number: place for place, number in enumerate(self.ids)}
        return place if self.remap is None else {number: place[target] for number, target in self.remap}

    def labels(self, ids: np.ndarray, file: Path, nodata: float | None = None) -> np.ndarray:
        """Class ids of any integer dtype -> uint8 of the same shape: place in the table, or IGNORE.

        The file's nodata value is ignored too, unless the table lists it as a class. InputError: other ids, named.
        """
        labels = np.full(ids.shape, IGNORE, np.uint8)
        known = np.zeros(ids.shape, bool)
        for number, place in self.places().items():
            of_class = ids == number
            labels[of_class] = place
            known |= of_class
        for number in (*self.ignore, nodata):
            if number is not None:  # a nodata value of NaN is no integer, so no id equals it
                known |= ids == number
        if not known.all():
            self._refuse(ids[~known], file)
        return labels

    def _refuse(self, odd: np.ndarray, file: Path) -> None:
        found = np.unique(odd)
        listed = ", ".join(str(number) for number in found[:IDS_SHOWN]) + (", ..." if len(found) > IDS_SHOWN else "")
        known = ", ".join(str(number) for number in self.places())
        raise InputError(
            f"{file}: {odd.size} pixels have the ids {listed}, which are not in the class table ({known}; ignored: "
            f"{', '.join(map(str, self.ignore)) or 'none'}). Add them to classes or ignore"
        )


def _from_file(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise InputError(f"the class table {path} cannot be read ({fault}). Give a JSON or YAML file") from None


class ClassMask:
    """An open mask of one raster. InputError: several bands, no integers, another size than the raster."""

    def __init__(self, path: Path, table: ClassTable, size: tuple[int, int], image: Path) -> None:
        self.table = table
        self.raster = Raster(path, _MASK_SETTINGS)
        try:
            self._check(size, image)
        except BaseException:
            self.close()
            raise

    def _check(self, size: tuple[int, int], image: Path) -> None:
        raster = self.raster
        if len(raster.bands) != 1:
            raise InputError(f"{raster.path}: a mask has one band of class ids, not {len(raster.bands)}. Convert it")
        if np.dtype(raster.dtype).kind not in "iu":
            raise InputError(f"{raster.path}: a mask holds whole numbers, not {raster.dtype}. Convert it")
        if raster.is_scaled:
            raise InputError(f"{raster.path} declares a scale or an offset, which class ids do not have. Remove it")
        if (raster.height, raster.width) != size:
            raise InputError(
                f"{raster.path} has {raster.height} x {raster.width} px and its raster {image} {size[0]} x {size[1]}. "
                f"Bring the mask to the grid of the raster (nearest neighbour)"
            )

    def read(self, window: Window | None = None) -> np.ndarray:
        """Labels of a window (default: all): uint8 (H, W), places in the table, IGNORE where not labelled."""
        return self.table.labels(self.raster.stored(1, window), self.raster.path, self.raster.stored_nodata)

    def close(self) -> None:
        """Closes the file."""
        self.raster.close()
