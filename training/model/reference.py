# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference mode on diffusers: garments dress by the frozen U-Net's own attention, without any trained file.

Each garment is read once by the same U-Net at a few levels of noise (`read_garments`); every step then attends to the
keys and values of the nearest level, each garment kept to the places of its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ...anydressing_core.garment_kv import GarmentKV
from ...anydressing_core.noise_levels import LEVELS, SEED, level_fractions, nearest_level
from ...anydressing_core.places import Places, probe_site
from ...anydressing_core.reference_attention import CONTRAST, fair_weight, reference_kv, reference_sites
from ...anydressing_core.sites import AttentionSite, UNetShape
from ..base.schedule import NoiseSchedule
from .garment_tokens import Packing, packings, token_mask
from .outfits import Outfits
from .processors import ReadingRole, ReferenceStep, read_tokens


def level_timesteps(count: int = LEVELS) -> list[int]:
    """The levels as timesteps: 62, 187 ... 812, 937 for eight."""
    return [round(999 * fraction) for fraction in level_fractions(count)]


@torch.no_grad()
def read_garments(
    unet: UNet2DConditionModel,
    schedule: NoiseSchedule,
    outfits: Outfits,
    text: Tensor | None,
    *,
    timesteps: Sequence[int] = (),
    sites: Sequence[AttentionSite] = (),
    contrast: float = CONTRAST,
) -> dict[int, dict[str, GarmentKV]]:
    """Read all garments of a batch at each level of noise: timestep -> site key -> K_g and V_g, person by person.

    text: (77, C) or (G, 77, C) that the pass is told, None for silence. timesteps, sites: other than those of
    `level_timesteps` and `reference_sites`. contrast: of keys.
    """
    shape = UNetShape.from_diffusers(unet.config)
    kept = sites or reference_sites(shape)
    latents = outfits.latents.float()
    noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(SEED)).to(latents)
    prompt = latents.new_zeros(1, 1, shape.cross_attention_dim) if text is None else text
    prompt = prompt.to(unet.device, unet.dtype).expand(len(latents), -1, -1)
    packing = packings(outfits.cells, kept)
    levels: dict[int, dict[str, GarmentKV]] = {}
    for timestep in sorted(timesteps or level_timesteps()):
        noisy = schedule.add_noise(latents, noise.expand_as(latents), torch.tensor([timestep]))
        role = ReadingRole(frozenset(site.key for site in kept), silent=text is None)
        tokens = read_tokens(unet, noisy.to(unet.dtype), timestep, prompt, role)
        levels[timestep] = {}
        for site in kept:
            key, value = tokens[site.key]
            pair = (contrast * key, value)
            levels[timestep][site.key] = _laid_out(pair, packing.get(site.key), outfits.worn, shape.heads)
    return levels


def _laid_out(pair: tuple[Tensor, Tensor], packing: Packing | None, worn: Tensor, heads: int) -> GarmentKV:
    """pair: key and value, (G, L_g, C). packing: None where all of them take part. worn: as of `Outfits`."""
    key, value = pair if packing is None else map(packing.pack, pair)
    keys, values = (list(part[worn.clamp(min=0)].unbind(1)) for part in (key, value))
    there = None if packing is None else packing.there
    return reference_kv(keys, values, heads, token_mask(worn, there, key.shape[1]))


@dataclass
class Reference:
    """What one sampling run knows of its garments: read once, and where they go, which each step tells the next.

    levels: from `read_garments`. weights: of the garments, (N,), before `fair_weight`. canvas: h and w of their latents. words: (B, N, C_text), or None where places are off. present: (B, N)
    bool, which garments each person wears. regions: (B, N, h, w), in place of words.
    """

    levels: Mapping[int, Mapping[str, GarmentKV]]
    weights: Tensor
    canvas: tuple[int, int]
    words: Tensor | None
    present: Tensor
    schedule: NoiseSchedule
    shape: UNetShape
    regions: Tensor | None = None
    places: Places = field(default_factory=Places)

    def step(self, timestep: int, size: tuple[int, int]) -> ReferenceStep:
        """What a step's call takes with it. size: of the latent."""
        known = list(self.levels)
        nearest = nearest_level(self._sigma(timestep), [self._sigma(level) for level in known])
        places = self.regions
        if places is None:
            places = self.places.among(range(len(self.weights)))
        if places is not None:  # what would be a garment's that somebody lacks is left to the others
            worn = self.present[:, :, None, None]
            places = places * worn / (1 - (places * ~worn).sum(dim=1, keepdim=True)).clamp(min=1e-6)
        probe = probe_site(self.shape, size).key
        weights = self.weights * fair_weight(1.0, self.canvas, size)
        return ReferenceStep(self.levels[known[nearest]], weights, places, self.words, probe, size)

    def took(self, step: ReferenceStep) -> None:
        """Learn from a call where the garments' words were looked for."""
        for look in step.looks:
            self.places.see(look, step.size)

    def _sigma(self, timestep: int) -> float:
        signal = float(self.schedule.alphas_cumprod[timestep])
        return ((1 - signal) / signal) ** 0.5
