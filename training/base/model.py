# SPDX-License-Identifier: GPL-3.0-or-later
"""The frozen base model that is dressed: one SD1.5 `.safetensors` file or a diffusers folder, opened offline.

Nothing is assumed of the U-Net's size: its shape is read from the weights' own shapes, so SD1.5, the paper-doll base
and the tests' small models come the same way. The header is checked and every name and shape is compared before a
tensor is read; whatever does not fit is refused with three lines: what, why, what to do. Nothing here reads a pickle or
asks the network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ...anydressing_core.latents import is_whole
from ...anydressing_core.sites import UNetShape
from ...anydressing_core.word_table import POSITIONS
from ..hardware import CPU, Hardware
from .part import Module
from .plan import Plan, plan_base
from .schedule import NoiseSchedule
from .text import with_positions
from .tokenizer import load_tokenizer
from .vae import Vae, latent_scale_and_shift, narrowed, with_latent_scale


@dataclass(frozen=True)
class BaseModel:
    """A base model, frozen and in eval mode.

    name: the file's or the folder's. sha256: of the file; of a folder's weight files, one after the other. hardware: on
    and in what it was loaded.
    """

    name: str
    sha256: str
    shape: UNetShape
    unet: UNet2DConditionModel
    vae: Vae
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule
    hardware: Hardware

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed prompts as ComfyUI's CLIPTextEncode does: (B, 77, C), float32. What exceeds 75 tokens is cut off.

        ComfyUI reads parentheses in a prompt as emphasis; here they are plain text.
        """
        # The tokenizer's own limit may say 8192. No attention mask: SD1.5 attends to the padding, too.
        encoded = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=POSITIONS, return_tensors="pt"
        )
        return self.text_encoder(encoded["input_ids"].to(self.text_encoder.device)).last_hidden_state.float()

    @torch.no_grad()
    def encode_words(self, words: str) -> Tensor:
        """The mean embedding of a garment's words, encoded alone: (C,), float32."""
        own = len(self.tokenizer([words])["input_ids"][0]) - 2  # one begins the text, one ends it
        return self.encode_text([words])[0, 1 : 1 + own].mean(dim=0)

    @torch.no_grad()
    def encode_mode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1], sides divisible by 8: the distribution's mode, scaled, (B, 4, h, w).

        The result is what ComfyUI's U-Net is given: VAE Encode, then `process_latent_in`. It has the images' dtype.
        """
        assert is_whole((images.shape[-2], images.shape[-1]))
        # Without gradients: under gradient checkpointing diffusers' tiny encoder forgets its scaling to [0, 1].
        encoded: Any = self.vae.encode(images.to(self.vae.device, self.vae.dtype))
        latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
        scale, shift = latent_scale_and_shift(self.vae)
        return ((latents - shift) * scale).to(images.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, 4, h, w) to images (B, 3, H, W) in [-1, 1], in the latents' dtype.

        Values may overshoot: they are not clamped, so that the texture losses' gradient passes. Clamp for pictures.
        """
        scale, shift = latent_scale_and_shift(self.vae)
        plain: Any = latents.to(self.vae.device, self.vae.dtype) / scale + shift
        decoded: Any = self.vae.decode(plain)
        return decoded.sample.to(latents.dtype)


def load_base(
    path: str | os.PathLike[str],
    hardware: Hardware = CPU,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
) -> BaseModel:
    """Load a base model from one SD1.5 `.safetensors` file, a demo checkpoint among them, or from a diffusers folder.

    hardware: where it computes, and in what; the autoencoder takes fp32 instead of fp16, in which it overflows, and the
    text encoder fp32 always, as ComfyUI's does. tokenizer: a folder with CLIP's vocab.json and merges.txt; None looks in
    the places of `tokenizer.tokenizer_places`. Raises ValueError for everything that is not a base model AnyDressing can
    train on.
    """
    plan = plan_base(path)
    words = load_tokenizer(Path(path), tokenizer, plan.text.network.config.vocab_size)
    device = hardware.device
    return BaseModel(
        name=Path(path).name,
        sha256=_sha256(plan),
        shape=plan.shape,
        unet=plan.unet.load(device, hardware.dtype),
        vae=narrowed(with_latent_scale(plan.vae.load(device, hardware.vae_dtype), plan.vae.part)),
        text_encoder=with_positions(plan.text.load(device, torch.float32), device),
        tokenizer=words,
        schedule=NoiseSchedule.sd15(),
        hardware=hardware,
    )


def _sha256(plan: Plan) -> str:
    digest = hashlib.sha256()
    modules = (plan.unet, plan.vae, plan.text)
    for path in dict.fromkeys(module.path for module in modules if isinstance(module, Module)):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
