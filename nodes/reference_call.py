# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference attention in one U-Net call: which tokens, with which biases, and what the call tells of places.

All that depends on the step or on the pictures is made ready before the call, outside of what torch.compile may see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..anydressing_core.garment_kv import Attend, GarmentKV
from ..anydressing_core.places import on_grid, probe_site, word_maps
from ..anydressing_core.reference_attention import (
    GarmentsPart,
    garment_bias,
    garments_part,
    reference_attention,
)
from ..anydressing_core.sites import AttentionSite, UNetShape
from ..anydressing_core.worn_queries import WornQueries
from .sampling_run import Row, SamplingRun

Grid = tuple[int, int]


@dataclass(frozen=True)
class Biases:
    """b of N garments at every token of R rows. fields: p_k over the picture, (R, N, h, w). ready: grid -> b (R, L, N)."""

    fields: Tensor
    weights: Tensor
    ready: Mapping[Grid, Tensor]

    def on(self, grid: Grid) -> Tensor:
        """b on a grid: (R, L, N). Deep Shrink has grids that no site has by itself."""
        ready = self.ready.get(grid)
        return garment_bias(self.weights, on_grid(self.fields, grid)) if ready is None else ready


@dataclass(frozen=True)
class ReferenceCall:
    """What one call of the U-Net takes of reference mode.

    garments: site key -> K_g, V_g of those that take part, N. weights: w_k, (N,). biases: of the R rows of the call; None
    where every garment goes everywhere. word_keys: of the probe's site, its key and (1, n, C). looks: filled by the call,
    one (R, h, w, n). A site's `grid` is its tokens' height and width; None where they lie in no grid any more.
    """

    garments: Mapping[str, GarmentKV]
    weights: Tensor
    biases: Biases | None
    word_keys: tuple[str, Tensor] | None
    looks: list[Tensor] = field(default_factory=list[Tensor])

    def joint(
        self,
        site: str,
        grid: Grid | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        span: slice,
        attends: tuple[Attend, Attend],
        worn: WornQueries | None,
    ) -> tuple[Tensor, Tensor]:
        """Z and A of some rows of q, k, v: (B, L, C) and (B, L, N). attends: with widened heads, and with plain ones. worn:
        where these rows wear something, when it is known.
        """
        garments, bias = self._at(site, grid, q, span)
        attend, plain = attends
        q, k, v = q[span], k[span], v[span]
        if worn is None:
            return reference_attention(q, k, v, garments, bias, attend=attend)
        return worn.joint(site, q, k, v, garments, bias, attend=attend, plain=plain)

    def part(self, site: str, grid: Grid | None, q: Tensor, k: Tensor, span: slice, attend: Attend) -> GarmentsPart:
        """The garments' part alone, of some rows."""
        garments, bias = self._at(site, grid, q, span)
        return garments_part(q[span], k[span], garments, bias, attend=attend)

    def look(self, grid: Grid, q: Tensor, k: Tensor, heads: int) -> None:
        """See at the probe's cross-attention what every row looks for."""
        assert self.word_keys is not None
        self.looks.append(word_maps(q, k, self.word_keys[1].to(q), heads).unflatten(1, grid))

    def _at(self, site: str, grid: Grid | None, q: Tensor, span: slice) -> tuple[GarmentKV, Tensor]:
        garments = self.garments[site]
        garments = replace(garments, key=garments.key.to(q), value=garments.value.to(q))
        if self.biases is None or grid is None:
            return garments, garment_bias(self.weights)
        return garments, self.biases.on(grid)[span]


def word_keys(unet: Any, shape: UNetShape, size: tuple[int, int], words: Tensor) -> tuple[str, Tensor]:
    """The probe's site and its keys of words (1, n, C_text), through the U-Net's own module, wherever its weights rest."""
    site = probe_site(shape, size)
    attention = getattr(unet, "_orig_mod", unet).get_submodule(site.ldm_name.removesuffix("1") + "2")
    return site.key, attention.to_k(words)


def biases(
    sites: Sequence[AttentionSite],
    fields: Sequence[Tensor | None],
    weights: Tensor,
    batch: int,
    size: tuple[int, int],
) -> Biases | None:
    """b for all rows of a call, ready on the grids of the sites where garments join; None when no row has anything to say.

    fields: for each condition p_k over what it shows, (`batch` or 1, N, h, w), None for everywhere. size: h, w.
    """
    if all(field is None for field in fields):
        return None
    everywhere = torch.ones(1, len(weights), *size, device=weights.device)
    whole = torch.cat([(everywhere if field is None else field).expand(batch, -1, -1, -1) for field in fields])
    grids = {site.grid(*size) for site in sites}
    return Biases(whole, weights, {grid: garment_bias(weights, on_grid(whole, grid)) for grid in grids})


def learn(
    run: SamplingRun, who: object, rows: Sequence[Row | None], call: ReferenceCall, size: tuple[int, int]
) -> None:
    """Let the run know where a call looked for the garments' words. rows: the conditional ones, None for the others."""
    for seen in call.looks:
        for index, row in enumerate(rows):
            if row is not None:
                run.places[who, row].see(seen[index * run.batch : (index + 1) * run.batch], size)
