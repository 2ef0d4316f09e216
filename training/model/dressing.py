# SPDX-License-Identifier: GPL-3.0-or-later
"""One training step's forward pass: GarmentsNet over all garments of a batch, then DressingNet over its people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ...anydressing_core.garment_kv import GarmentKV, garment_kv, project_garment
from ...anydressing_core.sites import AttentionSite
from .adapter import Adapter
from .dresser import Preparation
from .garment_tokens import Part, packings, parts_of, side_by_side, token_mask
from .outfits import Outfits
from .processors import DressingRole, GarmentsRole, dressed_prediction, garment_features, install
from .reference import Reference


@dataclass(frozen=True)
class Prediction:
    """noise: (B, 4, h, w). maps: site key -> A (B, L, N), zero for garments that a person does not wear."""

    noise: Tensor
    maps: dict[str, Tensor]


class DressingModel(nn.Module):
    """The frozen U-Net in both roles, and the adapter that is trained.

    The U-Net is no submodule: it is not trained, saved or synchronised with the adapter.
    """

    def __init__(self, unet: UNet2DConditionModel, adapter: Adapter) -> None:
        super().__init__()
        install(unet)
        self.adapter = adapter
        self._frozen = (unet,)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self._frozen[0]

    @property
    def preparation(self) -> Preparation:
        return Preparation(self.adapter.info.slots, self.adapter.info.resolution)

    def reference(self, outfits: Outfits, strength: float) -> Reference | None:
        """A trained file dresses by its own attention alone."""
        return None

    def forward(
        self, noisy: Tensor, timestep: Tensor, text: Tensor, outfits: Outfits, strength: float = 1.0
    ) -> Prediction:
        """Predict the noise of dressed people.

        noisy: (B, 4, h, w). timestep: (B,), 0..999. text: (B, 77, C_text). strength: lambda, 1 in training (D8). The
        U-Net computes in its own dtype.
        """
        role = DressingRole(self.garments(outfits), strength)
        dtype = self.unet.dtype
        noise = dressed_prediction(self.unet, noisy.to(dtype), timestep, text.to(dtype), role)
        return Prediction(noise + self._anchor().to(noise), role.maps)

    def garments(self, outfits: Outfits, *, maps: bool = True) -> dict[str, GarmentKV]:
        """Run GarmentsNet over all garments in parallel and lay their K' and V' out, person by person."""
        parts = parts_of(outfits, self.adapter.info.garment_tokens, self.adapter.info.unet.stride)
        read = [self._read(part, [outfits.slots[row] for row in part.rows]) for part in parts]
        return self._laid_out(parts, read, outfits, maps)

    def _read(self, part: Part, slots: Sequence[str]) -> dict[str, Tensor]:
        role = GarmentsRole(self.adapter.loras(slots), self.adapter.info.feature_tap)
        return garment_features(self.unet, part.latents.to(self.unet.dtype), role)

    def _laid_out(
        self, parts: Sequence[Part], read: Sequence[Mapping[str, Tensor]], outfits: Outfits, maps: bool
    ) -> dict[str, GarmentKV]:
        """read: of each part, site key -> (g, L_g, C)."""
        sites, laid_out = self.adapter.info.unet.sites, dict[str, GarmentKV]()
        of_parts = [packings(part.cells, sites) for part in parts]
        for site in sites:
            packed = [of_part.get(site.key) for of_part in of_parts]
            features, there = side_by_side(parts, [one[site.key] for one in read], packed)
            laid_out[site.key] = self._at_site(site, features, there, outfits, maps)
        return laid_out

    def _at_site(
        self, site: AttentionSite, features: Tensor, there: Tensor | None, outfits: Outfits, maps: bool
    ) -> GarmentKV:
        """features: (G, M, C), of which some may only fill. there: (G, M) bool, which do not; None for all."""
        dressing = self.adapter.site(site.key)
        to_k, to_v = (weight.to(features) for weight in (dressing.to_k.weight, dressing.to_v.weight))
        key, value = project_garment(features, to_k, to_v)  # -> (G, M, C)
        index = outfits.worn.clamp(min=0)
        null = dressing.null
        return garment_kv(
            list(key[index].unbind(1)),
            list(value[index].unbind(1)),
            self.adapter.info.unet.heads,
            null=None if null is None else (null[0].to(features), null[1]),
            token_mask=token_mask(outfits.worn, there, key.shape[1]),
            maps=maps,
        )

    def _anchor(self) -> Tensor:
        """Zero, through every trained parameter.

        In a distributed run each must receive a gradient on every process, also the LoRA of a garment kind that this
        batch lacks, or one that comes after the last feature.
        """
        return torch.stack([0.0 * parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum()
