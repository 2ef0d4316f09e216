# SPDX-License-Identifier: GPL-3.0-or-later
"""GarmentsNet in ComfyUI: one pass of the user's own U-Net over a garment, at t = 0, without text (Sec. 4.1).

GarmentsNet and DressingNet are the same frozen weights, so the loaded U-Net serves as it is: on a clone without the
user's patches, loaded by ComfyUI's own memory management, called once through ComfyUI's patch points. Only modules
are called, never their weights read, so fp8, manual-cast and partly offloaded weights all work.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.checkpoint import Checkpoint
from ..anydressing_core.checkpoint_info import LoraTarget
from ..anydressing_core.lora import grouped_lora
from ..anydressing_core.sites import AttentionSite, UNetShape
from .unet import compute_dtype

logger = logging.getLogger(__name__)

SiteKey = tuple[str, int, int]
"""How ComfyUI names an attention layer to patches: ("input" | "middle" | "output", block, transformer index)."""


Tokens = tuple[tuple[Tensor, ...], ...]
"""What one pass leaves, per site in the U-Net's order: (F,) or, in training-free mode, (K', V'), each (1, L_g, C)."""


@torch.inference_mode()
def garment_features(
    model: Any, shape: UNetShape, latent: Tensor, checkpoint: Checkpoint | None, slot: str, *, keep_loras: bool
) -> Tokens:
    """Run GarmentsNet over one garment.

    latent: (1, 4, h, w), as ComfyUI's VAE gives it (unscaled). checkpoint: None runs training-free.
    keep_loras: leave the user's own LoRAs in; by default the pass sees the plain checkpoint.
    """
    patcher = _clone_for_pass(model, keep_loras)
    memory = patcher.memory_required([1, *latent.shape[1:]])
    comfy.model_management.load_models_gpu([patcher], memory_required=memory)
    base, device, dtype = patcher.model, patcher.load_device, compute_dtype(patcher)

    x = base.process_latent_in(latent).to(device, dtype)
    x = functional.pad(x, (0, 0, 0, 0, 0, base.diffusion_model.in_channels - x.shape[1]))  # inpainting: empty mask
    timestep = torch.zeros(1, device=device)
    context = torch.zeros(1, 1, shape.cross_attention_dim, device=device, dtype=dtype)
    hooks = _PassHooks(shape, checkpoint, slot)
    options = hooks.transformer_options(_attention_override(model))
    base.diffusion_model(x, timestep, context=context, transformer_options=options)

    home = comfy.model_management.intermediate_device()
    return tuple(tuple(part.to(home) for part in hooks.tokens[_site_key(site)]) for site in shape.sites)


class _PassHooks:
    """The patches of one pass: add the garment's LoRA to q, k, v (Eq. 3), silence cross-attention, keep features."""

    def __init__(self, shape: UNetShape, checkpoint: Checkpoint | None, slot: str) -> None:
        self.shape = shape
        self.sites = {_site_key(site): site for site in shape.sites}
        self.checkpoint, self.slot = checkpoint, slot
        self.tokens: dict[SiteKey, tuple[Tensor, ...]] = {}
        self.normed = self.attended = torch.empty(0)

    def transformer_options(self, override: dict[str, Any]) -> dict[str, Any]:
        return {
            **override,
            "cond_or_uncond": [0],
            "sigmas": torch.zeros(1),
            "patches": {
                "attn1_patch": [self.keep_input],
                "attn1_output_patch": [self.add_output_lora],
                "attn2_patch": [_shrink_cross_attention],
                "attn2_output_patch": [_silence_cross_attention],
            },
            "patches_replace": {
                "attn1": dict.fromkeys(self.sites, self.attend),
                "attn2": dict.fromkeys(self.sites, _skip_cross_attention),
            },
        }

    def keep_input(self, n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, ...]:
        self.normed = n
        return n, context, value

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        n = self.normed
        q, k, v = (q + self._lora("q", n, extra), k + self._lora("k", n, extra), v + self._lora("v", n, extra))
        precision = extra.get("attn_precision")
        out = optimized_attention(q, k, v, self.shape.heads, attn_precision=precision, transformer_options=extra)
        self.tokens[_key_of(extra)] = self._tap(k, v, out)
        self.attended = out
        return out

    def add_output_lora(self, n: Tensor, extra: dict[str, Any]) -> Tensor:
        return n + self._lora("out", self.attended, extra)

    def _tap(self, k: Tensor, v: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        if self.checkpoint is None:
            return k, v  # W_k' = W_k, W_v' = W_v: the pass itself has projected the garment
        return (self.normed if self.checkpoint.info.feature_tap == "attn_input" else out,)

    def _lora(self, target: LoraTarget, x: Tensor, extra: dict[str, Any]) -> Tensor | float:
        if self.checkpoint is None:
            return 0.0
        pair = self.checkpoint.lora(self.slot, self.sites[_key_of(extra)].key).get(target)
        if pair is None:
            return 0.0
        down, up = (weight[None].to(x) for weight in pair)
        return grouped_lora(x, down, up, torch.tensor([self.checkpoint.scale(self.slot)], device=x.device))


def _shrink_cross_attention(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, ...]:
    """Let attn2's projections run on a single token: their result is thrown away."""
    nothing = n.new_zeros(1, 1, context.shape[-1])
    return n[:1, :1], nothing, nothing


def _skip_cross_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    return q


def _silence_cross_attention(n: Tensor, extra: dict[str, Any]) -> Tensor:
    """Make cross-attention contribute exactly zero.

    Removing attn2 is not enough: the block adds whatever `n` holds, and would add self-attention twice.
    """
    return n.new_zeros(1, 1, 1)


def _clone_for_pass(model: Any, keep_loras: bool) -> Any:
    """The plain checkpoint, merged as it may be: no wrappers, no patches of other nodes and, unless kept, no LoRA."""
    patcher = model.clone()
    patcher.model_options = {"transformer_options": {}}
    patcher.wrappers, patcher.callbacks, patcher.injections = {}, {}, {}
    patcher.additional_models, patcher.attachments = {}, {}
    if not keep_loras:
        merges = _merges(patcher.patches)
        if merges != patcher.patches:
            logger.info("AnyDressing: the garment is read without the MODEL's LoRAs.")
            patcher.patches, patcher.patches_uuid = merges, uuid.uuid4()
    return patcher


def _merges(patches: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
    """The patches that merge another checkpoint in: ComfyUI keeps its weight, with its own patches, as a list."""
    merges = {key: [patch for patch in entries if isinstance(patch[1], list)] for key, entries in patches.items()}
    return {key: entries for key, entries in merges.items() if entries}


def _attention_override(model: Any) -> dict[str, Callable[..., Tensor]]:
    name = "optimized_attention_override"
    options = model.model_options.get("transformer_options", {})
    return {name: options[name]} if name in options else {}


def _site_key(site: AttentionSite) -> SiteKey:
    return (*site.ldm_block, 0)


def _key_of(extra: dict[str, Any]) -> SiteKey:
    return (extra["block"][0], extra["block"][1], extra["block_index"])
