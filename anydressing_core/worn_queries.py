# SPDX-License-Identifier: GPL-3.0-or-later
"""Only where it is worn: which of a site's queries need the garments' term at all.

With a null token a pixel's attention to garments is known, s = sum_k A_k = 1 - A_null, and from step to step it hardly
moves. A step computes the term for the queries whose share was above THRESHOLD in the step before, and their neighbours:

    Q_(t+1) = { p : max over the 3 x 3 tokens around p of s_t > THRESHOLD }

Elsewhere the term is zero. The first WHOLE_STEPS compute everywhere, for nothing is known before, and the second step's
share is the first that was seen from a picture in garments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .latents import Size
from .sites import AttentionSite

THRESHOLD = 0.1
WHOLE_STEPS = 2

Queries = Mapping[str, Tensor]
"""Site key -> which queries are computed, (B, K) long; a site that is not there computes all."""


class WornQueries:
    """What one condition of one sampling run knows of where garments are worn.

    threshold, whole: other than those above. computed: site key -> the share of its queries in each step that was chosen for.
    """

    def __init__(self, threshold: float = THRESHOLD, whole: int = WHOLE_STEPS) -> None:
        self._threshold, self._whole = threshold, whole
        self._shares: dict[str, Tensor] = {}
        self._steps = 0
        self.computed: dict[str, list[float]] = {}

    def see(self, maps: Mapping[str, Tensor]) -> None:
        """Take in a step: site key -> A (B, L, N), zero where it was not computed."""
        self._shares = {key: one.sum(dim=-1) for key, one in maps.items()}
        self._steps += 1

    def chosen(self, sites: Sequence[AttentionSite], size: Size) -> Queries:
        """Which queries the next step computes. size: h and w of the latent; another than that of the step before is all.

        It waits for the device once, for all sites together.
        """
        if self._steps < self._whole:
            return self._told({}, sites, size)
        worn: dict[str, Tensor] = {}
        for site in sites:
            share, (height, width) = self._shares.get(site.key), site.grid(*size)
            if share is not None and share.shape[1] == height * width:
                above = (share > self._threshold).float().view(-1, 1, height, width)
                worn[site.key] = functional.max_pool2d(above, 3, 1, 1).flatten(1)  # -> (B, L), 1 is worn
        counts = {key: one.sum(dim=1).long().clamp(min=1) for key, one in worn.items()}
        if not worn:
            return self._told({}, sites, size)
        ends = torch.stack([torch.stack([count.amin(), count.amax()]) for count in counts.values()])
        chosen = {
            key: _ranked(2 * worn[key] + self._shares[key], counts[key], most)
            for key, (fewest, most) in zip(worn, (map(int, pair) for pair in ends.cpu()), strict=True)
            if fewest < worn[key].shape[1]
        }
        return self._told(chosen, sites, size)

    def _told(self, chosen: Queries, sites: Sequence[AttentionSite], size: Size) -> Queries:
        for site in sites:
            share = chosen[site.key].shape[1] / math.prod(site.grid(*size)) if site.key in chosen else 1.0
            self.computed.setdefault(site.key, []).append(share)
        return chosen


def _ranked(score: Tensor, counts: Tensor, most: int) -> Tensor:
    """The `counts` (B,) best of each row of scores (B, L), again and again its best where a row has fewer than `most`: what a
    picture wears does not depend on whom it is made with.
    """
    best = score.topk(most, dim=1).indices
    return torch.where(torch.arange(most, device=score.device) < counts[:, None], best, best[:, :1])


def some_of(x: Tensor, queries: Tensor) -> Tensor:
    """Rows (B, K, C) of x (B or 1, L, C)."""
    return x.expand(len(queries), -1, -1).gather(1, queries[..., None].expand(-1, -1, x.shape[-1]))


def all_of(some: Tensor, queries: Tensor, length: int) -> Tensor:
    """(B, L, C) with `some` (B, K, C) in their places, zero elsewhere."""
    index = queries[..., None].expand(-1, -1, some.shape[-1])
    return some.new_zeros(len(some), length, some.shape[-1]).scatter(1, index, some)
