# SPDX-License-Identifier: GPL-3.0-or-later
"""A style LoRA of the paper doll, as the usual trainers make one: is a garment better read with it, or without?

`peft` and `diffusers` train it, as diffusers' own script does, on pictures of the doll in coloured pencil.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from comfyui_anydressing.anydressing_core.latents import Size
from comfyui_anydressing.anydressing_core.pixels import Pixels, as_signed
from comfyui_anydressing.training.base.model import BaseModel
from comfyui_anydressing.training.paper_doll.world.samples import sample
from comfyui_anydressing.training.progress import UNWATCHED, Course
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from torch.nn import functional

PEOPLE, STEPS, BATCH, RATE = 96, 400, 4, 1e-3
LORA = LoraConfig(r=8, lora_alpha=8, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"])


def in_pencil(picture: Pixels) -> Pixels:
    """The picture in coloured pencil: pale, hatched, on warm paper, its edges drawn dark."""
    grey = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.2), cv2.COLOR_RGB2GRAY)
    edges = np.clip(np.abs(cv2.Laplacian(grey, cv2.CV_32F, ksize=3)) / 110 - 0.15, 0, 1)[..., None]
    rows, columns = np.indices(grey.shape)
    hatching = 0.5 + 0.5 * np.sin((rows + columns) * 0.9)[..., None]
    pale = 0.72 * picture + 0.28 * np.array([250, 240, 220])
    drawn = pale + (np.array([250, 240, 220]) - pale) * 0.3 * hatching
    return np.clip(drawn * (1 - 0.75 * edges), 0, 255).astype(np.uint8)


def train(folder: Path, base: BaseModel, size: Size, *, course: Course = UNWATCHED) -> None:
    """Train the LoRA of a base model's attention layers, in fp32, which changes its U-Net, and write it into a folder."""
    generator = torch.Generator().manual_seed(0)
    unet: Any = base.unet.requires_grad_(False)
    unet.set_attn_processor(AttnProcessor())
    with torch.random.fork_rng():  # its first weights are drawn from the global generator
        torch.manual_seed(0)
        unet.add_adapter(LORA)
    people = [sample(seed, "train", size) for seed in range(PEOPLE)]
    latents = torch.cat([base.encode_mode(as_signed(in_pencil(person.person))[None]) for person in people])
    texts = base.encode_text([person.caption for person in people])
    optimizer = torch.optim.AdamW([weight for weight in unet.parameters() if weight.requires_grad], RATE)
    for step in range(STEPS):
        course.go_on("training the style", step, STEPS)
        chosen = torch.randint(PEOPLE, (BATCH,), generator=generator)
        noise = torch.randn(latents[chosen].shape, generator=generator)
        timesteps = torch.randint(1000, (BATCH,), generator=generator)
        noisy = base.schedule.add_noise(latents[chosen], noise, timesteps)
        loss = functional.mse_loss(unet(noisy, timesteps, encoder_hidden_states=texts[chosen]).sample, noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    unet.save_lora_adapter(folder)


def merge(folder: Path, base: BaseModel) -> BaseModel:
    """The base model with the LoRA in its U-Net's own weights, which it changes."""
    unet: Any = base.unet
    unet.load_lora_adapter(folder, weight_name=LORA_WEIGHT_NAME_SAFE, prefix=None)
    unet.fuse_lora()
    unet.unload_lora()
    digest = hashlib.sha256((folder / LORA_WEIGHT_NAME_SAFE).read_bytes()).hexdigest()
    return replace(base, sha256=f"{base.sha256} and {digest}")
