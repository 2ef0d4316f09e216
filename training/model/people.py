# SPDX-License-Identifier: GPL-3.0-or-later
"""People and what they wear, sampled in batches: every picture starts from noise of its own, whatever batch it is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ...anydressing_core.latents import Size, latent_size
from ...anydressing_core.pixels import Pixels, as_pixels
from ...anydressing_core.worn_queries import WornStates
from ..base.model import BaseModel
from ..run.noise import noise_seed
from .dresser import Dresser
from .outfits import Outfits
from .sampling import Kept, Prompts, SamplingSettings, Tick, sample_latents


@dataclass(frozen=True, eq=False)
class EncodedGarment:
    """A garment to be worn; one object worn by several people is encoded once for all in a batch.

    latents: (4, h, w), the VAE's mode, scaled. cells: (h, w) bool, which latent cells show it. words: what it is called,
    the mean embedding (C_text,). region: (h, w) in [0, 1], where in the new picture it may go, by reference. None where
    nobody says, the same for all garments.
    """

    slot: str
    latents: Tensor
    cells: Tensor | None = None
    words: Tensor | None = None
    region: Tensor | None = None


@dataclass(frozen=True)
class Person:
    """Somebody to be sampled. name: with the seed it decides the noise. text: (77, C). garments: none or more.

    kept: (latents (4, h, w), anew (1, h, w) bool) when only a part of a picture is made, as in `Kept`.
    """

    name: str
    text: Tensor
    garments: Sequence[EncodedGarment] = field(default=())
    kept: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Picture:
    """maps: A_k (N, h, w) on the CPU, in the order of the person's garments, or None for somebody undressed. computed: as of
    `Sampled`, of all that were sampled with it.
    """

    pixels: Pixels
    maps: Tensor | None
    computed: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])


def initial_noise(seed: int, name: str, size: Size) -> Tensor:
    """The noise (4, h, w) that a person's picture of a size in pixels starts from, on every device and in every batch."""
    generator = torch.Generator().manual_seed(noise_seed(seed, 0, name, "preview"))
    return torch.randn(4, *latent_size(size), generator=generator)


@torch.no_grad()
def sample_people(
    model: Dresser,
    base: BaseModel,
    people: Sequence[Person],
    no_text: Tensor,
    settings: SamplingSettings,
    *,
    size: Size,
    batch: int = 4,
    tick: Tick | None = None,
) -> list[Picture]:
    """Sample everybody's picture, in the order of `people`.

    no_text: the empty prompt's embedding, (77, C). size: H and W in pixels, in whole latent cells. batch: how many
    pictures at a time, which changes them by rounding only. tick is told of len(people) * steps in all.
    """
    pictures: dict[int, Picture] = {}
    for rows in _batches(people, batch):
        group = [people[row] for row in rows]
        noise = torch.stack([initial_noise(settings.seed, person.name, size) for person in group])
        worn = outfits_of_people(group, model.unet) if group[0].garments else None
        sampled = sample_latents(
            model.unet,
            base.schedule,
            Prompts(torch.stack([person.text for person in group]), no_text),
            noise.to(model.unet.device),
            settings,
            None if worn is None else model.garments(worn),
            tick,
            _kept(group, model.unet.device),
            None if worn is None else model.reference(worn, settings.strength),
            _where_worn(settings),
        )
        for index, (row, person) in enumerate(zip(rows, group, strict=True)):
            pixels = as_pixels(base.decode(sampled.latents[index : index + 1])[0])
            maps = None if sampled.maps is None else sampled.maps[index, : len(person.garments)].cpu()
            pictures[row] = Picture(pixels, maps, sampled.computed)
    return [pictures[row] for row in range(len(people))]


def _where_worn(settings: SamplingSettings) -> WornStates | None:
    if not settings.threshold and settings.every == 1:
        return None
    return WornStates.of(settings.threshold, settings.every)


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


def outfits_of_people(people: Sequence[Person], unet: UNet2DConditionModel) -> Outfits:
    """What these people wear, each garment once."""
    garments = list(dict.fromkeys(garment for person in people for garment in person.garments))
    most = max(len(person.garments) for person in people)
    worn = [[garments.index(garment) for garment in person.garments] for person in people]
    worn = [row + [-1] * (most - len(row)) for row in worn]
    told = [_of_all([getattr(garment, name) for garment in garments]) for name in ("cells", "words", "region")]
    cells, words, regions = (None if part is None else part.to(unet.device) for part in told)
    return Outfits(
        torch.stack([garment.latents for garment in garments]).to(unet.device, unet.dtype),
        [garment.slot for garment in garments],
        torch.tensor(worn, device=unet.device),
        cells,
        words,
        regions,
    )


def _of_all(parts: Sequence[Tensor | None]) -> Tensor | None:
    """What is told of every garment, or of none."""
    there = [part for part in parts if part is not None]
    assert len(there) in (0, len(parts))
    return torch.stack(there) if there else None
