"""Radars to look through: what a preset decides about a scene. Figures are nominal ones of the missions' modes."""

from __future__ import annotations

from dataclasses import dataclass

from data_engine.generators.backscatter import BANDS, POLARISATIONS
from mmzoo.errors import InputError, suggestion


@dataclass(frozen=True)
class Sensor:
    """One radar and mode. InputError for figures that no radar has."""

    name: str
    band: str
    polarisations: tuple[str, ...]
    looks: float
    """Equivalent number of looks of a flat area."""
    spacing: float
    """Metres between pixels."""
    resolution: tuple[float, float]
    """Metres, azimuth and range: full width at half maximum of a point's power."""
    near: float
    """Incidence in degrees where the swath begins, and `far` where it ends."""
    far: float
    swath: float
    """Kilometres on the ground, along range."""
    noise: float
    """Noise floor (NESZ) in dB; it adds to every pixel and is not subtracted."""

    def __post_init__(self) -> None:
        if self.band not in BANDS or not self.polarisations or not set(self.polarisations) <= set(POLARISATIONS):
            raise InputError(
                f"sensor {self.name}: bands are {', '.join(BANDS)}, polarisations {', '.join(POLARISATIONS)}"
            )
        if not 0 < self.near < self.far < 90:
            raise InputError(f"sensor {self.name}: incidence from {self.near} to {self.far}, not rising within 0 to 90")
        if self.looks < 1 or min(self.spacing, self.swath, *self.resolution) <= 0:
            raise InputError(f"sensor {self.name}: looks are 1 or more; spacing, resolution and swath above 0")

    @property
    def blur(self) -> tuple[float, float]:
        """Standard deviation of the Gaussian amplitude response in pixels, along rows (azimuth) and columns (range)."""
        azimuth, ground = (width / self.spacing / FWHM for width in self.resolution)
        return azimuth, ground


#: Width at half maximum of the square of a Gaussian of standard deviation 1: 2 sqrt(ln 2).
FWHM = 1.6651092223153954

SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor("sentinel1-iw", "C", ("VV", "VH"), 4.4, 10, (22, 20), 30, 46, 250, -23),
        Sensor("gaofen3-fsi", "C", ("HH", "HV"), 3, 2.5, (5, 5), 25, 48, 50, -24),
        Sensor("terrasar-sm", "X", ("HH",), 2, 1.5, (3, 3), 25, 42, 30, -22),
        Sensor("alos2-fbd", "L", ("HH", "HV"), 4, 6.25, (9, 9), 30, 44, 70, -28),
        Sensor("uavsar", "L", ("HH", "HV", "VV"), 12, 6, (7, 7), 22, 65, 16, -40),
    )
}


def sensor_named(name: str) -> Sensor:
    """The preset. InputError with the nearest name when there is none."""
    if name not in SENSORS:
        raise InputError(f"unknown sensor {name!r}.{suggestion(name, SENSORS)}")
    return SENSORS[name]
