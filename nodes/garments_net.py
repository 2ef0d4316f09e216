# SPDX-License-Identifier: GPL-3.0-or-later
"""GarmentsNet in ComfyUI: one pass of the user's own U-Net over a garment, at t = 0, without text (Sec. 4.1)."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..anydressing_core.checkpoint import Checkpoint
from ..anydressing_core.checkpoint_info import LoraTarget
from ..anydressing_core.lora import grouped_lora
from ..anydressing_core.sites import UNetShape
from .garment import Tokens
from .garment_pass import AllReadError, GarmentPass, SiteKey, key_of, silent_text, site_key
from .kernels import own_attention


@torch.inference_mode()
def garment_features(
    model: Any, shape: UNetShape, latent: Tensor, checkpoint: Checkpoint, slot: str, *, keep_loras: bool
) -> Tokens:
    """Run GarmentsNet over one garment: F, (1, L_g, C), per site in the U-Net's order.

    latent: (1, 4, h, w), as ComfyUI's VAE gives it (unscaled). keep_loras: as of `GarmentPass`.
    """
    garment_pass = GarmentPass(model, 1, latent, keep_loras=keep_loras)
    hooks = _PassHooks(shape, checkpoint, slot)
    timestep = torch.zeros(1, device=garment_pass.device)
    context = torch.zeros(1, 1, shape.cross_attention_dim)
    garment_pass.run(garment_pass.scaled(latent), timestep, context, hooks.transformer_options())
    home = comfy.model_management.intermediate_device()
    return tuple(hooks.tokens[site_key(site)].to(home) for site in shape.sites)


class _PassHooks:
    """The patches of one pass: add the garment's LoRA to q, k, v (Eq. 3), silence cross-attention, keep features."""

    def __init__(self, shape: UNetShape, checkpoint: Checkpoint, slot: str) -> None:
        self.shape = shape
        self.sites = {site_key(site): site for site in shape.sites}
        self.checkpoint, self.slot = checkpoint, slot
        self.tokens: dict[SiteKey, Tensor] = {}
        self.normed = self.attended = torch.empty(0)

    def transformer_options(self) -> dict[str, Any]:
        patches, attn2 = silent_text(self.sites)
        return {
            "patches": {
                "attn1_patch": [self.keep_input],
                "attn1_output_patch": [self.add_output_lora],
                **patches,
            },
            "patches_replace": {"attn1": dict.fromkeys(self.sites, self.attend), "attn2": attn2},
        }

    def keep_input(self, n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, ...]:
        self.normed = n
        return n, context, value

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        n, taps_input = self.normed, self.checkpoint.info.feature_tap == "attn_input"
        if taps_input:
            self._keep(n, extra)
        q, k, v = (q + self._lora("q", n, extra), k + self._lora("k", n, extra), v + self._lora("v", n, extra))
        out = own_attention(q, k, v, self.shape.heads, extra)
        if not taps_input:
            self._keep(out, extra)
        self.attended = out
        return out

    def _keep(self, features: Tensor, extra: dict[str, Any]) -> None:
        self.tokens[key_of(extra)] = features
        if len(self.tokens) == len(self.sites):
            raise AllReadError

    def add_output_lora(self, n: Tensor, extra: dict[str, Any]) -> Tensor:
        return n + self._lora("out", self.attended, extra)

    def _lora(self, target: LoraTarget, x: Tensor, extra: dict[str, Any]) -> Tensor | float:
        pair = self.checkpoint.lora(self.slot, self.sites[key_of(extra)].key).get(target)
        if pair is None:
            return 0.0
        down, up = (weight[None].to(x) for weight in pair)
        return grouped_lora(x, down, up, torch.tensor([self.checkpoint.scale(self.slot)], device=x.device))
