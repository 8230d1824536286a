"""What an evaluation of a tokenizer looks at: levels, size of the images, codecs beside it, networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval_suites.metrics.image_codecs import CODECS, codec_description
from eval_suites.reconstruction.resize import Resize
from mmzoo.errors import InputError, suggestion


@dataclass(frozen=True)
class Settings:
    """levels: prefixes to decode, ascending. codecs: names in image_codecs.CODECS. batch: images at once, which changes
    no figure but by float rounding. weights: files of "vgg", "alex" and "inception" (None: torch's cache).
    """

    levels: tuple[int, ...]
    codebook_size: int
    resize: Resize
    codecs: tuple[str, ...] = ()
    batch: int = 16
    weights: Mapping[str, Path | None] | None = None

    def __post_init__(self) -> None:
        if not self.levels or self.levels[0] < 1 or list(self.levels) != sorted(set(self.levels)):
            raise InputError(f"levels {list(self.levels)}: give numbers of levels from 1 up, ascending, e.g. 1,2,4.")
        if self.batch < 1:
            raise InputError(f"a batch of {self.batch} images measures nothing. Give 1 or more.")
        for name in self.codecs:
            if name not in CODECS:
                raise InputError(f"unknown codec {name!r}.{suggestion(name, CODECS)} Give none for none.")

    @classmethod
    def of(cls, options: Mapping[str, Any], config: Any) -> Settings:
        """From the suite's options by name; what is not given comes from the model's configuration.

        InputError: neither says it.
        """
        how, size = options.get("resize") or ("square", _needed(config, "image_size", "resize"))
        levels = options.get("levels") or level_steps(_needed(config, "pixel_levels", "levels"))
        return cls(
            levels=tuple(levels),
            codebook_size=_needed(config, "codebook_size", None),
            resize=Resize(how, size),
            codecs=tuple(options.get("codecs") or ()),
            batch=options.get("batch") or cls.batch,
            weights={name: options.get(name) for name in ("vgg", "alex", "inception")},
        )

    def describe(self) -> dict[str, Any]:
        """What models must share to be compared. Networks describe themselves; the codebooks are the model's own."""
        return {
            "levels": list(self.levels),
            "resize": self.resize.describe(),
            "codecs": {name: codec_description(name) for name in self.codecs},
        }


def level_steps(levels: int) -> list[int]:
    """1, 2, 4, ... and the last."""
    return sorted({min(2**power, levels) for power in range(levels.bit_length() + 1)})


def _needed(config: Any, name: str, option: str | None) -> int:
    value = getattr(config, name, None)
    if not isinstance(value, int):
        ask = f"Give --{option}" if option else "This suite measures tokenizers with codebooks of one size"
        raise InputError(f"the model's configuration has no {name}. {ask}.")
    return value
