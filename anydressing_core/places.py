# SPDX-License-Identifier: GPL-3.0-or-later
"""Places: where each garment belongs in the picture that is being made, found by its words.

At a cross-attention layer a pixel's query meets the layer's key of the garment's words, which were encoded alone: no
position in the prompt needs to be known. How much the pixel looks for them, beside all that the prompt offers, is

    sigmoid(q . k_words / sqrt d  -  log sum_t exp(q . k_t / sqrt d)),    mean over heads.

Smoothed over the steps and divided by its maximum this is a garment's map; a softmax between the garments' maps, and a
constant that stands for anything else, gives each its place. The first step has no map yet, and so no places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .garment_kv import split_heads
from .reference_attention import reference_sites
from .sites import AttentionSite, UNetShape

SHARPNESS = 16.0
"""What a map of 1 outweighs one of 0 by, as a logit."""

ELSEWHERE = 0.45
"""Where no map is above this, no garment belongs."""

KEPT = 0.7
"""What a step keeps of the map of those before it."""

PROBE_TOKENS = 16
"""A grid of about 16 x 16 tokens knows words best: coarser ones are noise, finer ones see edges."""

OF_SLOTS = {"upper": "shirt", "lower": "trousers", "outer": "coat"}


def probe_site(shape: UNetShape, size: tuple[int, int]) -> AttentionSite:
    """The site at whose cross-attention words are looked for: of the decoder's that are nearest to PROBE_TOKENS a side,
    the first. size: h and w of the latent.
    """

    def away(site: AttentionSite) -> float:
        return abs(math.log(math.sqrt(math.prod(site.grid(*size))) / PROBE_TOKENS))

    return min(reference_sites(shape), key=away)  # the first of the nearest


def words_for(slot: str, words: str = "") -> str:
    """What a garment is called: its words, or where nobody says any, its slot's; most slots are words themselves."""
    return words.strip() or OF_SLOTS.get(slot, slot)


def word_maps(query: Tensor, prompt_key: Tensor, word_key: Tensor, heads: int) -> Tensor:
    """How much each pixel looks for each garment's words: (B, L, N), in fp32.

    query: (B, L, C), prompt_key: (B, T, C), word_key: (B or 1, N, C), all of one cross-attention layer, C = H*d.
    """
    q, prompt, words = (split_heads(x, heads).movedim(2, 1).float() for x in (query, prompt_key, word_key))
    q = q / math.sqrt(q.shape[-1])
    wanted = q @ words.transpose(-1, -2)  # -> (B, H, L, N)
    offered = (q @ prompt.transpose(-1, -2)).logsumexp(dim=-1, keepdim=True)
    return (wanted - offered).sigmoid().mean(dim=1)


class Places:
    """The places of N garments in the pictures of one condition, from step to step: state of one sampling run."""

    def __init__(self) -> None:
        self._mean: Tensor | None = None

    def see(self, maps: Tensor, size: tuple[int, int]) -> None:
        """Take in a step's `word_maps` (B, h_s, w_s, N), on their layer's grid. size: of the latent."""
        seen = functional.interpolate(maps.movedim(-1, 1), size, mode="bilinear")
        if self._mean is not None and self._mean.shape == seen.shape:
            seen = KEPT * self._mean + (1 - KEPT) * seen
        self._mean = seen

    def among(self, garments: Sequence[int]) -> Tensor | None:
        """p_k of some garments at every latent pixel, (B, n, h, w), adding up to 1 at most; None before the first step."""
        if self._mean is None:
            return None
        maps = self._mean[:, list(garments)]
        maps = maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        elsewhere = torch.full_like(maps[:, :1], ELSEWHERE)
        return (SHARPNESS * torch.cat([maps, elsewhere], dim=1)).softmax(dim=1)[:, :-1]


def on_grid(field: Tensor, grid: tuple[int, int]) -> Tensor:
    """Places, or region masks, (B, N, h, w), averaged over each token's area, row by row: (B, L, N)."""
    return functional.adaptive_avg_pool2d(field, grid).flatten(2).transpose(1, 2)
