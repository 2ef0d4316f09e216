# SPDX-License-Identifier: GPL-3.0-or-later
"""Only where it is worn: which of a site's queries need the garments at all, and how long what they gave them is kept.

A pixel's attention to garments is known, s = sum_k A_k, with a file that has a null token and in reference mode; and from
step to step it hardly moves. A step computes the garments for the queries whose share was above a threshold in the step
before, and their neighbours:

    Q_(t+1) = { p : max over the 3 x 3 tokens around p of s_t > threshold }

Elsewhere a file's term is zero, and reference attention is the picture's own. The first WHOLE_STEPS compute everywhere, for
nothing is known before, and the second step's share is the first that was seen from a picture in garments. A file's term
hardly moves either: with `every` above 1 it is computed in every so many steps, and taken as it was in those between.
"""

from __future__ import annotations

from collections.abc import Sequence
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

THRESHOLD, EVERY = 0.1, 2
"""As artists have it: at 0.1 nothing is lost, from 0.15 on reference attention loses colours (docs/evidence/worn.md)."""

WHOLE_STEPS = 2

Term = tuple[Tensor, Tensor | None]
"""What `garment_attention` gives: the term (B, L, C) and A (B, L, N), or None without maps."""


@dataclass(frozen=True)
class Chosen:
    """A site's queries in one step. worn: those that garments reach, (B, K), a row's best again and again where it has fewer.
    rest: all others, and of some rows a few of `worn`, (B, R). Both long.
    """

    worn: Tensor
    rest: Tensor


class WornQueries:
    """What one condition of one sampling run knows of where garments are worn, and what they gave it.

    threshold: of a query's share; 0 computes everywhere. every: a file's term is computed in every so many steps. whole: how
    many steps come before all that. computed: site key -> the share of its queries that each step has computed.
    """

    def __init__(self, threshold: float = THRESHOLD, every: int = 1, whole: int = WHOLE_STEPS) -> None:
        self._threshold, self._every, self._whole = threshold, every, whole
        self._steps, self._size = 0, (0, 0)
        self._shares: dict[str, Tensor] = {}
        self._chosen: dict[str, Chosen] = {}
        self._kept: dict[str, Term] = {}
        self.computed: dict[str, list[float]] = {}

    @property
    def mean_computed(self) -> dict[str, float]:
        """Site key -> the share of its queries that a step has computed, in the mean over all steps."""
        return {site: sum(shares) / len(shares) for site, shares in self.computed.items()}

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
        self._count(site, query, None if kept is None else 0.0)
        some = kept
        if some is None:
            own_query, own_regions = query, regions
            if chosen is not None:
                own_query = some_of(query, chosen.worn)
                own_regions = None if regions is None else some_of(regions, chosen.worn)
            some = garment_attention(own_query, garments, regions=own_regions, attend=attend)
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
        self._count(site, query)
        if chosen is None:
            out, maps = reference_attention(query, key, value, garments, bias, attend=attend)
        else:
            own_bias = bias if bias.shape[1] == 1 else some_of(bias, chosen.worn)
            worn = some_of(query, chosen.worn)
            some, some_maps = reference_attention(worn, key, value, garments, own_bias, attend=attend)
            rest = plain(some_of(query, chosen.rest), key, value, garments.heads)
            length = query.shape[1]
            out = _put(all_of(rest, chosen.rest, length), chosen.worn, some)
            maps = all_of(some_maps, chosen.worn, length)
        self._saw(site, maps)
        return out, maps

    def _choose(self, sites: Sequence[AttentionSite]) -> dict[str, Chosen]:
        worn: dict[str, Tensor] = {}
        for site in sites:
            share, (height, width) = self._shares.get(site.key), site.grid(*self._size)
            if share is not None and share.shape[1] == height * width:
                above = (share > self._threshold).float().view(-1, 1, height, width)
                worn[site.key] = functional.max_pool2d(above, 3, 1, 1).flatten(1)  # -> (B, L), 1 is worn
        if not worn:
            return {}
        counts = {key: one.sum(dim=1).long().clamp(min=1) for key, one in worn.items()}
        ends = torch.stack([torch.stack([count.amin(), count.amax()]) for count in counts.values()])
        return {
            key: _ranked(2 * worn[key] + self._shares[key], counts[key], fewest, most)
            for key, (fewest, most) in zip(worn, (map(int, pair) for pair in ends.cpu()), strict=True)
            if fewest < worn[key].shape[1]
        }

    def _saw(self, site: str, maps: Tensor | None) -> None:
        if maps is not None and self._threshold:
            self._shares[site] = maps.sum(dim=-1)

    def _count(self, site: str, query: Tensor, share: float | None = None) -> None:
        if share is None:
            share = self._chosen[site].worn.shape[1] / query.shape[1] if site in self._chosen else 1.0
        self.computed.setdefault(site, []).append(share)


class WornStates(NamedTuple):
    """Of a file's term, and of reference attention, which have shares of their own."""

    trained: WornQueries
    reference: WornQueries

    @classmethod
    def usual(cls) -> WornStates:
        """As artists have it."""
        return cls.of(THRESHOLD, EVERY)

    @classmethod
    def of(cls, threshold: float, every: int) -> WornStates:
        """The same threshold for both."""
        return cls(WornQueries(threshold, every), WornQueries(threshold))


def _ranked(score: Tensor, counts: Tensor, fewest: int, most: int) -> Chosen:
    """The `counts` (B,) best of each row of scores (B, L), again and again its best where a row has fewer than `most`: what a
    picture wears does not depend on whom it is made with.
    """
    order = score.argsort(dim=1, descending=True, stable=True)
    best = order[:, :most]
    worn = torch.where(torch.arange(most, device=score.device) < counts[:, None], best, best[:, :1])
    return Chosen(worn, order[:, fewest:])


def some_of(x: Tensor, queries: Tensor) -> Tensor:
    """Rows (B, K, C) of x (B or 1, L, C)."""
    return x.expand(len(queries), -1, -1).gather(1, queries[..., None].expand(-1, -1, x.shape[-1]))


def all_of(some: Tensor, queries: Tensor, length: int) -> Tensor:
    """(B, L, C) with `some` (B, K, C) in their places, zero elsewhere."""
    return _put(some.new_zeros(len(some), length, some.shape[-1]), queries, some)


def _put(x: Tensor, queries: Tensor, some: Tensor) -> Tensor:
    """x (B, L, C), changed, with `some` (B, K, C) in their places."""
    return x.scatter_(1, queries[..., None].expand(-1, -1, some.shape[-1]), some)
