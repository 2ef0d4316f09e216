# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing by reference: alone, or beside a trained file's own attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ...anydressing_core.defaults import STRENGTH
from ...anydressing_core.garment_kv import GarmentKV
from ...anydressing_core.latents import Size
from ...anydressing_core.reference_attention import WITH_FILE, WITHOUT_FILE
from ..base.model import BaseModel
from .dresser import Preparation
from .dressing import DressingModel
from .outfits import Outfits
from .processors import install
from .reference import Reference, read_garments


class ReferenceDresser:
    """base: the frozen model. resolution: of a garment's canvas. trained: a file on the same base, or None."""

    def __init__(self, base: BaseModel, resolution: Size, trained: DressingModel | None = None) -> None:
        install(base.unet)
        self._base, self._trained = base, trained
        self._no_text = base.encode_text([""])[0]
        slots = () if trained is None else trained.preparation.slots
        self.preparation = Preparation(slots, resolution)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self._base.unet

    def garments(self, outfits: Outfits) -> Mapping[str, GarmentKV] | None:
        """As of the trained file."""
        return None if self._trained is None else self._trained.garments(outfits)

    def reference(self, outfits: Outfits, strength: float) -> Reference | None:
        """Read a batch's garments; None at strength 0."""
        if strength == 0:
            return None
        worn, device = outfits.worn.clamp(min=0), self.unet.device
        return Reference(
            self._read(outfits),
            torch.full((outfits.worn.shape[1],), self._weight(strength), device=device),
            (outfits.latents.shape[-2], outfits.latents.shape[-1]),
            None if outfits.words is None else outfits.words[worn].to(device, self.unet.dtype),
            outfits.worn >= 0,
            self._base.schedule,
            self._base.shape,
            None if outfits.regions is None else outfits.regions[worn],
        )

    def _read(self, outfits: Outfits) -> dict[int, dict[str, GarmentKV]]:
        return read_garments(self.unet, self._base.schedule, outfits, self._no_text)

    def _weight(self, strength: float) -> float:
        return (WITHOUT_FILE if self._trained is None else WITH_FILE) * strength / STRENGTH
