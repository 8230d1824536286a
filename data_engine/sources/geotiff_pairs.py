"""GeoTIFFs in folders, paired by name: one scene tile a sample, with a label raster, an earlier date, other bands.

Files are kept byte for byte, so CRS, transform and nodata stay where they are; the json names them as well. All
rasters of a sample must lie on one grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_engine.sources.source import Source, files_by_stem, paired
from data_engine.stored_sample import StoredFile, StoredSample

SUFFIXES = {".tif", ".tiff"}


@dataclass(frozen=True, kw_only=True)
class GeotiffPairSource(Source):
    """`rasters`: the folder of scenes. `partners` {role: folder}: files of the same names, e.g. {label: labels/}.

    The sample's rasters are the scene and its partners in the order given; `meta.roles` names them.
    """

    rasters: Path
    partners: dict[str, Path]

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        scenes = files_by_stem(self.rasters, "GeoTIFFs", SUFFIXES)
        others = {role: files_by_stem(folder, "GeoTIFFs", SUFFIXES) for role, folder in self.partners.items()}
        for role, files in others.items():
            paired(scenes, files, role, self.partners[role])
        meta = {"roles": ["scene", *self.partners]}
        for number, (stem, path) in enumerate(scenes.items(), 1):
            files = [StoredFile(path, self.rasters / path)]
            files += [
                StoredFile(f"{role}/{others[role][stem]}", folder / others[role][stem])
                for role, folder in self.partners.items()
            ]
            yield self.sample(number, path, rasters=tuple(files), meta=meta)
