# SPDX-License-Identifier: GPL-3.0-or-later
"""A garment's pass through the user's own loaded U-Net, in ComfyUI's care.

GarmentsNet and DressingNet are the same frozen weights, so the loaded U-Net serves as it is: on a clone without the
user's patches, loaded by ComfyUI's own memory management, called once through ComfyUI's patch points. Only modules
are called, never their weights read, so fp8, manual-cast and partly offloaded weights all work.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.sites import AttentionSite
from .unet import compute_dtype, is_merge

logger = logging.getLogger(__name__)

SiteKey = tuple[str, int, int]
"""How ComfyUI names an attention layer to patches: ("input" | "middle" | "output", block, transformer index)."""


class AllReadError(Exception):
    """What a patch raises once all is read that a pass is for: nothing behind it need be computed."""


def pass_memory(model: Any, rows: int, latent: Tensor) -> float:
    """What ComfyUI's memory manager is asked for, in bytes beside the model, for `rows` of a garment's latent in one call."""
    return model.memory_required([rows, *latent.shape[1:]])


class GarmentPass:
    """One call of the U-Net over `rows` latents of a garment.

    keep_loras: leave the user's own LoRAs in; otherwise the pass sees the plain checkpoint, merged as it may be.
    """

    def __init__(self, model: Any, rows: int, latent: Tensor, *, keep_loras: bool) -> None:
        self._override = _attention_override(model)
        self._patcher = _clone_for_pass(model, keep_loras)
        memory = pass_memory(self._patcher, rows, latent)
        comfy.model_management.load_models_gpu([self._patcher], memory_required=memory)
        self.device, self.dtype = self._patcher.load_device, compute_dtype(self._patcher)

    @property
    def unet(self) -> Any:
        """The U-Net itself, loaded."""
        return self._patcher.model.diffusion_model

    @property
    def sampling(self) -> Any:
        """The connected model's own schedule."""
        return self._patcher.get_model_object("model_sampling")

    def scaled(self, latent: Tensor) -> Tensor:
        """A latent as ComfyUI's VAE gives it, scaled as the U-Net expects it, in fp32."""
        return self._patcher.model.process_latent_in(latent).to(self.device)

    def run(self, x: Tensor, timestep: Tensor, context: Tensor, options: dict[str, Any]) -> None:
        """Call the U-Net: x (B, 4, h, w), scaled; timestep (B,); context (B, T, C_text); options: the call's patches, of which
        one ends it by `AllReadError`.
        """
        unet = self.unet
        x = functional.pad(x.to(self.dtype), (0, 0, 0, 0, 0, unet.in_channels - x.shape[1]))  # inpainting: empty mask
        options = {"cond_or_uncond": [0], "sigmas": torch.zeros(1), **self._override, **options}
        with contextlib.suppress(AllReadError):
            unet(x, timestep, context=context.to(self.device, self.dtype), transformer_options=options)


def site_key(site: AttentionSite) -> SiteKey:
    """A site's name in patches."""
    return (*site.ldm_block, 0)


def key_of(extra: dict[str, Any]) -> SiteKey:
    """The name of the site that calls a patch."""
    return (extra["block"][0], extra["block"][1], extra["block_index"])


def silent_text(keys: Any) -> tuple[dict[str, list[Any]], dict[Any, Any]]:
    """Patches, and attn2 replacements for the sites `keys`, by which cross-attention contributes exactly zero.

    Removing attn2 is not enough: the block adds whatever `n` holds, and would add self-attention twice. Its projections run
    on a single token, because their result is thrown away.
    """
    patches = {"attn2_patch": [_shrink_cross_attention], "attn2_output_patch": [_silence_cross_attention]}
    return patches, dict.fromkeys(keys, _skip_cross_attention)


def _shrink_cross_attention(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, ...]:
    nothing = n.new_zeros(1, 1, context.shape[-1])
    return n[:1, :1], nothing, nothing


def _skip_cross_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    return q


def _silence_cross_attention(n: Tensor, extra: dict[str, Any]) -> Tensor:
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
    """The patches that merge another checkpoint in."""
    merges = {key: [patch for patch in entries if is_merge(patch)] for key, entries in patches.items()}
    return {key: entries for key, entries in merges.items() if entries}


def _attention_override(model: Any) -> dict[str, Callable[..., Tensor]]:
    name = "optimized_attention_override"
    options = model.model_options.get("transformer_options", {})
    return {name: options[name]} if name in options else {}
