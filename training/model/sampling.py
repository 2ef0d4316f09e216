# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampling dressed people as the paper does: DDIM, 30 steps, guidance by Eq. 16, strength 0.7 (Sec. 5.1).

    eps = omega eps(z_t, text, garments, t) + (1 - omega) eps(z_t, t)        (Eq. 16)

The second branch has neither text nor garments: it is the frozen model. GarmentsNet runs once and its K', V' serve all
steps. Every picture starts from noise of its own, so it is the same one whatever batch it is sampled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from ...anydressing_core.dressing_attention import GarmentKV
from ...anydressing_core.safetensors_header import refusal
from ...anydressing_core.sites import UNetShape
from ..base.model import BaseModel, NoiseSchedule
from ..data.pictures import Pixels
from ..run.noise import noise_seed
from .dressing import DressingModel, Outfits
from .processors import DressingRole, dressed_prediction

Progress = Callable[[int], None]
"""Told after every step how many pictures took it. What it raises ends the sampling."""

TIMESTEPS = 1000


@dataclass(frozen=True)
class SamplingSettings:
    """How a picture is sampled; the defaults are the paper's (Sec. 5.1).

    steps: of DDIM. guidance: omega of Eq. 16; 1 leaves out the unconditional branch. strength: lambda of Eq. 6.
    """

    steps: int = 30
    guidance: float = 6.0
    strength: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.steps < TIMESTEPS:
            why = f"A model trained on {TIMESTEPS} timesteps can be asked at 1 to {TIMESTEPS - 1} of them."
            raise refusal(f"steps = {self.steps}", "is impossible", why, "choose 30, as the paper does.")
        if not 1 <= self.guidance < math.inf:
            why = "Guidance pushes away from the picture without text and garments; 1 does not push at all."
            raise refusal(f"guidance = {self.guidance}", "is impossible", why, "choose 1 or more; the paper takes 6.")
        if not 0 <= self.strength < math.inf:
            why = "It scales what the garments add to the picture; 0 adds nothing."
            raise refusal(f"strength = {self.strength}", "is impossible", why, "choose 0 or more; the paper takes 0.7.")

    @property
    def timesteps(self) -> list[tuple[int, int]]:
        """Each step's timestep and the one it leads to: (958, 925) ... (34, 1), (1, 0) for 30 steps.

        diffusers calls this spacing `leading`, with `steps_offset` 1 and without `set_alpha_to_one`.
        """
        stride = TIMESTEPS // self.steps
        first = (self.steps - 1) * stride + 1
        return [(timestep, max(timestep - stride, 0)) for timestep in range(first, 0, -stride)]


# --- latents ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """latents: (B, 4, h, w), clean. maps: A_k (B, N, h, w) in [0, 1], as `sample_latents` says, or None."""

    latents: Tensor
    maps: Tensor | None


@dataclass(frozen=True)
class Kept:
    """What stays of a picture while the rest is made anew. latents: (B, 4, h, w), clean. anew: (B, 1, h, w) bool."""

    latents: Tensor
    anew: Tensor


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel,
    schedule: NoiseSchedule,
    text: Tensor,
    no_text: Tensor,
    noise: Tensor,
    garments: Mapping[str, GarmentKV] | None,
    settings: SamplingSettings,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> Sampled:
    """Sample clean latents from noise with DDIM (eta = 0) and guidance (Eq. 16).

    text: (B, 77, C). no_text: the empty prompt's, (77, C). noise: (B, 4, h, w); the result has its dtype, while the
    U-Net computes in its own. garments: site key -> K' and V', from `DressingModel.garments`; None for nobody dressed.
    kept: inpainting, as ComfyUI's KSampler does it: what stays is noised to each step's level, with the same noise.
    The maps are A_k averaged over all steps and over all m sites, each brought to h x w, as L_loc averages over them
    (Eq. 15); coarse sites blur the mean, yet none is left out. None when K', V' were laid out without maps.
    """
    latents, sums = noise, dict[str, Tensor]()
    for timestep, following in settings.timesteps:
        if kept is not None:
            stays = schedule.add_noise(kept.latents, noise, torch.tensor([timestep]))
            latents = torch.where(kept.anew, latents, stays)
        role = None if garments is None else DressingRole(garments, settings.strength)
        epsilon = _guided_noise(unet, latents, timestep, text, no_text, role, settings.guidance)
        clean = schedule.remove_noise(latents, epsilon, torch.tensor([timestep]))
        latents = schedule.add_noise(clean, epsilon, torch.tensor([following]))
        for site, maps in ({} if role is None else role.maps).items():
            sums[site] = sums.get(site, 0) + maps
        if progress is not None:
            progress(len(latents))
    if kept is not None:
        latents = torch.where(kept.anew, latents, kept.latents)
    height, width = latents.shape[-2:]
    return Sampled(latents, _mean_maps(unet, sums, settings.steps, (height, width)) if sums else None)


def _guided_noise(
    unet: UNet2DConditionModel,
    latents: Tensor,
    timestep: int,
    text: Tensor,
    no_text: Tensor,
    role: DressingRole | None,
    guidance: float,
) -> Tensor:
    """Eq. 16, in the latents' dtype; the branches are separate calls, because only one of them has a role."""
    noisy = latents.to(unet.dtype)
    times = torch.full((len(noisy),), timestep, device=noisy.device)

    def frozen(prompt: Tensor) -> Tensor:
        return unet(noisy, times, encoder_hidden_states=prompt).sample

    prompt = text.to(noisy)
    epsilon = frozen(prompt) if role is None else dressed_prediction(unet, noisy, times, prompt, role)
    if guidance == 1:
        return epsilon.to(latents)
    unconditional = frozen(no_text.to(noisy).expand_as(prompt))
    return guidance * epsilon.to(latents) + (1 - guidance) * unconditional.to(latents)


def _mean_maps(unet: UNet2DConditionModel, sums: Mapping[str, Tensor], steps: int, size: tuple[int, int]) -> Tensor:
    drawn: list[Tensor] = []
    for site in UNetShape.from_diffusers(unet.config).sites:
        height, width = site.grid(*size)
        maps = rearrange(sums[site.key], "b (h w) n -> b n h w", h=height, w=width)
        drawn.append(functional.interpolate(maps, size, mode="bilinear"))
    return (torch.stack(drawn).mean(dim=0) / steps).clamp(0, 1)  # bf16 may round above 1


# --- people ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Garment:
    """A garment to be worn; one object worn by several people is encoded once for all in a batch.

    latents: (4, h, w), the VAE's mode, scaled. cells: (h, w) bool, which latent cells show it; None when all its
    tokens take part, the same choice for all garments.
    """

    slot: str
    latents: Tensor
    cells: Tensor | None = None


@dataclass(frozen=True)
class Person:
    """Somebody to be sampled. name: with the seed it decides the noise. text: (77, C). garments: none or more.

    kept: (latents (4, h, w), anew (1, h, w) bool) when only a part of a picture is made, as in `Kept`.
    """

    name: str
    text: Tensor
    garments: Sequence[Garment] = field(default=())
    kept: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Picture:
    """maps: A_k (N, h, w) on the CPU, in the order of the person's garments, or None for somebody undressed."""

    pixels: Pixels
    maps: Tensor | None


def initial_noise(seed: int, name: str, height: int, width: int) -> Tensor:
    """The noise (4, h, w) that a person's picture starts from: the same on every device and in every batch."""
    generator = torch.Generator().manual_seed(noise_seed(seed, 0, name, "preview"))
    return torch.randn(4, height, width, generator=generator)


@torch.no_grad()
def sample_people(
    model: DressingModel,
    base: BaseModel,
    people: Sequence[Person],
    no_text: Tensor,
    settings: SamplingSettings,
    *,
    seed: int,
    size: tuple[int, int],
    batch: int = 4,
    progress: Progress | None = None,
) -> list[Picture]:
    """Sample everybody's picture, in the order of `people`.

    no_text: the empty prompt's embedding, (77, C). size: H and W in pixels, multiples of 8. batch: how many pictures at
    a time, which changes them by rounding only. progress is told of len(people) * steps in all.
    """
    assert size[0] % 8 == size[1] % 8 == 0
    pictures: dict[int, Picture] = {}
    for rows in _batches(people, batch):
        group = [people[row] for row in rows]
        noise = torch.stack([initial_noise(seed, person.name, size[0] // 8, size[1] // 8) for person in group])
        sampled = sample_latents(
            model.unet,
            base.schedule,
            torch.stack([person.text for person in group]),
            no_text,
            noise.to(model.unet.device),
            model.garments(_outfits(group, model.unet)) if group[0].garments else None,
            settings,
            progress,
            _kept(group, model.unet.device),
        )
        for index, (row, person) in enumerate(zip(rows, group, strict=True)):
            pixels = as_pixels(base.decode(sampled.latents[index : index + 1])[0])
            maps = None if sampled.maps is None else sampled.maps[index, : len(person.garments)].cpu()
            pictures[row] = Picture(pixels, maps)
    return [pictures[row] for row in range(len(people))]


def as_pixels(image: Tensor) -> Pixels:
    """Turn an image (3, H, W) in [-1, 1] into bytes; what overshoots is cut off."""
    unit = (image.detach().float().clamp(-1, 1) + 1) / 2
    return (unit * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _batches(people: Sequence[Person], batch: int) -> Iterator[list[int]]:
    """The undressed first, then the dressed, and apart those of whom something stays: each is of a whole call."""
    kinds = [(bool(person.garments), person.kept is not None) for person in people]
    for kind in product((False, True), repeat=2):
        rows = [row for row, other in enumerate(kinds) if other == kind]
        yield from (rows[start : start + batch] for start in range(0, len(rows), batch))


def _kept(people: Sequence[Person], device: torch.device) -> Kept | None:
    parts = [person.kept for person in people if person.kept is not None]
    if not parts:
        return None
    latents, anew = (torch.stack(some).to(device) for some in zip(*parts, strict=True))
    return Kept(latents, anew)


def _outfits(people: Sequence[Person], unet: UNet2DConditionModel) -> Outfits:
    """What these people wear, each garment once."""
    garments = list(dict.fromkeys(garment for person in people for garment in person.garments))
    most = max(len(person.garments) for person in people)
    worn = [[garments.index(garment) for garment in person.garments] for person in people]
    worn = [row + [-1] * (most - len(row)) for row in worn]
    cells = [garment.cells for garment in garments if garment.cells is not None]
    assert len(cells) in (0, len(garments))
    return Outfits(
        torch.stack([garment.latents for garment in garments]).to(unet.device, unet.dtype),
        [garment.slot for garment in garments],
        torch.tensor(worn, device=unet.device),
        torch.stack(cells).to(unet.device) if cells else None,
    )
