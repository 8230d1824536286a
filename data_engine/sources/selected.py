"""The rows of a source whose own fields have given values: one side of a published split, one domain, one sensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_engine.sources.source import Source
from data_engine.stored_sample import StoredSample
from mmzoo.errors import InputError, suggestion

VALUES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class SelectedSource(Source):
    """`where`: {field of the row that goes to `meta`: its value, or a list of values}; all must hold.

    Keys are those of the whole source, so a row has the same number in every selection. InputError: a row without such
    a field, and rows none of which is selected.
    """

    whole: Source
    where: Mapping[str, Any]

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        seen: dict[str, Counter[str]] = {name: Counter() for name in self.where}
        selected = 0
        for sample in self.whole.samples():
            for name in self.where:
                if name not in sample.meta:
                    raise InputError(
                        f"source {self.name}, {sample.origin}: no {name!r}, which `where` asks for."
                        f"{suggestion(name, sample.meta)}"
                    )
                seen[name][str(sample.meta[name])] += 1
            if all(sample.meta[name] in _listed(wanted) for name, wanted in self.where.items()):
                selected += 1
                yield sample
        if not selected and any(seen.values()):
            held = "; ".join(
                f"{name}: {', '.join(value for value, _ in counts.most_common(VALUES_SHOWN))}"
                for name, counts in seen.items()
            )
            raise InputError(f"source {self.name}: `where` selects no row. The most frequent values are {held}")


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
