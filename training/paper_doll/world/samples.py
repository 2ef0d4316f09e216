# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples: from a seed to a dressed person, the garments' flat-lays, exact masks, a caption and the whole truth.

A sample is a function of (seed, split, hats, size) alone: the same bits in any process and in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .body import PEOPLE, POSES
from .captions import caption_of
from .colours import CLOTH_COLOURS, HAIR_COLOURS
from .dolls import Doll, draw_doll, paint_doll
from .fabrics import SPLITS, Split
from .flat_lays import flat_lay
from .garments import CUTS, SLOTS, DollGarment, draw_garment, kinds_of
from .hair import ALL_STYLES
from .prints import PRINTS
from .scenes import SCENES
from .textures import TEXTURES

SIZE = (512, 384)  # height, width
HATS = 0.25  # share of people with a hat

LABEL_SPACES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "person": PEOPLE,
        "pose": tuple(POSES),
        "scene": tuple(SCENES),
        "hair": ALL_STYLES,
        "hair_colour": tuple(HAIR_COLOURS),
        **{f"{slot}_kind": kinds_of(slot) for slot in SLOTS},
        "cut": CUTS,
        "texture": tuple(TEXTURES),
        "colour": tuple(CLOTH_COLOURS),
        "print": PRINTS,
    }
)


@dataclass(frozen=True)
class GarmentLabels:
    """The truth about a garment. colours: one to three names, the ground first. word: what a text print says, or ""."""

    slot: str
    kind: str
    cut: str
    texture: str
    colours: tuple[str, ...]
    print: str
    word: str
    identity: str


@dataclass(frozen=True)
class Labels:
    """The truth about a sample, in the words of LABEL_SPACES."""

    person: str
    pose: str
    scene: str
    hair: str
    hair_colour: str
    garments: Mapping[str, GarmentLabels]


@dataclass(frozen=True)
class Recipe:
    """What a sample is painted from: a person, and a garment for each slot in wearing order."""

    doll: Doll
    outfit: Mapping[str, DollGarment]
    caption: str

    @property
    def labels(self) -> Labels:
        """The truth about it."""
        doll, garments = self.doll, {slot: labels_of(garment) for slot, garment in self.outfit.items()}
        return Labels(doll.person, doll.pose, doll.scene, doll.hair, doll.hair_colour, MappingProxyType(garments))


@dataclass(frozen=True)
class GarmentPictures:
    """A garment's flat-lay (H, W, 3) bytes on pure white, and the mask (H, W) of what is visible of it when worn."""

    flat_lay: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """A painted recipe. person: (H, W, 3) bytes. person_mask: (H, W), skin, hair, shoes and garments together."""

    person: NDArray[np.uint8]
    garments: Mapping[str, GarmentPictures]
    person_mask: NDArray[np.bool_]
    caption: str
    labels: Labels


def labels_of(garment: DollGarment) -> GarmentLabels:
    """The truth about a garment."""
    fabric = garment.fabric
    word = fabric.motif.word if fabric.motif else ""
    return GarmentLabels(
        garment.slot,
        garment.kind,
        garment.cut,
        fabric.texture,
        fabric.colours,
        fabric.print_name,
        word,
        fabric.identity,
    )


def draw_recipe(seed: int, split: Split = "train", hats: float = HATS) -> Recipe:
    """Draw a person and an outfit whose garments all lie on one side of the split.

    hats: share of people who wear one; 0 for none, 1 for everybody.
    """
    person, words, hat, *wardrobe = (
        np.random.default_rng(stream)
        for stream in np.random.SeedSequence((SPLITS.index(split), seed)).spawn(3 + len(SLOTS))
    )
    doll = draw_doll(person)
    slots = SLOTS if hat.random() < hats else SLOTS[:2]
    outfit = {slot: draw_garment(rng, slot, split) for slot, rng in zip(slots, wardrobe, strict=False)}
    caption = caption_of(doll, [garment.kind for garment in outfit.values()], words)
    return Recipe(doll, MappingProxyType(outfit), caption)


def render(recipe: Recipe, size: tuple[int, int] = SIZE) -> Sample:
    """Paint a recipe at a size (H, W)."""
    dressed = {slot: (garment, garment.cloth()) for slot, garment in recipe.outfit.items()}
    canvas = paint_doll(recipe.doll, dressed, size)
    garments = {
        slot: GarmentPictures(flat_lay(garment, cloth, size), canvas.mask(slot))
        for slot, (garment, cloth) in dressed.items()
    }
    person_mask = canvas.shares[0] < 0.5
    return Sample(canvas.bytes(), MappingProxyType(garments), person_mask, recipe.caption, recipe.labels)


def sample(seed: int, split: Split = "train", size: tuple[int, int] = SIZE, hats: float = HATS) -> Sample:
    """The sample of a seed."""
    return render(draw_recipe(seed, split, hats), size)
