"""Where each token of a packed batch stands: what a stage needs so that the samples of a pack do not see each other.

The loader gives a packed batch as lists of samples, since only the stage knows which of the transform's results are
tokens. A layout is made of one of them and places all others that go with it, in either of two forms:

    flat     (T, ...)         all tokens one after the other, no padding, with `cu_seqlens`: for attention over segments
    padded   (B, width, ...)  a row a pack, with `mask()`: for attention over rows; the plain form of the same

It holds no model code. The offsets are of the tokens that are there: `cu_lengths` of the loader are of planned ones,
which a transform may fall short of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mmzoo.errors import InputError

#: The label of a token that no loss counts, as in torch and transformers.
IGNORE = -100


@dataclass(frozen=True, slots=True)
class PackLayout:
    """T tokens of S samples in B packs; samples in the order of the batch, all tensors on one device.

    `rows`: B; `width`: tokens of a padded row. `row`, `column`: int64 (T,), where a token stands in the padded form;
    `sample`: int64 (T,), its sample, 0 to S - 1; `position_ids`: int64 (T,), its place in that sample, from 0.
    `cu_seqlens`: int32 (S + 1,), where samples begin and end in the flat form; `max_seqlen`: tokens of the longest.
    `sample_row`, `sample_column`: int64 (S,), where samples begin in the padded form. `lengths`: tokens of each sample;
    `last`: int64, where those that have any end in the flat form.
    """

    rows: int
    width: int
    row: Tensor
    column: Tensor
    sample: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    sample_row: Tensor
    sample_column: Tensor
    lengths: tuple[int, ...]
    last: Tensor

    @classmethod
    def of(cls, batch: Mapping[str, Any], tokens: str, width: int | None = None) -> PackLayout:
        """The layout of a packed batch, whose key `tokens` holds a tensor (n, ...) a sample.

        `width`: of padded rows (default: the longest pack, at least 1; a number keeps shapes equal from step to step).
        InputError: a sample has more tokens than were planned, so its pack may overflow. ValueError: a pack does.
        """
        lengths = [len(values) for values in batch[tokens]]
        _keep_to_the_plan(batch, lengths)
        starts = batch["pack_starts"].tolist()
        sizes = [sum(lengths[start:stop]) for start, stop in pairwise(starts)]
        longest = max([1, *sizes])
        if width is not None and longest > width:
            raise ValueError(f"a pack has {longest} tokens, its row {width}")
        return cls._placed(lengths, starts, width or longest, batch["pack_starts"].device)

    @classmethod
    def _placed(cls, lengths: Sequence[int], starts: Sequence[int], width: int, device: torch.device) -> PackLayout:
        sizes = torch.tensor(lengths, dtype=torch.int64)
        ends = sizes.cumsum(0)
        begins = ends - sizes
        of_sample = torch.repeat_interleave(torch.tensor(starts, dtype=torch.int64).diff())  # (S,), its pack
        first = torch.tensor(starts[:-1], dtype=torch.int64)[of_sample]  # (S,), the first sample of its pack
        sample_column = begins - begins[first]
        sample = torch.repeat_interleave(sizes)
        position_ids = torch.arange(int(sizes.sum())) - begins[sample]
        placed = cls(
            rows=len(starts) - 1,
            width=width,
            row=of_sample[sample],
            column=sample_column[sample] + position_ids,
            sample=sample,
            position_ids=position_ids,
            cu_seqlens=torch.cat([torch.zeros(1, dtype=torch.int64), ends]).to(torch.int32),
            max_seqlen=max(lengths, default=0),
            sample_row=of_sample,
            sample_column=sample_column,
            lengths=tuple(lengths),
            last=ends[sizes > 0] - 1,
        )
        return placed.to(device)

    def to(self, device: torch.device | str) -> PackLayout:
        """The same layout on another device."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in given.items() if isinstance(value, Tensor)})

    def flat(self, values: Sequence[Tensor], like: float = 0) -> Tensor:
        """One tensor a sample, (n, ...), as (T, ...). Of no samples: (0,), of the type of `like`.

        ValueError: other lengths than the tokens have.
        """
        if not values:
            return torch.full((0,), like, device=self.row.device)
        lengths = tuple(len(of_sample) for of_sample in values)
        if lengths != self.lengths:
            raise ValueError(f"values of lengths {lengths} do not go with tokens of {self.lengths}")
        return torch.cat(list(values))

    def padded(self, values: Tensor | Sequence[Tensor], fill: float) -> Tensor:
        """Flat values (T, ...), or one tensor a sample, as (B, width, ...); `fill` where no token is."""
        flat = values if isinstance(values, Tensor) else self.flat(values, fill)
        placed = flat.new_full((self.rows, self.width, *flat.shape[1:]), fill)
        placed[self.row, self.column] = flat
        return placed

    def unpadded(self, values: Tensor) -> Tensor:
        """Padded values (B, width, ...) as flat ones."""
        return values[self.row, self.column]

    def per_sample(self, flat: Tensor) -> list[Tensor]:
        """Flat values cut into one tensor a sample."""
        return list(flat.split(self.lengths))

    def samples(self) -> Tensor:
        """int64 (B, width): the sample of each place of the padded form, -1 where no token is."""
        return self.padded(self.sample, -1)

    def positions(self) -> Tensor:
        """int64 (B, width): the place of each token in its sample, 0 where no token is."""
        return self.padded(self.position_ids, 0)

    def mask(self, causal: bool = True) -> Tensor:
        """bool (B, 1, width, width), True where the row's token (dim 2) may look at another (dim 3) of its sample.

        Two samples of 2 and 1 tokens in a row of 4, whose last place is empty and looks at itself, lest a softmax over
        nothing be NaN:

            1 . . .
            1 1 . .
            . . 1 .
            . . . 1
        """
        samples = self.samples()
        same = samples[:, None, :, None] == samples[:, None, None, :]
        return same.tril() if causal else same

    def following(self, labels: Sequence[Tensor]) -> Tensor:
        """What each token is to predict: the label of the next token of its sample, IGNORE at the end; int64 (T,)."""
        flat = self.flat(labels, IGNORE)
        moved = torch.cat([flat[1:], flat[:1]])
        moved[self.last] = IGNORE
        return moved

    def spans(self, spans: Sequence[Tensor]) -> Tensor:
        """Spans in the tokens of each sample, (K, 2), from and to (excluded), such as those of images, in the rows.

        int64 (all K, 3): row, from, to. ValueError: a span that does not lie in its sample, other samples.
        """
        if len(spans) != len(self.lengths):
            raise ValueError(f"spans of {len(spans)} samples do not go with {len(self.lengths)}")
        of_sample = torch.repeat_interleave(torch.tensor([len(own) for own in spans], dtype=torch.int64))
        joined = torch.cat([torch.zeros(0, 2, dtype=torch.int64), *(own.reshape(-1, 2).cpu() for own in spans)])
        sizes = torch.tensor(self.lengths, dtype=torch.int64)[of_sample]
        inside = (joined[:, 0] >= 0) & (joined[:, 0] < joined[:, 1]) & (joined[:, 1] <= sizes)
        if not inside.all():
            wrong = int((~inside).nonzero()[0])
            raise ValueError(f"span {joined[wrong].tolist()} does not lie in a sample of {int(sizes[wrong])} tokens")
        joined, of_sample = joined.to(self.row.device), of_sample.to(self.row.device)
        columns = joined + self.sample_column[of_sample, None]
        return torch.cat([self.sample_row[of_sample, None], columns], dim=1)


def _keep_to_the_plan(batch: Mapping[str, Any], lengths: Sequence[int]) -> None:
    for name, length, planned in zip(batch["sample_ids"], lengths, batch["lengths"].tolist(), strict=True):
        if length > planned:
            raise InputError(
                f"{name}: the transform made {length} tokens, planned were {planned}. Let packing.lengths count at "
                f"least as many, and the transform keep to sample.meta['planned'] where a policy for long samples has "
                f"set a limit"
            )
