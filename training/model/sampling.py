# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampling dressed people as the paper does: DDIM, 30 steps, guidance by Eq. 16, strength 0.7 (Sec. 5.1).

    eps = omega eps(z_t, text, garments, t) + (1 - omega) eps(z_t, t)        (Eq. 16)

The second branch has neither text nor garments: it is the frozen model. GarmentsNet runs once and its K', V' serve all
steps. Every picture starts from noise of its own, so it is the same one whatever batch it is sampled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from ...anydressing_core.defaults import GUIDANCE, STEPS, STRENGTH
from ...anydressing_core.garment_kv import GarmentKV
from ...anydressing_core.refusals import refusal
from ...anydressing_core.sites import UNetShape
from ...anydressing_core.worn_queries import WornStates
from ..base.schedule import NoiseSchedule
from .processors import DressingRole, dressed_prediction
from .reference import Reference

Tick = Callable[[int], None]
"""Told after every step how many pictures took it. What it raises ends the sampling."""

TIMESTEPS = 1000


@dataclass(frozen=True)
class SamplingSettings:
    """How a picture is sampled; the defaults are the paper's (Sec. 5.1).

    steps: of DDIM. guidance: omega of Eq. 16; 1 leaves out the unconditional branch. strength: lambda of Eq. 6. seed: of
    the noise. threshold, every: of `WornQueries`; 0 and 1 compute garments everywhere, in every step.
    """

    steps: int = STEPS
    guidance: float = GUIDANCE
    strength: float = STRENGTH
    seed: int = 0
    threshold: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.steps < TIMESTEPS:
            why = f"A model trained on {TIMESTEPS} timesteps can be asked at 1 to {TIMESTEPS - 1} of them."
            raise refusal(f"steps = {self.steps}", "is impossible", why, f"choose {STEPS}, as the paper does.")
        if not 1 <= self.guidance < math.inf:
            why = "Guidance pushes away from the picture without text and garments; 1 does not push at all."
            raise refusal(
                f"guidance = {self.guidance}", "is impossible", why, f"choose 1 or more; the paper takes {GUIDANCE:g}."
            )
        if not 0 <= self.strength < math.inf:
            why = "It scales what the garments add to the picture; 0 adds nothing."
            raise refusal(
                f"strength = {self.strength}", "is impossible", why, f"choose 0 or more; the paper takes {STRENGTH:g}."
            )

    def told(self) -> dict[str, float]:
        """What stands beside a picture; as before there was a threshold where garments are computed everywhere."""
        unset = {"threshold": 0.0, "every": 1}
        return {name: value for name, value in asdict(self).items() if unset.get(name) != value}

    @property
    def timesteps(self) -> list[tuple[int, int]]:
        """Each step's timestep and the one it leads to: (958, 925) ... (34, 1), (1, 0) for 30 steps.

        diffusers calls this spacing `leading`, with `steps_offset` 1 and without `set_alpha_to_one`.
        """
        stride = TIMESTEPS // self.steps
        first = (self.steps - 1) * stride + 1
        return [(timestep, max(timestep - stride, 0)) for timestep in range(first, 0, -stride)]


@dataclass(frozen=True)
class Sampled:
    """latents: (B, 4, h, w), clean. maps: A_k (B, N, h, w) in [0, 1], as `sample_latents` says, or None.

    computed: where garments were kept to where they are worn, how much of each site was, as `WornQueries.mean_shares` tells it:
    of a file's term where there is a file.
    """

    latents: Tensor
    maps: Tensor | None
    computed: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])


@dataclass(frozen=True)
class Prompts:
    """What the pictures show. text: (B, 77, C). no_text: the empty prompt's, for the unconditional branch, (77, C)."""

    text: Tensor
    no_text: Tensor


@dataclass(frozen=True)
class Kept:
    """What stays of a picture while the rest is made anew. latents: (B, 4, h, w), clean. anew: (B, 1, h, w) bool."""

    latents: Tensor
    anew: Tensor


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel,
    schedule: NoiseSchedule,
    prompts: Prompts,
    noise: Tensor,
    settings: SamplingSettings,
    garments: Mapping[str, GarmentKV] | None = None,
    tick: Tick | None = None,
    kept: Kept | None = None,
    reference: Reference | None = None,
    worn: WornStates | None = None,
) -> Sampled:
    """Sample clean latents from noise with DDIM (eta = 0) and guidance (Eq. 16).

    noise: (B, 4, h, w); the result has its dtype, while the U-Net computes in its own. garments: site key -> K' and V',
    from `DressingModel.garments`; None for nobody dressed.
    worn: keeps garments to where they are worn; None computes them everywhere.
    kept: inpainting, as ComfyUI's KSampler does it: what stays is noised to each step's level, with the same noise.
    The maps are A_k averaged over all steps and over all m sites, each brought to h x w, as L_loc averages over them
    (Eq. 15); coarse sites blur the mean, yet none is left out. None when K', V' were laid out without maps.
    """
    latents, sums = noise, dict[str, Tensor]()
    sites = UNetShape.from_diffusers(unet.config).sites
    size = (noise.shape[-2], noise.shape[-1])
    for timestep, following in settings.timesteps:
        if kept is not None:
            stays = schedule.add_noise(kept.latents, noise, torch.tensor([timestep]))
            latents = torch.where(kept.anew, latents, stays)
        for state in worn or ():
            state.begin(sites, size)
        role = _role(garments, reference, settings, timestep, size, worn)
        epsilon = _guided_noise(unet, latents, timestep, prompts, role, settings.guidance)
        clean = schedule.remove_noise(latents, epsilon, torch.tensor([timestep]))
        latents = schedule.add_noise(clean, epsilon, torch.tensor([following]))
        if role is not None and role.reference is not None and reference is not None:
            reference.took(role.reference)
        for site, maps in ({} if role is None else role.maps).items():
            sums[site] = sums.get(site, 0) + maps
        if tick is not None:
            tick(len(latents))
    if kept is not None:
        latents = torch.where(kept.anew, latents, kept.latents)
    computed = {} if worn is None else worn.trained.mean_shares or worn.reference.mean_shares
    return Sampled(latents, _mean_maps(unet, sums, settings.steps, size) if sums else None, computed)


def _role(
    garments: Mapping[str, GarmentKV] | None,
    reference: Reference | None,
    settings: SamplingSettings,
    timestep: int,
    size: tuple[int, int],
    worn: WornStates | None,
) -> DressingRole | None:
    if garments is None and reference is None:
        return None
    step = None if reference is None else reference.step(timestep, size)
    return DressingRole(garments or {}, settings.strength, step, worn)


def _guided_noise(
    unet: UNet2DConditionModel,
    latents: Tensor,
    timestep: int,
    prompts: Prompts,
    role: DressingRole | None,
    guidance: float,
) -> Tensor:
    """Eq. 16, in the latents' dtype; the branches are separate calls, because only one of them has a role."""
    noisy = latents.to(unet.dtype)
    times = torch.full((len(noisy),), timestep, device=noisy.device)

    def frozen(prompt: Tensor) -> Tensor:
        return unet(noisy, times, encoder_hidden_states=prompt).sample

    prompt = prompts.text.to(noisy)
    epsilon = frozen(prompt) if role is None else dressed_prediction(unet, noisy, times, prompt, role)
    if guidance == 1:
        return epsilon.to(latents)
    unconditional = frozen(prompts.no_text.to(noisy).expand_as(prompt))
    return guidance * epsilon.to(latents) + (1 - guidance) * unconditional.to(latents)


def _mean_maps(unet: UNet2DConditionModel, sums: Mapping[str, Tensor], steps: int, size: tuple[int, int]) -> Tensor:
    drawn: list[Tensor] = []
    for site in UNetShape.from_diffusers(unet.config).sites:
        if site.key not in sums:
            continue  # reference mode has chosen other sites
        height, width = site.grid(*size)
        maps = rearrange(sums[site.key], "b (h w) n -> b n h w", h=height, w=width)
        drawn.append(functional.interpolate(maps, size, mode="bilinear"))
    return (torch.stack(drawn).mean(dim=0) / steps).clamp(0, 1)  # bf16 may round above 1
