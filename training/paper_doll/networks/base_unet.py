# SPDX-License-Identifier: GPL-3.0-or-later
"""Training the paper-doll world's base U-Net: it learns people and garments from their latents and captions."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor, nn

from ....anydressing_core.pixels import as_pixels
from ...base.model import BaseModel
from ...data.cached import CachedData
from ...model.people import initial_noise
from ...model.sampling import Prompts, SamplingSettings, sample_latents
from ...progress import Progress, untold
from ...run.noise import Draw
from ...run.task import Terms
from ...sheets import grid, of_step, save_sheet
from ..world.samples import draw_recipe
from .config import PaperDollConfig
from .recogniser import KINDS

LatentSample = tuple[Tensor, Tensor, int, Tensor]


class BaseData:
    """Latents of people with their captions and, now and then, of a garment on white."""

    def __init__(self, config: PaperDollConfig, cached: CachedData, kinds: list[list[str]], flat_lays: Tensor) -> None:
        """kinds: of each person's garments. flat_lays: (K, 77, C), the texts of `flat_lay_caption` of all KINDS."""
        self.digest = cached.digest
        self._config, self._cached, self._kinds, self._flat_lays = config, cached, kinds, flat_lays

    def __len__(self) -> int:
        return len(self._cached)

    def name(self, item: int) -> str:
        return self._cached.ids[item]

    def sample(self, draw: Draw) -> LatentSample:
        """(latent, noise, timestep, text)."""
        kinds = self._kinds[draw.item]
        if draw.uniform("view") < self._config.flat_lays:
            garment = draw.integer(len(kinds), "garment")
            latent = self._cached.garment_latents(draw.item)[garment]
            text = self._flat_lays[KINDS.index(kinds[garment])]
        else:
            latent, text = self._cached.latent(draw.item), self._cached.text(draw.item)
        if draw.uniform("text") < self._config.no_text:
            text = self._cached.no_text
        offset = self._config.noise_offset * draw.normal((latent.shape[0], 1, 1), "offset")
        noise = draw.normal(tuple(latent.shape), "noise") + offset
        return latent, noise, draw.integer(1000, "timestep"), text

    def collate(self, samples: list[LatentSample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        latents, noise, timesteps, texts = zip(*samples, strict=True)
        return torch.stack(latents), torch.stack(noise), torch.tensor(timesteps), torch.stack(texts)


class BaseTask:
    """What the loop trains: the noise prediction, every timestep weighted by min(SNR, gamma) / SNR (arXiv 2303.09556)."""

    def __init__(self, config: PaperDollConfig, base: BaseModel, data: BaseData, folder: Path) -> None:
        self.data = data
        self._config, self._base, self._folder = config, base, folder
        base.unet.requires_grad_(True).train()
        if base.unet.device.type == "cpu":
            # Heads of 16 channels: the fused kernel's backward pass takes a third of a step there, this a tenth.
            base.unet.set_attn_processor(AttnProcessor())
        else:
            base.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def module(self) -> nn.Module:
        return self._base.unet

    def losses(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], *, measure: bool) -> Terms:
        latents, noise, timestep, text = batch
        noisy = self._base.schedule.add_noise(latents, noise, timestep)
        predicted = self._base.unet(noisy, timestep, encoder_hidden_states=text).sample
        each = (predicted.float() - noise).square().mean((1, 2, 3))
        alpha = self._base.schedule.alphas_cumprod[timestep.cpu()].to(each)
        weight = (self._config.snr_gamma * (1 - alpha) / alpha).clamp(max=1)
        return Terms((weight * each).mean(), {"mse": each.mean()})

    def preview(self, step: int, progress: Progress) -> None:
        """A sheet of PROMPTS, at fixed seeds."""
        unet = self._base.unet.eval()
        try:
            pictures = self.sampled(PROMPTS, progress)
        finally:
            unet.train()
        save_sheet(self._folder, of_step(step), grid(pictures, columns=6))

    def sampled(self, prompts: tuple[str, ...], progress: Progress = untold) -> list[Image.Image]:
        """A picture of every prompt."""
        taken = count(1)
        preview = self._config.preview
        noise = torch.stack([initial_noise(preview.seed, prompt, self._config.data.resolution) for prompt in prompts])
        texts = self._base.encode_text([*prompts, ""])
        settings = SamplingSettings(preview.steps, preview.guidance)
        device = self._base.unet.device
        sampled = sample_latents(
            self._base.unet,
            self._base.schedule,
            Prompts(texts[:-1], texts[-1]),
            noise.to(device),
            settings,
            tick=lambda pictures: progress("preview", next(taken), preview.steps),
        )
        return [Image.fromarray(as_pixels(image)) for image in self._base.decode(sampled.latents)]


def flat_lay_caption(kind: str) -> str:
    """What the base model is told of a garment on white."""
    return f"a product photo of a {kind}"


PROMPTS = (
    *(draw_recipe(seed, "held_out").caption for seed in range(10)),
    flat_lay_caption("t-shirt"),
    flat_lay_caption("skirt"),
)
