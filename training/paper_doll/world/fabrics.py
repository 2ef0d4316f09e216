# SPDX-License-Identifier: GPL-3.0-or-later
"""Fabrics: a texture, its colours and a print together, which is what makes a garment *that* garment.

The split lives here. Whether a fabric belongs to training or is held out is a pure function of its identity, so that
both sides can be sampled without end and never meet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from .colours import CLOTH_COLOURS, DENIM_COLOURS, READABLE_ON, jittered
from .prints import MOTIFS, WORDS, Print
from .textures import CALM, ONE_COLOUR, Dye

Split: TypeAlias = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
HELD_OUT_PERCENT = 15
SALT = "paper-doll-215"  # chosen so that textures of a single colour lie on both sides


@dataclass(frozen=True)
class Fabric:
    """Cloth before it is cut.

    colours: names of the visible ones: the ground, a second one if the texture has one, the print's if it has one.
    dye: the same colours as this dye lot has them, and how the texture is drawn; its accent is the print's colour.
    """

    texture: str
    colours: tuple[str, ...]
    dye: Dye
    motif: Print | None

    @property
    def print_name(self) -> str:
        """What is printed on it: "none", "text" or a motif."""
        return self.motif.motif if self.motif else "none"

    @property
    def identity(self) -> str:
        """Texture, set of colours and print in one word; scale, dye lot and the accent colour do not count."""
        word = self.motif.word if self.motif else ""
        return "|".join((self.texture, "+".join(sorted(self.colours)), self.print_name, word))

    @property
    def split(self) -> Split:
        """On which side of the split this fabric lies."""
        return split_of(self.identity)


def split_of(identity: str) -> Split:
    """The side of the split on which an identity lies: a stable hash decides."""
    digest = hashlib.blake2b(f"{SALT}|{identity}".encode(), digest_size=4).digest()
    return "held_out" if int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT else "train"


def draw_fabric(rng: np.random.Generator, split: Split, textures: tuple[str, ...], printable: bool) -> Fabric:
    """Draw fabrics, of one of these textures, until one lies on the wanted side of the split.

    The texture is drawn first and kept, so that every texture is as frequent in both splits.
    """
    texture = textures[rng.integers(len(textures))]
    while True:
        fabric = _any_fabric(rng, texture, printable)
        if fabric.split == split:
            return fabric


def _any_fabric(rng: np.random.Generator, texture: str, printable: bool) -> Fabric:
    names = _colour_names(rng, texture)
    inks = [jittered(CLOTH_COLOURS[name], rng) for name in names]
    ink_names = [name for name in CLOTH_COLOURS if all(name in READABLE_ON[other] for other in names)]
    ink_name = ink_names[rng.integers(len(ink_names))] if ink_names else "white"
    ink = jittered(CLOTH_COLOURS[ink_name], rng)
    dye = Dye(
        inks=(inks[0], inks[1] if len(inks) > 1 else ink, ink),
        count=int(rng.integers(4, 8)),
        duty=float(rng.uniform(0.3, 0.6)),
        seed=int(rng.integers(2**31)),
    )
    if printable and ink_names and texture in CALM and rng.random() < 0.75:
        return Fabric(texture, (*names, ink_name), dye, _any_print(rng))
    return Fabric(texture, names, dye, None)


def _colour_names(rng: np.random.Generator, texture: str) -> tuple[str, ...]:
    if texture == "denim":
        return (DENIM_COLOURS[rng.integers(len(DENIM_COLOURS))],)
    palette = tuple(CLOTH_COLOURS)
    first = palette[rng.integers(len(palette))]
    if texture in ONE_COLOUR:
        return (first,)
    others = READABLE_ON[first]
    return first, others[rng.integers(len(others))]


def _any_print(rng: np.random.Generator) -> Print:
    motifs = tuple(MOTIFS)
    is_text = rng.random() < 0.3
    motif = "text" if is_text else motifs[rng.integers(len(motifs))]
    word = WORDS[rng.integers(len(WORDS))] if is_text else ""
    centre = (0.0, float(rng.uniform(0.105, 0.14)))
    size = float(rng.uniform(0.04, 0.056) if is_text else rng.uniform(0.028, 0.046))
    if motif not in ("text", "band") and rng.random() < 0.2:  # a small badge over the heart
        centre, size = (0.038, 0.085), 0.017
    return Print(motif, word, centre, size)
