"""The model card, made from the content of zoo.json: every figure in it stands there, and absent ones are said to be.

Nothing else goes in, no time and no machine, so the same record gives the same card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import ModelCardData

from mmzoo.families import find_families

UNKNOWN = "not recorded"


def card_text(zoo: Mapping[str, Any]) -> str:
    """README.md of a model folder: front matter, what it is, how to load it, how it was made, what was measured."""
    data = ModelCardData(license=zoo.get("licence"), library_name="mmzoo", tags=["mmzoo", zoo["family"]])
    return "\n".join(
        [
            *("---", data.to_yaml(), "---", ""),
            f"# {(zoo.get('variant') or zoo['family']).partition(' ')[0]}",
            "",
            *_what(zoo),
            *("", "```python", "import mmzoo", ""),
            *('model = mmzoo.from_pretrained("THIS_FOLDER")  # every tensor from the files here, or an error', "```"),
            *("", "## How it was made", ""),
            *_making(zoo),
            *("", "## Measured", ""),
            *_measured(zoo["run"]),
            "",
        ]
    )


def _what(zoo: Mapping[str, Any]) -> Iterator[str]:
    entry = find_families().get(zoo["family"])
    if entry is not None:
        yield f"{entry.family.task[0].upper()}{entry.family.task[1:]} ({entry.family.paper})."
        yield ""
    yield f"- Family: {zoo['family']}"
    yield f"- Variant: {zoo.get('variant') or UNKNOWN}"
    if entry is not None:
        yield f"- Licence of the family: {entry.family.licence}"
    yield f"- Licence of these weights: {zoo.get('licence') or 'not stated'}"


def _making(zoo: Mapping[str, Any]) -> Iterator[str]:
    run = zoo["run"]
    yield f"- Command: `{run['command']}`" if "command" in run else f"- Command: {UNKNOWN}"
    yield f"- Data (sha256 of the index): {(run.get('data') or {}).get('identity', UNKNOWN)}"
    yield f"- Steps: {run.get('step', UNKNOWN)}"
    yield f"- Seed: {run.get('seed', UNKNOWN)}"
    yield f"- Code: {run.get('git_commit', UNKNOWN)}"
    started = "; ".join(_start(entry) for entry in zoo["started_from"])
    yield f"- Started from: {started or 'no other weights that are recorded'}"
    yield "- Versions: " + ", ".join(f"{name} {number}" for name, number in zoo["versions"].items())


def _start(entry: Mapping[str, Any]) -> str:
    """One source of weights in a line; of a receipt (mmzoo.from_pretrained's), its files with their hashes."""
    receipt = entry.get("receipt") or {}
    words = [_words(name, value) for name, value in entry.items() if name != "receipt"]
    words += [f"{name} sha256 {digest}" for name, digest in receipt.get("files", {}).items()]
    words += [f"revision {receipt['revision']}"] if receipt.get("revision") else []
    return ", ".join(words)


def _words(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        value = " ".join(f"{key}={inner}" for key, inner in value.items() if inner is not None)
    return f"{name} {value}"


def _measured(run: Mapping[str, Any]) -> Iterator[str]:
    metrics = run.get("metrics") or {}
    if not metrics:
        yield "Not measured."
        return
    samples = run.get("samples", UNKNOWN)
    yield f"On the validation samples, after step {run.get('step', UNKNOWN)}; n counts samples."
    yield ""
    yield "| metric | value | n |"
    yield "|---|---|---|"
    for name, value in sorted(metrics.items()):
        yield f"| {name} | {format(value, '.6g') if isinstance(value, float) else value} | {samples} |"
