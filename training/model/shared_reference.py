# SPDX-License-Identifier: GPL-3.0-or-later
"""Base of the paper's Table 3: one reference pass over all garments of a person side by side, without GFE."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange

from ...anydressing_core.garment_kv import GarmentKV
from .dressing import DressingModel
from .garment_tokens import Part
from .outfits import Outfits
from .processors import GarmentsRole, garment_features


class SharedReference(DressingModel):
    """All garments of a person side by side in one picture, which GarmentsNet reads in one pass without LoRAs."""

    def garments(self, outfits: Outfits, *, maps: bool = True) -> dict[str, GarmentKV]:
        """K' and V' as of the parent; a garment that somebody lacks is a blank place in her picture."""
        own = _unrolled(outfits)
        people, most = outfits.worn.shape
        height, width = own.latents.shape[-2:]
        picture = rearrange(own.latents, "(b n) c h w -> b c h (n w)", n=most)
        role = GarmentsRole({}, self.adapter.info.feature_tap)
        features = garment_features(self.unet, picture.to(self.unet.dtype), role)
        sites = {site.key: site.grid(height, most * width) for site in self.adapter.info.unet.sites}
        apart = {
            key: rearrange(features[key], "b (h n w) c -> (b n) (h w) c", b=people, h=grid[0], n=most)
            for key, grid in sites.items()
        }
        return self._laid_out([Part.whole(own, self.adapter.info.garment_tokens)], [apart], own, maps)


def _unrolled(outfits: Outfits) -> Outfits:
    """Every person's garments for herself alone: B N garments, blank where she lacks one."""
    worn = outfits.worn
    index = worn.clamp(min=0).flatten()
    latents = outfits.latents[index] * (worn >= 0).flatten()[:, None, None, None]
    return replace(
        outfits,
        latents=latents,
        slots=[outfits.slots[place] for place in index.tolist()],
        worn=torch.where(worn >= 0, torch.arange(worn.numel(), device=worn.device).view_as(worn), -1),
        cells=None if outfits.cells is None else outfits.cells[index],
    )
