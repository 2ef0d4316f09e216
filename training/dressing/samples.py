# SPDX-License-Identifier: GPL-3.0-or-later
"""The samples of an AnyDressing run: cached people and garments, with noise, timestep and dropout drawn for one step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...anydressing_core.digests import content_key
from ...anydressing_core.refusals import refusal
from ..data.cached import CachedData, CachedGarment
from ..defaults import MOST_BAD
from ..model.outfits import Outfits
from ..run.noise import Draw
from .config import Dropout, Losses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DressingSample:
    """One person as she is trained on. picture: (3, H, W) in [-1, 1], None where the texture losses do not act."""

    latent: Tensor
    noise: Tensor
    timestep: int
    text: Tensor
    garments: tuple[CachedGarment, ...]
    edges: Tensor | None
    picture: Tensor | None
    draw: Draw


@dataclass(frozen=True)
class DressingBatch:
    """B people and all their G garments.

    latents, noise: (B, 4, h, w). timestep: (B,). text: (B, 77, C). masks: M_k (B, N, H, W), empty where a person wears
    fewer than N garments. edges: P (B, 1, H, W) or None. pictures: (3, H, W) of the rows that have one. draw: the first
    row's, for what is drawn once for all of them.
    """

    latents: Tensor
    noise: Tensor
    timestep: Tensor
    text: Tensor
    outfits: Outfits
    masks: Tensor
    edges: Tensor | None
    pictures: dict[int, Tensor]
    draw: Draw

    @property
    def present(self) -> Tensor:
        """Which garments each person wears: (B, N) bool."""
        return self.outfits.worn >= 0

    def to(self, device: torch.device) -> DressingBatch:
        """The same batch on a device."""
        outfits = self.outfits
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            timestep=self.timestep.to(device),
            text=self.text.to(device),
            outfits=replace(
                outfits,
                latents=outfits.latents.to(device),
                worn=outfits.worn.to(device),
                cells=None if outfits.cells is None else outfits.cells.to(device),
            ),
            masks=self.masks.to(device),
            edges=None if self.edges is None else self.edges.to(device),
            pictures={row: picture.to(device) for row, picture in self.pictures.items()},
        )


class DressingData:
    """What the loop draws from.

    new_slots: garment kinds that are added to a finished file; only people who wear one are then trained on, and it is
    never the one that is dropped. foreground: only the cells that show a garment take part. origin: fingerprints of the
    frozen weights, which go into the digest, so that a run never goes on with others. most_bad: of how many people the
    pictures may be lost while the run goes on, as a share; each reading process counts its own.
    """

    def __init__(
        self,
        cached: CachedData,
        dropout: Dropout,
        losses: Losses,
        *,
        foreground: bool = False,
        new_slots: Sequence[str] = (),
        origin: Sequence[str] = (),
        most_bad: float = MOST_BAD,
    ) -> None:
        self.digest = content_key("dressing", cached.digest, *origin)
        self.cached, self._dropout, self._foreground = cached, dropout, foreground
        self._most_bad, self._lost = most_bad, set[int]()
        self._eta = losses.eta if losses.texture > 0 else -1
        self._new = frozenset(new_slots)
        worn = [{garment.slot for garment in person.garments} for person in cached.people]
        self._items = [item for item, slots in enumerate(worn) if not self._new or slots & self._new]
        if not self._items:
            problem = f"nobody in it wears {' or '.join(sorted(self._new))}"
            remedy = "add people who wear it, or correct adapter.slots."
            raise refusal("data:", problem, "That garment kind is to be trained.", remedy)

    def __len__(self) -> int:
        return len(self._items)

    def name(self, item: int) -> str:
        return self.cached.ids[self._items[item]]

    def sample(self, draw: Draw) -> DressingSample:
        item = self._items[draw.item]
        person = self.cached.load(item)
        timestep = draw.integer(1000, "timestep")
        garments = self._dropped(person.garments, draw)
        without_text = draw.uniform("text") < self._dropout.text
        return DressingSample(
            latent=person.latent,
            noise=draw.normal(tuple(person.latent.shape), "noise"),
            timestep=timestep,
            text=self.cached.no_text if without_text else person.text,
            garments=garments,
            edges=person.edges if self._eta >= 0 else None,
            picture=self._picture(item) if timestep <= self._eta else None,
            draw=draw,
        )

    def _picture(self, item: int) -> Tensor | None:
        """The person's picture, None when it cannot be read any more: it is named once, and too many end the run."""
        try:
            return self.cached.picture(item)
        except ValueError as error:
            if item not in self._lost:
                self._lost.add(item)
                logger.warning("%s goes on without texture losses. %s", self.cached.ids[item], error)
            if len(self._lost) > self._most_bad * len(self.cached):
                raise
            return None

    def _dropped(self, garments: tuple[CachedGarment, ...], draw: Draw) -> tuple[CachedGarment, ...]:
        """All garments, or all but one (D9); never none."""
        may_go = [place for place, garment in enumerate(garments) if garment.slot not in self._new]
        if len(garments) < 2 or not may_go or draw.uniform("garment") >= self._dropout.one_garment:
            return garments
        gone = may_go[draw.integer(len(may_go), "which garment")]
        return garments[:gone] + garments[gone + 1 :]

    def collate(self, samples: list[DressingSample]) -> DressingBatch:
        garments = [garment for sample in samples for garment in sample.garments]
        counts = [len(sample.garments) for sample in samples]
        worn = torch.full((len(samples), max(counts)), -1, dtype=torch.long)
        masks = torch.zeros(*worn.shape, *garments[0].mask.shape)
        first = 0
        for row, sample in enumerate(samples):
            worn[row, : counts[row]] = torch.arange(first, first + counts[row])
            masks[row, : counts[row]] = torch.stack([garment.mask for garment in sample.garments]).float()
            first += counts[row]
        edges = [sample.edges for sample in samples if sample.edges is not None]
        return DressingBatch(
            latents=torch.stack([sample.latent for sample in samples]),
            noise=torch.stack([sample.noise for sample in samples]),
            timestep=torch.tensor([sample.timestep for sample in samples]),
            text=torch.stack([sample.text for sample in samples]),
            outfits=outfits_of(garments, worn, self._foreground),
            masks=masks,
            edges=torch.stack(edges)[:, None].float() if edges else None,
            pictures={row: sample.picture for row, sample in enumerate(samples) if sample.picture is not None},
            draw=samples[0].draw,
        )


def outfits_of(garments: Sequence[CachedGarment], worn: Tensor, foreground: bool) -> Outfits:
    """Garments side by side, and who wears which."""
    return Outfits(
        latents=torch.stack([garment.latent for garment in garments]),
        slots=[garment.slot for garment in garments],
        worn=worn,
        cells=torch.stack([garment.cells for garment in garments]) if foreground else None,
    )
