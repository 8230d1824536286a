"""A mixture with its packing as one line of JSON, and back: what the record of a run keeps to find its order again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from data_engine.mixed_source import MixedIndex
from data_engine.mixture_grammar import Mixture, read_mixture
from data_engine.pack_ledger import Packing
from data_engine.remote import RemoteSettings
from mmzoo.errors import InputError, suggestion


def order_text(mixture: Mixture, packing: Packing | None) -> str:
    """sources {name: absolute folder, or URL}, mixture {parts, ...} and packing (null: none), as JSON."""
    sources = {
        name: str(place.absolute() if isinstance(place, Path) else place) for name, place in mixture.sources.items()
    }
    packed = None if packing is None else {**asdict(packing), "over_long": list(packing.over_long)}
    return json.dumps({"sources": sources, "mixture": json.loads(mixture.text), "packing": packed})


def open_order(text: str, moved: Mapping[str, str], remote: RemoteSettings | None = None) -> MixedIndex:
    """The index of an order; `moved`: where sources lie now; `remote`: where shards from a URL are kept.

    InputError: a source is gone.
    """
    order = json.loads(text)
    mixture = read_mixture({"sources": {**order["sources"], **moved}, **order["mixture"]})
    return MixedIndex.open(mixture, None if order["packing"] is None else Packing.read(order["packing"]), remote)


def folders_moved(order: str, moved: Collection[str]) -> dict[str, str]:
    """{source: where it lies now} from NAME=FOLDER, for the sources of an order that were moved."""
    names = list(json.loads(order)["sources"])
    found = {}
    for given in moved:
        name, sign, folder = given.partition("=")
        if not sign:
            raise InputError(
                f"--index {given!r}: this run read a mixture. Write NAME=FOLDER, once for each moved source"
            )
        if name not in names:
            raise InputError(f"--index {given!r}: no source {name!r} in the mixture.{suggestion(name, names)}")
        found[name] = folder
    return found
