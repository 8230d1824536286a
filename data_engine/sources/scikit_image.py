"""The photographs and micrographs that come inside scikit-image's wheel: real pictures on any machine, no network.

Left out of its folder: drawings, logos, test charts, masks and pages of several small frames. Their licences stand in
scikit-image's own data documentation (public domain, CC0 or the photographer's permission).
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from mmzoo.errors import InputError

PICTURES = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "moon.png"),
    *("motorcycle_left.png", "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
#: The two views of one stereo pair must not be torn apart by a split: for `mmzoo data build --group`.
GROUP = "(motorcycle)"


def copy_pictures(target: Path) -> list[Path]:
    """Copies the pictures into the folder `target`; InputError when scikit-image lacks one of them."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise InputError("scikit-image is not installed, so there are no pictures. Give a folder of your own.")
    source = Path(spec.origin).parent / "data"
    absent = [name for name in PICTURES if not (source / name).is_file()]
    if absent:
        raise InputError(
            f"this scikit-image lacks {', '.join(absent[:3])}. Install the one in constraints.txt, or give a folder."
        )
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(source / name, target / name)) for name in PICTURES]
