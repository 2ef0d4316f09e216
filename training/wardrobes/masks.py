# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each garment of a look shows on the person, M_k, and which of them are seen too little to be cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.parsing import Mask, Parser
from ..data.pictures import BadPictureError, Source, shape_on, upright
from .labels import SYSTEMS, Classes, read_classes, where, word_of
from .looks import Look, Piece

LEAST_SEEN = 0.01
"""The share of the picture that a garment covers, or it is not cut out of it."""

MOST_AT_FRAME = 0.02
"""The share of a side of the frame that a whole garment may touch."""

UNSEEN, SMALL, CUT = "not seen", f"less than {LEAST_SEEN:.0%} of the picture", "cut by the frame"


@dataclass(frozen=True)
class Shown:
    """A piece and where it shows, (H, W). dropped: why it is not used; None where it is. word: what labels call it."""

    piece: Piece
    mask: Mask
    dropped: str | None
    word: str | None = None

    @property
    def is_missed(self) -> bool:
        """Whether there was something to use: not everybody wears a hat."""
        return self.piece.picture is not None or self.dropped != UNSEEN


def needs_parser(look: Look) -> bool:
    """Whether neither masks nor labels say where all of a look's pieces show."""
    return look.labels is None and not all(piece.masks for piece in look.pieces)


def masks_of(look: Look, root: Path, parser: Parser | None = None) -> list[Shown]:
    """Every piece of a look and where it shows on the person's upright picture.

    parser: for looks of which nothing says it. Raises BadPictureError for files that cannot be used.
    """
    person = _source(root, look.person)
    whole = upright(person)  # to its last byte, as those of the garments are
    size = (whole.height, whole.width)
    classes: Classes | None = None
    if look.labels is not None and not all(piece.masks for piece in look.pieces):
        classes = read_classes(_source(root, look.labels[0]), size)
    parsed = parser.parse(person) if parser is not None and needs_parser(look) else dict[str, Mask]()
    shown: list[Shown] = []
    for piece in look.pieces:
        if piece.picture is not None:
            upright(_source(root, piece.picture))
        if piece.masks:
            mask = _united([_source(root, name) for name in piece.masks], person)
        elif classes is not None and look.labels is not None:
            mask = where(classes, SYSTEMS[look.labels[1]].get(piece.slot, ()))
        else:
            mask = parsed.get(piece.slot, np.zeros(size, bool))
        word = None
        if classes is not None and look.labels is not None and mask.any():
            word = word_of(classes, mask, look.labels[1])
        shown.append(Shown(piece, mask, why_dropped(mask, whole=piece.picture is None), word))
    return shown


def why_dropped(mask: Mask, *, whole: bool) -> str | None:
    """Why a garment cannot be used; None where it can. whole: whether it is to be cut out, of which enough must be seen."""
    if not mask.any():
        return UNSEEN
    if not whole:
        return None
    if mask.mean() < LEAST_SEEN:
        return SMALL
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return CUT if any(side.mean() > MOST_AT_FRAME for side in sides) else None


def _united(masks: Sequence[Source], person: Source) -> Mask:
    return np.logical_or.reduce([np.array(shape_on(mask, person)) > 0 for mask in masks])


def _source(root: Path, name: str) -> Source:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadPictureError(name, "it leads out of the data's folder, by its name or by a link")
    return Source.find(name, path)
