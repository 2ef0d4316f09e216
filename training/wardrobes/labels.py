# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps of labels: which classes of which system are which garment, and how a map is read without losing them.

The systems share numbers and not meanings (5 is a skirt to ATR and an upper garment to LIP), so a map never goes without its
system's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...anydressing_core.latents import Size
from ..data.parsing import Mask
from ..data.pictures import BadPictureError, Source, opened

Classes = NDArray[np.uint8]

SYSTEMS: Mapping[str, Mapping[str, Collection[int]]] = MappingProxyType(
    {
        # 0 ground, 1 hat, 2 hair, 3 sunglasses, 4 upper, 5 skirt, 6 trousers, 7 dress, 8 belt, 9 and 10 shoes, 11 head,
        # 12 and 13 legs, 14 and 15 arms, 16 bag, 17 scarf. DressCode's own parsing calls trousers alone lower: skirts are, too.
        "atr": {"hat": (1,), "upper": (4,), "lower": (5, 6), "dress": (7,), "shoes": (9, 10), "bag": (16,)},
        # 0 ground, 1 hat, 2 hair, 3 glove, 4 sunglasses, 5 upper, 6 dress, 7 coat, 8 socks, 9 trousers, 10 jumpsuit,
        # 11 scarf, 12 skirt, 13 face, 14 and 15 arms, 16 and 17 legs, 18 and 19 shoes.
        "lip": {"hat": (1,), "upper": (5, 7), "lower": (9, 12), "dress": (6, 10), "shoes": (18, 19)},
        # As LIP, but for 10, which is the skin of neck and torso.
        "cihp": {"hat": (1,), "upper": (5, 7), "lower": (9, 12), "dress": (6,), "shoes": (18, 19)},
        # CIHP's, of people whose upper garment alone is known: what was taken for a dress is it, too.
        "viton-hd": {"hat": (1,), "upper": (5, 6, 7), "lower": (9, 12), "shoes": (18, 19)},
    }
)
"""Slot -> classes."""

_LIPS = {
    1: "hat",
    5: "shirt",
    6: "dress",
    7: "coat",
    9: "trousers",
    10: "jumpsuit",
    12: "skirt",
    18: "shoes",
    19: "shoes",
}
WORDS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "atr": {1: "hat", 4: "shirt", 5: "skirt", 6: "trousers", 7: "dress", 9: "shoes", 10: "shoes", 16: "bag"},
        "lip": _LIPS,
        "cihp": _LIPS,
        "viton-hd": {**_LIPS, 6: "shirt"},
    }
)
"""What a class is called, for captions."""

MOST_CLASSES = 64
MOST_STRETCHED = 0.02


def read_classes(source: Source, size: Size) -> Classes:
    """The class of each pixel of the person's upright picture, whose size this is: (H, W).

    Palettes are numbers, not colours; maps of another size are scaled to the nearest label. Raises BadPictureError.
    """
    with opened(source) as image:
        classes = _numbers(source, image)
        height, width = size
        if abs(classes.shape[0] * width - classes.shape[1] * height) > MOST_STRETCHED * classes.shape[0] * width:
            why = f"the map of labels is {classes.shape[1]} x {classes.shape[0]} pixels, its person {width} x {height}"
            raise BadPictureError(source.name, why, "mask size")
        if classes.shape != size:
            classes = np.array(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))
    return classes


def where(classes: Classes, wanted: Collection[int]) -> Mask:
    """Where a pixel is one of the wanted classes: (H, W)."""
    return np.isin(classes, list(wanted))


def word_of(classes: Classes, mask: Mask, system: str) -> str | None:
    """What most of a garment is called; None where its class has no word."""
    counts = np.bincount(classes[mask], minlength=1)
    return WORDS[system].get(int(counts.argmax()))


def _numbers(source: Source, image: Image.Image) -> Classes:
    if image.mode in ("P", "L", "1", "I;16", "I"):
        classes = np.array(image).astype(np.int64)
    else:
        colours = np.array(image.convert("RGB"))
        classes = colours[..., 0].astype(np.int64)
        if (colours != colours[..., :1]).any():
            why = "it is a picture in colours: which number a colour was, nobody can tell; use the file as it was published"
            raise BadPictureError(source.name, why, "label map")
    if classes.max() >= MOST_CLASSES:
        why = f"it holds the number {classes.max()}, where labels go to some twenty"
        raise BadPictureError(source.name, why, "label map")
    return classes.astype(np.uint8)
