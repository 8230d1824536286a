"""How strongly each land cover scatters: sigma0 in dB by class, polarisation and radar band.

The VV column at C band is that of spec section 8; the other figures are ours, chosen to lie where textbooks put them
(cross-polarisation 6 to 8 dB below, water and roads smooth at L band, crops and bare soil rough at X band). They make
domains that differ as real ones do; they are measurements of nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmzoo.errors import InputError, suggestion

#: Index in a mask = position here.
CLASSES = ("water", "bare", "crop", "forest", "road", "building")
WATER, BARE, CROP, FOREST, ROAD, BUILDING = range(len(CLASSES))
#: Of masks, where the image has no data.
IGNORE = 255
COLOURS = ((40, 90, 200), (190, 160, 110), (230, 210, 80), (30, 110, 50), (90, 90, 90), (210, 60, 60))

#: Incidence angle in degrees at which the tables hold.
REFERENCE_INCIDENCE = 38.0
#: dB, in the order of CLASSES, at C band.
POLARISATIONS: dict[str, tuple[float, ...]] = {
    "VV": (-22.0, -14.0, -11.0, -8.0, -17.0, -2.0),
    "VH": (-29.0, -21.5, -17.5, -14.0, -25.0, -9.0),
    "HH": (-24.0, -13.5, -11.5, -7.5, -18.0, 0.0),
    "HV": (-29.0, -21.5, -17.5, -14.0, -25.0, -9.0),
}
#: dB on top of C band.
BANDS: dict[str, tuple[float, ...]] = {
    "C": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "L": (-3.0, -5.0, -5.0, 1.0, -5.0, 1.0),
    "X": (1.0, 2.0, 1.5, -1.0, 2.5, 0.5),
}
#: dB lost per degree of incidence beyond the reference.
INCIDENCE_SLOPE = (0.5, 0.25, 0.2, 0.12, 0.3, 0.05)
#: Squared coefficient of variation of the reflectivity within a class: texture on top of speckle.
TEXTURE = (0.0, 0.0, 0.02, 0.12, 0.0, 0.5)


def mean_backscatter(polarisation: str, band: str, incidence: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """sigma0 in power of every class, (classes, ...), at `incidence` (degrees). InputError for an unknown name."""
    for name, known in ((polarisation, POLARISATIONS), (band, BANDS)):
        if name not in known:
            raise InputError(f"unknown polarisation or band {name!r}.{suggestion(name, known)}")
    angle = np.asarray(incidence, np.float64)
    column = (len(CLASSES), *[1] * angle.ndim)
    decibels = np.add(POLARISATIONS[polarisation], BANDS[band]).reshape(column)
    decibels = decibels - np.reshape(INCIDENCE_SLOPE, column) * (angle - REFERENCE_INCIDENCE)
    return 10 ** (decibels / 10)
