# SPDX-License-Identifier: GPL-3.0-or-later
"""Every file of a data set, opened to its last byte by the functions that fill the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

from torch import Tensor

from ...anydressing_core.latents import Size
from ...anydressing_core.refusals import quote
from ..progress import Course
from .findings import KINDS, MASK_AREA, MOST_CROPPED, MOST_ENLARGED, MOST_GREY, MOST_OVERLAP, Note
from .manifest import Item, Manifest, WornGarment
from .pictures import (
    READ_AT_ONCE,
    BadPictureError,
    Source,
    cut_out,
    flat_lay,
    grey_share,
    person_picture,
    picture_size,
    worn_mask,
)

T = TypeVar("T")


@dataclass(frozen=True)
class OpenedGarment:
    """A garment whose files were opened.

    mask, flat_lay: their files; None for those that cannot be used, and for the flat-lay of a crop. size: of the
    flat-lay's picture, and share: how much of it the garment takes; None for the others.
    """

    worn: WornGarment
    mask: Source | None
    flat_lay: Source | None
    size: Size | None
    share: float | None


@dataclass(frozen=True)
class OpenedPerson:
    """A person whose files were opened. picture: the file; None when it cannot be used."""

    item: Item
    picture: Source | None
    size: Size | None
    garments: tuple[OpenedGarment, ...]
    notes: tuple[Note, ...]

    @property
    def usable(self) -> bool:
        """Whether training can take this person."""
        return all(KINDS[note.kind].level != "problem" for note in self.notes)


def open_all(manifest: Manifest, resolution: Size, course: Course) -> list[OpenedPerson]:
    """Open every file of everybody, in the manifest's order."""
    people: list[OpenedPerson] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for some in course.batches("checking people", manifest.items, READ_AT_ONCE):
            people += pool.map(lambda item: _Opening(manifest, resolution, item).person(), some)
    return people


@dataclass(frozen=True)
class _Opening:
    """One person's files being opened. notes: by kind and file, since a file may meet the same fault twice."""

    manifest: Manifest
    resolution: Size
    item: Item
    notes: dict[tuple[str, str], Note] = field(default_factory=dict)

    def person(self) -> OpenedPerson:
        picture, size, _ = self._pictured(self.item.image, person_picture)
        if size is not None:
            self._look_at_shape(size)
        if self.item.person_mask is not None:
            self._attempt(worn_mask, self._found(self.item.person_mask), picture)
        shapes: list[tuple[WornGarment, Tensor]] = []
        garments = [self._garment(worn, picture, shapes) for worn in self.item.garments]
        for (one, shape), (other, second) in combinations(shapes, 2):
            shared = int((shape & second).sum()) / min(int(shape.sum()), int(second.sum()))
            if shared > MOST_OVERLAP:
                self._note("overlap", other.mask, f"shares {shared:.0%} with {quote(one.mask)}", of=one.mask)
        return OpenedPerson(self.item, picture, size, tuple(garments), tuple(self.notes.values()))

    def _garment(
        self, worn: WornGarment, picture: Source | None, shapes: list[tuple[WornGarment, Tensor]]
    ) -> OpenedGarment:
        flat, size, canvas = (None,) * 3 if worn.image is None else self._pictured(worn.image, flat_lay)
        if size is not None and worn.image is not None:
            self._look_at_size(worn.image, size, min)
        if canvas is not None and worn.image is not None and not canvas.is_told_apart:
            self._note("ground", worn.image, f"{canvas.share:.0%} of it is no plain ground")
        mask = self._found(worn.mask)
        shape = self._attempt(worn_mask, mask, picture)
        share = canvas and canvas.share
        if mask is None or shape is None:
            return OpenedGarment(worn, None, flat, size, share)
        if worn.image is None:
            self._attempt(cut_out, picture, mask)
        shapes.append((worn, shape))
        self._look_at_mask(mask, shape)
        return OpenedGarment(worn, mask, flat, size, share)

    def _look_at_mask(self, mask: Source, shape: Tensor) -> None:
        smallest, largest = MASK_AREA
        area, grey = float(shape.float().mean()), grey_share(mask)
        if not smallest <= area <= largest:
            self._note("small mask" if area < smallest else "large mask", mask.name, f"covers {area:.1%}")
        if grey > MOST_GREY:
            self._note("grey mask", mask.name, f"{grey:.0%} of it is grey")

    def _look_at_shape(self, size: Size) -> None:
        (height, width), (wanted_height, wanted_width) = size, self.resolution
        scale = max(wanted_height / height, wanted_width / width)
        lost = 1 - wanted_height * wanted_width / (scale**2 * height * width)
        if lost > MOST_CROPPED:
            self._note("cropped", self.item.image, f"{by(size)} loses {lost:.0%}")
        self._look_at_size(self.item.image, size, max)

    def _look_at_size(self, name: str, size: Size, fit: Callable[[Iterable[float]], float]) -> None:
        """fit: which side decides the scale, max for pictures that are cropped and min for those that are padded."""
        if fit(wanted / side for wanted, side in zip(self.resolution, size, strict=True)) > MOST_ENLARGED:
            self._note("small picture", name, by(size))

    def _pictured(
        self, name: str, make: Callable[[Source, Size], T]
    ) -> tuple[Source, Size, T] | tuple[None, None, None]:
        """A picture's file and size, and what training makes of it, when that can be made."""
        source = self._found(name)
        made = self._attempt(make, source)
        if source is None or made is None:
            return None, None, None
        return source, picture_size(source), made

    def _found(self, name: str) -> Source | None:
        try:
            path = self.manifest.path(name)
        except (ValueError, RuntimeError):  # the latter before Python 3.13, for links in a circle
            return self._note("link", name, "it leads out of the data folder or nowhere")
        try:
            return Source.find(name, path)
        except BadPictureError as error:
            return self._note(error.fault, error.file, error.why)

    def _attempt(self, make: Callable[..., T], *sources: Source | None) -> T | None:
        """What is made of files at the resolution; None when one of them is missing or bad."""
        if None in sources:
            return None
        try:
            return make(*sources, self.resolution)
        except BadPictureError as error:
            return self._note(error.fault, error.file, error.why)

    def _note(self, kind: str, file: str, why: str, of: str = "") -> None:
        self.notes.setdefault((kind, file + of), Note(kind, self.item.id, f"{quote(file)}: {why}"))


def by(size: Size) -> str:
    """A size in words: height x width."""
    return f"{size[0]} x {size[1]}"
