# SPDX-License-Identifier: GPL-3.0-or-later
"""A garment read by a U-Net of its own, as MagicClothing's (OMS) weights do (arXiv 2404.09512).

    F = the input of self-attention in the garment model, at t = 0 and with the empty prompt
    Z = softmax([Q K^T, Q (F W_k)^T] / sqrt d) [V; F W_v]        Q, K, V, W_k, W_v the picture's own, at all sites

so it is reference attention with one level, no places, and weight 1 where canvas and picture are equally large. There
negative rows attend to as many tokens of zeros; here they stay as they are (Eq. 16).
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..anydressing_core.sites import UNetShape
from .garment import Level
from .garment_pass import GarmentPass, SiteKey, key_of, site_key


@torch.inference_mode()
def read_by_model(garment_model: Any, model: Any, shape: UNetShape, latent: Tensor, text: Tensor) -> Level:
    """Read a garment, LoRAs and all.

    latent: (1, 4, h, w), as ComfyUI's VAE gives it (unscaled). text: the empty prompt, (1, T, C_text).
    """
    reading = GarmentPass(garment_model, 1, latent, keep_loras=True)
    features: dict[SiteKey, Tensor] = {}

    def keep_input(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, ...]:
        features[key_of(extra)] = n
        return n, context, value

    clean = torch.zeros(1, device=reading.device)
    reading.run(reading.scaled(latent), clean, text, {"patches": {"attn1_patch": [keep_input]}})
    own = GarmentPass(model, 1, latent, keep_loras=True)
    home = comfy.model_management.intermediate_device()
    tokens: list[tuple[Tensor, Tensor]] = []
    for site in shape.sites:
        attention, normed = own.unet.get_submodule(site.ldm_name), features[site_key(site)].to(own.device, own.dtype)
        tokens.append((attention.to_k(normed).to(home), attention.to_v(normed).to(home)))
    always = 1.0  # the only level there is serves every step
    return Level(always, (latent.shape[-2], latent.shape[-1]), tuple(shape.sites), tuple(tokens))
