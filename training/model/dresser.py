# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever dresses people: a trained file, reference mode, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ...anydressing_core.garment_kv import GarmentKV
from ...anydressing_core.latents import Size
from .outfits import Outfits
from .reference import Reference


@dataclass(frozen=True)
class Preparation:
    """How pictures and garments are made ready.

    slots: the garment kinds that are known, none where any is taken. resolution: H and W of a garment's canvas, in pixels.
    """

    slots: tuple[str, ...]
    resolution: Size


class Dresser(Protocol):
    """What sampling needs of whoever dresses people."""

    @property
    def unet(self) -> UNet2DConditionModel:
        """The frozen U-Net, with our processors."""
        ...

    @property
    def preparation(self) -> Preparation: ...

    def garments(self, outfits: Outfits) -> Mapping[str, GarmentKV] | None:
        """K' and V' of what a batch wears, by site, or None without a trained file."""
        ...

    def reference(self, outfits: Outfits, strength: float) -> Reference | None:
        """Reference attention of one sampling run, or None where garments are not dressed by it."""
        ...
