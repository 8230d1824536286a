"""The model card, made from a run record: every figure in it stands in the record, and absent ones are said to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData


def card_text(family: str, record: Mapping[str, Any]) -> str:
    """README.md of a model folder: front matter, how to load, how it was made, what was measured."""
    data = ModelCardData(license="apache-2.0", library_name="mmzoo", tags=["mmzoo", family])
    metrics = record.get("metrics") or {}
    measured = [f"| {name} | {value} |" for name, value in sorted(metrics.items())]
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {family}",
        "",
        "```python",
        "import mmzoo",
        'model = mmzoo.from_pretrained("THIS_FOLDER")',
        "```",
        "",
        "## How it was made",
        "",
        f"Command: `{record.get('command', 'not recorded')}`",
        "",
        "## Measured",
        "",
        *(["| metric | value |", "|---|---|", *measured] if measured else ["Not measured."]),
        "",
    ]
    return "\n".join(lines)
