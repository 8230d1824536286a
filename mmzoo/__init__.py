"""mmzoo: multimodal research models trained, resumed, scored and published with the same few commands.

Importing this package loads nothing heavy: `from_pretrained` is fetched when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "from_pretrained"]

if TYPE_CHECKING:
    from mmzoo.hub.load import from_pretrained


def __getattr__(name: str) -> Any:
    if name == "from_pretrained":
        from mmzoo.hub.load import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'mmzoo' has no attribute {name!r}")
