# SPDX-License-Identifier: GPL-3.0-or-later
"""What training reads instead of pictures and words: the cached people of a split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...anydressing_core.digests import content_key
from ...anydressing_core.latents import Size
from ...anydressing_core.refusals import quote, refusal
from .entries import Entries
from .pictures import BadPictureError, Source, person_picture


@dataclass(frozen=True)
class CachedGarment:
    """A garment. latent: of its canvas, (4, h, w) float32. cells: which of them show it, (h, w) bool, never none.

    mask: where it shows on the person, M_k, (H, W) bool, never nowhere.
    """

    slot: str
    latent: Tensor
    cells: Tensor
    mask: Tensor


@dataclass(frozen=True)
class CachedPerson:
    """A person. latent: (4, h, w) float32. text: (77, C) float32. edges: P of Eq. 13, (H, W) bool; None if not built."""

    id: str
    caption: str
    latent: Tensor
    text: Tensor
    garments: tuple[CachedGarment, ...]
    edges: Tensor | None


@dataclass(frozen=True)
class GarmentKeys:
    """Where a garment's entries are."""

    slot: str
    latent: str
    mask: str


@dataclass(frozen=True)
class PersonKeys:
    """Where a person's entries are. picture: the file of the person."""

    id: str
    caption: str
    picture: Source
    latent: str
    text: str
    edges: str | None
    garments: tuple[GarmentKeys, ...]

    @property
    def all(self) -> list[str]:
        """Every key of this person."""
        pieces = [key for garment in self.garments for key in (garment.mask, garment.latent)]
        return [self.latent, *([self.edges] if self.edges else []), *pieces, self.text]


@dataclass(frozen=True)
class CachedData:
    """The usable people of a split, in the manifest's order.

    It holds keys alone, so it is pickled cheaply, and it changes nothing, so threads may read at once. Whatever is
    read is verified; ValueError when a file was changed since the cache was opened. quarantined: id -> the bad file and
    what is wrong with it. left_out: how many people wear none of the slots.
    """

    entries: Entries
    resolution: Size
    people: tuple[PersonKeys, ...]
    no_text_key: str
    quarantined: Mapping[str, str]
    left_out: int

    def __len__(self) -> int:
        return len(self.people)

    @property
    def ids(self) -> tuple[str, ...]:
        """The people's ids."""
        return tuple(person.id for person in self.people)

    @property
    def digest(self) -> str:
        """The sha256 over ids, keys and order: what a resumed run must find again."""
        rows = [
            [person.id, *person.all, *(garment.slot for garment in person.garments), person.edges is not None]
            for person in self.people
        ]
        return content_key("data", json.dumps([rows, self.no_text_key]))

    @property
    def no_text(self) -> Tensor:
        """The embedding of the empty text, (77, C) float32."""
        return self._text(self.no_text_key)

    def load(self, index: int) -> CachedPerson:
        """Read all that is cached of a person."""
        person = self.people[index]
        return CachedPerson(
            person.id,
            person.caption,
            self.latent(index),
            self.text(index),
            tuple(map(self._garment, person.garments)),
            self.edges(index),
        )

    def latent(self, index: int) -> Tensor:
        """The person's latent, (4, h, w) float32."""
        return self.entries.read(self.people[index].latent)["latent"]

    def text(self, index: int) -> Tensor:
        """The caption's embedding, (77, C) float32."""
        return self._text(self.people[index].text)

    def edges(self, index: int) -> Tensor | None:
        """The edges of the person's picture, (H, W) bool; None if not built."""
        key = self.people[index].edges
        return None if key is None else self._bits(key)

    def garment_latents(self, index: int) -> tuple[Tensor, ...]:
        """The latents of the garments, each (4, h, w) float32."""
        return tuple(self.entries.read(garment.latent)["latent"] for garment in self.people[index].garments)

    def picture(self, index: int) -> Tensor:
        """The person's picture I, read from its file: (3, H, W) in [-1, 1]."""
        source = self.people[index].picture
        try:
            return person_picture(source, self.resolution)
        except BadPictureError as error:
            remedy = "put the file back and resume; with another picture, begin a new run."
            raise refusal(
                quote(source.name), "changed while the run was going", f"Reason: {error.why}.", remedy
            ) from error

    def _garment(self, keys: GarmentKeys) -> CachedGarment:
        encoded = self.entries.read(keys.latent)
        return CachedGarment(keys.slot, encoded["latent"], encoded["cells"], self._bits(keys.mask))

    def _text(self, key: str) -> Tensor:
        return self.entries.read(key)["text"]

    def _bits(self, key: str) -> Tensor:
        bits = self.entries.read(key)["bits"].numpy()
        return torch.from_numpy(np.unpackbits(bits, axis=1).astype(bool))
