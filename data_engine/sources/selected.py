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

    A row without such a field is not selected. Keys are those of the whole source: a row has the same number in every
    selection. InputError: a field that no row has, or rows none of which is selected.
    """

    whole: Source
    where: Mapping[str, Any]

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        seen: dict[str, Counter[str]] = {name: Counter() for name in self.where}
        fields: set[str] = set()
        read = selected = 0
        for sample in self.whole.samples():
            read += 1
            fields.update(sample.meta)
            for name in self.where.keys() & sample.meta.keys():
                seen[name][str(sample.meta[name])] += 1
            if all(name in sample.meta and sample.meta[name] in _listed(each) for name, each in self.where.items()):
                selected += 1
                yield sample
        if read and not selected:
            raise self._nothing(seen, fields)

    def _nothing(self, seen: Mapping[str, Counter[str]], fields: set[str]) -> InputError:
        for name, counts in seen.items():
            if not counts:
                hint = suggestion(name, sorted(fields))
                return InputError(f"source {self.name}: `where` asks for {name!r}, which no row has.{hint}")
        held = "; ".join(
            f"{name}: {', '.join(value for value, _ in counts.most_common(VALUES_SHOWN))}"
            for name, counts in seen.items()
        )
        return InputError(f"source {self.name}: `where` selects no row. The most frequent values are {held}")


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
