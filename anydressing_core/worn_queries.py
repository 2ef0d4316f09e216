# SPDX-License-Identifier: GPL-3.0-or-later
"""Only where it is worn: which of a site's queries need the garments at all, and how long what they gave them is kept.

A pixel's attention to garments is known, s = sum_k A_k, with a file that has a null token and in reference mode; and from
step to step it hardly moves. A step computes the garments for the queries whose share was above a threshold in the step
before, and their neighbours:

    Q_(t+1) = { p : max over the 3 x 3 tokens around p of s_t > threshold }

Elsewhere a file's term is zero, and reference attention is the picture's own. Most queries of Q wear one garment: where, by
the same rule for each A_k and `alone`, there is one garment and no other, that garment's tokens alone are met: a further
garment costs as much as it covers. The first WHOLE_STEPS compute everywhere, for nothing is known before, and the second
step's share is the first that was seen from a picture in garments. A file's term hardly moves either: with `every` above 1 it
is computed in every so many steps, and taken as it was in those between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .dressing_attention import garment_attention
from .garment_kv import Attend, GarmentKV, scaled_dot_product
from .latents import Size
from .reference_attention import reference_attention
from .sites import AttentionSite

THRESHOLD, ALONE, EVERY = 0.1, 0.1, 2
"""As artists have it: at 0.1 nothing is lost, from 0.15 on reference attention loses colours (docs/evidence/worn.md)."""

WHOLE_STEPS = 2

Term = tuple[Tensor, Tensor | None]
"""What `garment_attention` gives: the term (B, L, C) and A (B, L, N), or None without maps."""


@dataclass(frozen=True)
class Chosen:
    """A site's queries in one step. worn: those that meet garments, (B, K), L where a row has fewer. rest: all others, and of
    some rows a few of `worn`, (B, R). Both long. parts: what `worn` meets, part by part: which garment, or None for all of
    them, and how many queries.
    """

    worn: Tensor
    rest: Tensor
    parts: tuple[tuple[int | None, int], ...]

    def met(self, garments: GarmentKV) -> Iterator[tuple[Tensor, GarmentKV]]:
        """Queries (B, K_i) and what they meet."""
        first = 0
        for garment, count in self.parts:
            yield self.worn[:, first : first + count], garments if garment is None else garments.alone(garment)
            first += count


class WornQueries:
    """What one condition of one sampling run knows of where garments are worn, and what they gave it.

    threshold: of a query's share; 0 computes everywhere. every: a file's term is computed in every so many steps. alone: of one
    garment's share; 0 lets all meet all garments. whole: how many steps come before all that. computed: site key -> the share
    of its queries that each step has computed. met: the same, each times the share of the garments' tokens that it met.
    """

    def __init__(
        self, threshold: float = THRESHOLD, every: int = 1, alone: float = ALONE, whole: int = WHOLE_STEPS
    ) -> None:
        self._threshold, self._every, self._alone, self._whole = threshold, every, alone, whole
        self._steps, self._size = 0, (0, 0)
        self._shares: dict[str, Tensor] = {}
        self._chosen: dict[str, Chosen] = {}
        self._kept: dict[str, Term] = {}
        self.computed: dict[str, list[float]] = {}
        self.met: dict[str, list[float]] = {}

    @property
    def mean_shares(self) -> dict[str, dict[str, float]]:
        """`computed` and `met` in the mean over all steps: which -> site key -> its share."""
        both = {"computed": self.computed, "met": self.met}
        return {name: {site: sum(all_) / len(all_) for site, all_ in of.items()} for name, of in both.items() if of}

    def begin(self, sites: Sequence[AttentionSite], size: Size) -> None:
        """Begin a step. size: h and w of the latent; with another than that of the step before all begins anew.

        It waits for the device once, for all sites together.
        """
        if size != self._size:
            self._steps, self._size = 0, size
            self._shares, self._chosen, self._kept = {}, {}, {}
        early = self._steps < self._whole
        if early or (self._steps - self._whole) % self._every == 0:
            self._kept = {}
            self._chosen = {} if early or not self._threshold else self._choose(sites)
            self._shares = {}
        self._steps += 1

    def term(
        self,
        site: str,
        query: Tensor,
        garments: GarmentKV,
        *,
        regions: Tensor | None = None,
        attend: Attend = scaled_dot_product,
    ) -> Term:
        """A file's term and maps at one site; the arguments are those of `garment_attention`. Outside of what is worn both are
        zero. query: of all tokens of the site, in their places, or this must not be asked.
        """
        chosen, kept = self._chosen.get(site), self._kept.get(site)
        self._count(site, query, garments, computed=kept is None)
        if kept is not None:
            some = kept
        elif chosen is None:
            some = garment_attention(query, garments, regions=regions, attend=attend)
        else:
            parts = [
                garment_attention(
                    some_of(query, queries),
                    own,
                    regions=None if regions is None else some_of(regions, queries),
                    attend=attend,
                )
                for queries, own in chosen.met(garments)
            ]
            some = _joined(parts)
        if self._every > 1:
            self._kept[site] = some
        term, maps = some
        if chosen is not None:
            term = all_of(term, chosen.worn, query.shape[1])
            maps = None if maps is None else all_of(maps, chosen.worn, query.shape[1])
        if kept is None:
            self._saw(site, maps)
        return term, maps

    def joint(
        self,
        site: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        garments: GarmentKV,
        bias: Tensor,
        *,
        attend: Attend = scaled_dot_product,
        plain: Attend = scaled_dot_product,
    ) -> tuple[Tensor, Tensor]:
        """Reference attention at one site; the arguments are those of `reference_attention`. Outside of what is worn it is
        `plain` attention to the picture's own tokens.
        """
        chosen = self._chosen.get(site)
        self._count(site, query, garments)
        if chosen is None:
            out, maps = reference_attention(query, key, value, garments, bias, attend=attend)
        else:
            parts = [
                reference_attention(
                    some_of(query, queries),
                    key,
                    value,
                    own,
                    bias if bias.shape[1] == 1 else some_of(bias, queries),
                    attend=attend,
                )
                for queries, own in chosen.met(garments)
            ]
            some, some_maps = _joined(parts)
            rest = query[:, :0]
            if chosen.rest.shape[1]:
                rest = plain(some_of(query, chosen.rest), key, value, garments.heads)
            out = all_of(rest, chosen.rest, query.shape[1], then=(chosen.worn, some))
            maps = all_of(some_maps, chosen.worn, query.shape[1])
        self._saw(site, maps)
        return out, maps

    def _choose(self, sites: Sequence[AttentionSite]) -> dict[str, Chosen]:
        kinds: dict[str, Tensor] = {}
        for site in sites:
            share, (height, width) = self._shares.get(site.key), site.grid(*self._size)
            if share is not None and share.shape[1] == height * width:
                maps = share.view(-1, height, width, share.shape[-1])
                kinds[site.key] = kinds_of(maps, self._threshold, self._alone).flatten(1)
        if not kinds:
            return {}
        garments = max(share.shape[-1] for share in self._shares.values())
        counts = {key: functional.one_hot(one, garments + 2).sum(dim=1) for key, one in kinds.items()}  # -> (B, N + 2)
        most = torch.stack([count.amax(dim=0) for count in counts.values()]).cpu()
        return {
            key: _chosen(kinds[key], counts[key], of_site)
            for key, of_site in zip(kinds, ([int(count) for count in row] for row in most), strict=True)
            if any(of_site[:-2]) or of_site[-1]  # or all meet all
        }

    def _saw(self, site: str, maps: Tensor | None) -> None:
        if maps is not None and self._threshold:
            self._shares[site] = maps

    def _count(self, site: str, query: Tensor, garments: GarmentKV, *, computed: bool = True) -> None:
        parts: Sequence[tuple[int | None, int]] = ((None, query.shape[1]),)
        if site in self._chosen:
            parts = self._chosen[site].parts
        tokens, share, met = sum(garments.counts), 0.0, 0.0
        for garment, count in parts if computed else ():
            share += count / query.shape[1]
            met += count / query.shape[1] * (1.0 if garment is None else garments.counts[garment] / tokens)
        self._add(site, share, met)

    def _add(self, site: str, computed: float, met: float) -> None:
        self.computed.setdefault(site, []).append(computed)
        self.met.setdefault(site, []).append(met)


class WornStates(NamedTuple):
    """Of a file's term, and of reference attention, which have shares of their own."""

    trained: WornQueries
    reference: WornQueries

    @classmethod
    def usual(cls) -> WornStates:
        """As artists have it."""
        return cls.of(THRESHOLD, EVERY)

    @classmethod
    def of(cls, threshold: float, every: int, alone: float = ALONE) -> WornStates:
        """The same thresholds for both."""
        return cls(WornQueries(threshold, every, alone), WornQueries(threshold, alone=alone))


def kinds_of(shares: Tensor, threshold: float, alone: float) -> Tensor:
    """What each query of a grid meets: garment k alone, k; all of them, N; none, N + 1. (B, h, w) long; no row without any.

    shares: A (B, h, w, N). threshold, alone: as of `WornQueries`.
    """
    total, count = shares.sum(dim=-1), shares.shape[-1]
    best = functional.one_hot(total.flatten(1).argmax(dim=1), total[0].numel()).view_as(total)
    worn = _around(total > threshold) | (best > 0)
    reached = torch.stack([_around(share > alone) for share in shares.unbind(dim=-1)], dim=-1)
    kinds = torch.full_like(total, count, dtype=torch.long)
    if alone and count > 1:
        kinds = torch.where(reached.sum(dim=-1) == 1, reached.byte().argmax(dim=-1), kinds)
    return torch.where(worn, kinds, count + 1)


def _around(there: Tensor) -> Tensor:
    """Whether it is there at a token or next to it: (B, h, w) bool."""
    return functional.max_pool2d(there[:, None].float(), 3, 1, 1)[:, 0] > 0


def _chosen(kinds: Tensor, counts: Tensor, most: Sequence[int]) -> Chosen:
    """Queries put together by what they meet. kinds: (B, L), from `kinds_of`. counts: how many of each a row has, (B, N + 2).
    most: the largest over all rows; where a row has fewer it takes none instead, for what a picture wears does not depend on
    whom it is made with.
    """
    order, length = kinds.argsort(dim=1, stable=True), kinds.shape[1]
    first = functional.pad(counts.cumsum(dim=1), (1, 0))
    parts: list[tuple[int | None, int]] = []
    worn: list[Tensor] = []
    for kind, many in enumerate(most[:-1]):
        if many:
            place = torch.arange(many, device=kinds.device)[None]
            own = order.gather(1, (first[:, kind, None] + place).clamp(max=length - 1))
            worn.append(torch.where(place < counts[:, kind, None], own, length))
            parts.append((kind if kind < len(most) - 2 else None, many))
    return Chosen(torch.cat(worn, dim=1), order[:, length - most[-1] :], tuple(parts))


def _joined(parts: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """Results and maps of a site's parts, one behind the other; there are maps, by which they were chosen."""
    maps = [maps for _, maps in parts if maps is not None]
    return torch.cat([result for result, _ in parts], dim=1), torch.cat(maps, dim=1)


def some_of(x: Tensor, queries: Tensor) -> Tensor:
    """Rows (B, K, C) of x (B or 1, L, C); where there is none, any."""
    queries = queries.clamp(max=x.shape[1] - 1)[..., None]
    return x.expand(len(queries), -1, -1).gather(1, queries.expand(-1, -1, x.shape[-1]))


def all_of(some: Tensor, queries: Tensor, length: int, then: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """(B, L, C) with `some` (B, K, C) in their places, zero elsewhere. then: other queries and what belongs to them, put there
    afterwards.
    """
    x = some.new_zeros(len(some), length + 1, some.shape[-1])  # the last is of queries that there are not
    for places, part in ((queries, some), *([] if then is None else [then])):
        x.scatter_(1, places[..., None].expand(-1, -1, part.shape[-1]), part)
    return x[:, :length]
