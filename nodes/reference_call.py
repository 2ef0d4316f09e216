# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference attention in one U-Net call: which tokens, with which biases, and what the call tells of places.

All that depends on the step or on the pictures is made ready before the call, outside of what torch.compile may see.
"""

from __future__ import annotations

import math
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
from .sampling_run import Row, SamplingRun


@dataclass(frozen=True)
class ReferenceCall:
    """What one call of the U-Net takes of reference mode.

    garments: site key -> K_g, V_g of those that take part, N. weights: w_k, (N,). biases: site key -> b (R, L, N), for the
    R rows of the call; none where every garment goes everywhere. word_keys: of the probe's site, its key and (1, n, C).
    looks: filled by the call, one (R, L, n).
    """

    garments: Mapping[str, GarmentKV]
    weights: Tensor
    biases: Mapping[str, Tensor]
    word_keys: tuple[str, Tensor] | None
    looks: list[Tensor] = field(default_factory=list[Tensor])

    def joint(self, site: str, q: Tensor, k: Tensor, v: Tensor, span: slice, attend: Attend) -> tuple[Tensor, Tensor]:
        """Z and A of some rows of q, k, v: (B, L, C) and (B, L, N)."""
        garments, bias = self._at(site, q, span)
        return reference_attention(q[span], k[span], v[span], garments, bias, attend=attend)

    def part(self, site: str, q: Tensor, k: Tensor, span: slice, attend: Attend) -> GarmentsPart:
        """The garments' part alone, of some rows."""
        garments, bias = self._at(site, q, span)
        return garments_part(q[span], k[span], garments, bias, attend=attend)

    def look(self, q: Tensor, k: Tensor, heads: int) -> None:
        """See at the probe's cross-attention what every row looks for."""
        assert self.word_keys is not None
        self.looks.append(word_maps(q, k, self.word_keys[1].to(q), heads))

    def _at(self, site: str, q: Tensor, span: slice) -> tuple[GarmentKV, Tensor]:
        garments = self.garments[site]
        garments = replace(garments, key=garments.key.to(q), value=garments.value.to(q))
        bias = self.biases.get(site)
        if bias is None or bias.shape[1] != q.shape[1]:
            return garments, garment_bias(self.weights)
        return garments, bias[span]


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
) -> dict[str, Tensor]:
    """b at every site where garments join, for all rows of a call: (R, L, N), none when no row has anything to say.

    fields: for each condition p_k over what it shows, (`batch` or 1, N, h, w), None for everywhere. size: h, w.
    """
    if all(field is None for field in fields):
        return {}
    everywhere = torch.ones(1, len(weights), *size, device=weights.device)
    whole = torch.cat([(everywhere if field is None else field).expand(batch, -1, -1, -1) for field in fields])
    grids = {site.key: site.grid(*size) for site in sites}
    of_grid = {grid: garment_bias(weights, on_grid(whole, grid)) for grid in set(grids.values())}
    return {key: of_grid[grid] for key, grid in grids.items()}


def learn(
    run: SamplingRun,
    who: object,
    rows: Sequence[Row | None],
    shape: UNetShape,
    call: ReferenceCall,
    size: tuple[int, int],
) -> None:
    """Let the run know where a call looked for the garments' words. rows: the conditional ones, None for the others."""
    grid = probe_site(shape, size).grid(*size)
    for maps in call.looks:
        if maps.shape[1] != math.prod(grid):
            continue  # tokens were merged or moved
        seen = maps.unflatten(1, grid)
        for index, row in enumerate(rows):
            if row is not None:
                run.places[who, row].see(seen[index * run.batch : (index + 1) * run.batch], size)
