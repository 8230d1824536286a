"""The order of a mixture's samples: a Ledger whose epoch holds exactly the share of each source.

Without quotas the draws of all sources are shuffled together. With quotas an epoch is a table of batches; each part's
draws fill its columns, and every batch is shuffled by itself, so that ranks get equal company.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from data_engine.ledger import ALGORITHM, Ledger, epoch_order, part_order
from data_engine.mixture import Share

#: Added to the number of a share: the streams of parts and of batches under quotas.
_PARTS, _BATCHES = 2**32, 2**33
#: The lap whose order picks the fixed subset of a share.
_SUBSET = 2**63


class MixtureLedger(Ledger):
    """`rows`: for each share, the rows of its source in the numbering of the whole mixture, int64.

    `quotas`: samples of each top-level part in every `sum(quotas)` positions; empty without quotas.
    """

    def __init__(
        self, shares: Sequence[Share], rows: Sequence[np.ndarray], seed: int, shuffle: bool, quotas: Sequence[int] = ()
    ) -> None:
        super().__init__(np.concatenate(rows), seed, shuffle)
        self.shares = list(shares)
        self.quotas = list(quotas)
        self._rows = [np.asarray(of_share, np.int64) for of_share in rows]
        self._count = sum(share.count for share in shares)

    def __len__(self) -> int:
        return self._count

    def identity(self, split: str) -> str:
        """As Ledger.identity, of the shares too."""
        what = {"mixture": [asdict(share) for share in self.shares], "quotas": self.quotas, "algorithm": ALGORITHM}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        digest.update(super().identity(split).encode())
        return digest.hexdigest()

    def _make_order(self, epoch: int) -> np.ndarray:
        draws = [self._draws(number, epoch) for number in range(len(self.shares))]
        if self.quotas:
            return self._in_batches(draws, epoch)
        together = np.concatenate(draws)
        return together[epoch_order(len(together), self.seed, epoch)] if self.shuffle else together

    def _draws(self, number: int, epoch: int) -> np.ndarray:
        """The rows that a share gives to an epoch; their order has no meaning yet."""
        share, rows = self.shares[number], self._rows[number]
        start = 0 if share.fixed else epoch * share.count
        laps = range(start // len(rows), (start + share.count - 1) // len(rows) + 1)
        return np.concatenate([self._part_of_lap(number, lap, start, start + share.count) for lap in laps])

    def _part_of_lap(self, number: int, lap: int, start: int, stop: int) -> np.ndarray:
        """What the places start, ..., stop - 1 of a source's endless sequence take of one lap."""
        rows = self._rows[number]
        first, last = max(start - lap * len(rows), 0), min(stop - lap * len(rows), len(rows))
        if last - first == len(rows) or not self.shuffle:
            return rows[first:last]
        # Which rows, is what counts here. A fixed share takes the same ones in every epoch.
        chosen = _SUBSET if self.shares[number].fixed else lap
        return rows[part_order(len(rows), self.seed, number, chosen)[first:last]]

    def _in_batches(self, draws: Sequence[np.ndarray], epoch: int) -> np.ndarray:
        columns = []
        for part, quota in enumerate(self.quotas):
            own = np.concatenate([of for share, of in zip(self.shares, draws, strict=True) if share.part == part])
            if self.shuffle:
                own = own[part_order(len(own), self.seed, _PARTS + part, epoch)]
            columns.append(own.reshape(-1, quota))
        table = np.concatenate(columns, axis=1)
        if self.shuffle:
            mixed = part_order(table.size, self.seed, _BATCHES, epoch).reshape(table.shape)
            table = np.take_along_axis(table, np.argsort(mixed, axis=1, kind="stable"), axis=1)
        return table.reshape(-1)
