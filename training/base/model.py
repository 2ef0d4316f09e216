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

from ...anydressing_core.sites import UNetShape
from ...anydressing_core.word_table import POSITIONS
from .part import Module
from .plan import Plan, plan_base
from .text import with_positions
from .tokenizer import load_tokenizer
from .vae import Vae, latent_scale_and_shift, narrowed, with_latent_scale


@dataclass(frozen=True)
class NoiseSchedule:
    """SD1.5's: 1000 timesteps, betas scaled-linear from 0.00085 to 0.012, a U-Net that predicts the noise (epsilon).

    alphas_cumprod: (1000,), the a_t of Eq. 10, double precision, on the CPU; timestep counts 0..999.
    """

    alphas_cumprod: Tensor

    @classmethod
    def sd15(cls) -> NoiseSchedule:
        """Compute SD1.5's schedule."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        return cls((1 - betas).cumprod(0))

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t of clean latents (B, 4, h, w) at timestep (B,)."""
        signal, spread = self._weights(timestep, latents)
        return signal * latents + spread * noise

    def remove_noise(self, noisy: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The one-step estimate of the clean latents from z_t and the predicted noise (Eq. 10)."""
        signal, spread = self._weights(timestep, noisy)
        return (noisy - spread * noise) / signal

    def _weights(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod[timestep.cpu()].reshape(-1, 1, 1, 1)
        return alphas.sqrt().to(like), (1 - alphas).sqrt().to(like)


@dataclass(frozen=True)
class BaseModel:
    """A base model, frozen and in eval mode.

    name: the file's or the folder's. sha256: of the file; of a folder's weight files, one after the other.
    """

    name: str
    sha256: str
    shape: UNetShape
    unet: UNet2DConditionModel
    vae: Vae
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule

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
    def encode_mode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1], sides divisible by 8: the distribution's mode, scaled, (B, 4, h, w).

        The result is what ComfyUI's U-Net is given: VAE Encode, then `process_latent_in`. It has the images' dtype.
        """
        assert images.shape[-2] % 8 == images.shape[-1] % 8 == 0
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
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    tokenizer: str | os.PathLike[str] | None = None,
) -> BaseModel:
    """Load a base model from one SD1.5 `.safetensors` file, a demo checkpoint among them, or from a diffusers folder.

    dtype: the U-Net's and the autoencoder's; the autoencoder takes float32 instead of float16, in which it overflows.
    The text encoder computes in float32 always, as ComfyUI's does. tokenizer: a folder with CLIP's vocab.json and
    merges.txt; None looks in the places of `tokenizer.tokenizer_places`. Raises ValueError for everything that is
    not a base model AnyDressing can train on.
    """
    plan = plan_base(path)
    words = load_tokenizer(Path(path), tokenizer, plan.text.network.config.vocab_size)
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    return BaseModel(
        name=Path(path).name,
        sha256=_sha256(plan),
        shape=plan.shape,
        unet=plan.unet.load(device, dtype),
        vae=narrowed(with_latent_scale(plan.vae.load(device, vae_dtype), plan.vae.part)),
        text_encoder=with_positions(plan.text.load(device, torch.float32), device),
        tokenizer=words,
        schedule=NoiseSchedule.sd15(),
    )


def _sha256(plan: Plan) -> str:
    digest = hashlib.sha256()
    modules = (plan.unet, plan.vae, plan.text)
    for path in dict.fromkeys(module.path for module in modules if isinstance(module, Module)):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
