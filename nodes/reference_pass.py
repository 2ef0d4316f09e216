# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference mode's pass: a garment at a few levels of noise through the user's own U-Net, whose keys and values are kept."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..anydressing_core.noise_levels import LEVELS, SEED, level_fractions
from ..anydressing_core.reference_attention import CONTRAST, reference_sites
from ..anydressing_core.sites import UNetShape
from .garment import Level
from .garment_pass import AllReadError, GarmentPass, SiteKey, key_of, silent_text, site_key
from .kernels import own_attention


@torch.inference_mode()
def read_levels(
    model: Any, shape: UNetShape, latent: Tensor, text: Tensor | None, *, keep_loras: bool
) -> tuple[Level, ...]:
    """Read a garment at each level of noise of the connected model's own schedule, all in one batch.

    latent: (1, 4, h, w), as ComfyUI's VAE gives it (unscaled). text: (1, T, C_text) that the pass is told, None for
    silence. keep_loras: as of `GarmentPass`.
    """
    garment_pass = GarmentPass(model, LEVELS, latent, keep_loras=keep_loras)
    sampling = garment_pass.sampling
    sigmas = torch.stack([_sigma(sampling, fraction) for fraction in level_fractions(LEVELS)]).to(garment_pass.device)
    clean = garment_pass.scaled(latent)
    noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(SEED))[None].to(clean)
    each = sigmas[:, None, None, None]
    noisy = sampling.noise_scaling(each, noise.expand(LEVELS, -1, -1, -1), clean.expand(LEVELS, -1, -1, -1))
    hooks = _KeepTokens(shape)
    silent = text is None
    context = torch.zeros(1, 1, shape.cross_attention_dim) if text is None else text
    garment_pass.run(
        sampling.calculate_input(each, noisy),
        sampling.timestep(sigmas).float(),
        context.expand(LEVELS, -1, -1),
        hooks.transformer_options(silent=silent),
    )
    canvas, sites = (latent.shape[-2], latent.shape[-1]), reference_sites(shape)
    kept = [hooks.tokens[site_key(site)] for site in sites]

    def at_level(row: int) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple((CONTRAST * key[row : row + 1], value[row : row + 1]) for key, value in kept)

    return tuple(Level(float(sigma), canvas, sites, at_level(row)) for row, sigma in enumerate(sigmas))


def _sigma(sampling: Any, fraction: float) -> Tensor:
    """The noise at a fraction of the schedule, at one of the model's own timesteps."""
    near = torch.tensor(float(sampling.percent_to_sigma(1 - fraction)))
    return torch.as_tensor(sampling.sigma(sampling.timestep(near))).float().cpu()


class _KeepTokens:
    """Keeps K and V of the sites at which reference attention is joint; the U-Net computes as ever."""

    def __init__(self, shape: UNetShape) -> None:
        self.shape = shape
        self.sites = [site_key(site) for site in reference_sites(shape)]
        self.tokens: dict[SiteKey, tuple[Tensor, Tensor]] = {}
        self._home = comfy.model_management.intermediate_device()

    def transformer_options(self, *, silent: bool) -> dict[str, Any]:
        replace: dict[str, dict[SiteKey, Any]] = {"attn1": dict.fromkeys(self.sites, self.attend)}
        if not silent:
            return {"patches_replace": replace}
        patches, replace["attn2"] = silent_text([site_key(site) for site in self.shape.sites])
        return {"patches": patches, "patches_replace": replace}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        self.tokens[key_of(extra)] = (k.to(self._home), v.to(self._home))
        if len(self.tokens) == len(self.sites):
            raise AllReadError
        return own_attention(q, k, v, self.shape.heads, extra)
