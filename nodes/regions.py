# SPDX-License-Identifier: GPL-3.0-or-later
"""Region masks over what each condition of a U-Net call shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.latents import CELL
from ..anydressing_core.refusals import refusal
from .conditions import CALL, Area, ConditionCall
from .kernels import warn_once


def regions_of_conditions(options: dict[str, Any], regions: Sequence[Tensor | None], x: Tensor) -> list[Tensor] | None:
    """For each condition of a call the masks of N garments over its part of the picture, (N, h, w); None without any.

    regions: (H, W) in [0, 1] over the whole picture, None for everywhere. x: what the U-Net is given. Raises ValueError
    where they cannot be placed.
    """
    if all(region is None for region in regions):
        return None
    rows = options.get("cond_or_uncond", [0])
    call: ConditionCall | None = options.get(CALL)
    whole = Area(*x.shape[-2:]) if call is None else call.whole
    for region in regions:
        _doubt_region(region, whole)
    masks = torch.stack([_latent_mask(region, whole) for region in regions])
    areas = {} if call is None else call.areas
    places = [areas.get(row, whole) for row in zip(rows, options.get("uuids", rows), strict=True)]
    if any((place.height, place.width) != tuple(x.shape[-2:]) for place in places):
        raise refusal(
            "region:",
            "this MODEL is sampled in tiles, so a region cannot be placed",
            f"A piece of {x.shape[-1]} x {x.shape[-2]} came, of a latent of {whole.width} x {whole.height}.",
            "remove the region from Garment Settings, or the node that tiles the sampling.",
        )
    return [
        masks[:, place.top : place.top + place.height, place.left : place.left + place.width].to(x.device)
        for place in places
    ]


def _doubt_region(region: Tensor | None, whole: Area) -> None:
    """Say so when a region has another shape than what is sampled: then that is a tile or a crop, as like as not."""
    if region is None:
        return
    height, width = region.shape
    if abs(width * whole.height - height * whole.width) > max(height, width):  # a cell of rounding
        warn_once(
            f"a region drawn at {width} x {height} is stretched over {whole.width * CELL} x {whole.height * CELL}, which has "
            "another shape. Upscalers and detailers that sample a tile or a crop at a time stretch it over each of them: "
            "dress without regions there."
        )


def _latent_mask(region: Tensor | None, whole: Area) -> Tensor:
    """One garment's region over the whole latent, (h, w); a garment without one may go everywhere."""
    if region is None:
        return torch.ones(whole.height, whole.width)
    return functional.adaptive_avg_pool2d(region[None, None], (whole.height, whole.width))[0, 0]
