# SPDX-License-Identifier: GPL-3.0-or-later
"""A garment's picture, or what is cut out of a person's, ready to be worn."""

from __future__ import annotations

from pathlib import Path

from ...anydressing_core.places import words_for
from ...anydressing_core.refusals import quote, refusal
from ..base.model import BaseModel
from ..data.pictures import BadPictureError, Source, cut_out, flat_lay
from ..model.dresser import Preparation
from ..model.people import EncodedGarment


def encoded_garment(
    slot: str, files: tuple[Source] | tuple[Source, Source], info: Preparation, base: BaseModel, words: str = ""
) -> EncodedGarment:
    """A garment laid flat, from its picture; or cut out, from a person's picture and the mask.

    words: what it is called, the slot's own word when empty. Raises ValueError for pictures that cannot be used.
    """
    try:
        canvas = flat_lay(*files, info.resolution) if len(files) == 1 else cut_out(*files, info.resolution)
    except BadPictureError as error:
        raise _unusable(error) from error
    called = base.encode_words(words_for(slot, words))
    return EncodedGarment(slot, base.encode_mode(canvas.picture)[0], canvas.cells, called)


def picture_source(path: Path) -> Source:
    """A picture file as it is now. Raises ValueError for one that cannot be read."""
    try:
        return Source.find(path.name, path)
    except BadPictureError as error:
        raise _unusable(error) from error


def _unusable(error: BadPictureError) -> ValueError:
    return refusal(quote(error.file), "cannot be used", f"Reason: {error.why}.", "choose another picture.")
