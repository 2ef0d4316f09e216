# SPDX-License-Identifier: GPL-3.0-or-later
"""From a picture file to what is trained on: people, garments laid flat or cut out, and the masks of where they show.

People and masks are scaled until they cover the resolution and cropped to their centre; garments are padded onto white,
never stretched (decision D10). A file that cannot be used raises `BadPictureError`, which names it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...anydressing_core.canvas import GarmentCanvas, lay_out
from ...anydressing_core.digests import content_key
from ...anydressing_core.downloads import what_came_instead
from ...anydressing_core.latents import Size
from ...anydressing_core.pixels import as_signed
from ...anydressing_core.refusals import quote
from .jitter import jittered

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""What is read; other decoders of Pillow start programs or are rarely looked after."""

MOST_PIXELS = 89_478_485
"""Pillow's own limit, where it would only warn: a small file can unfold into gigabytes."""

READ_AT_ONCE = 64
"""Files that are read between two looks at whether to go on."""

MASK_THRESHOLD = 128
GREYS = range(26, 230)
"""What is clearly neither black nor white: a tenth of the way from both."""


Fault = Literal["unreadable", "mask size", "label map", "empty mask", "cut off", "blank"]


class BadPictureError(ValueError):
    """Says which file cannot be used, and why; `fault` is the sort of reason."""

    def __init__(self, file: str, why: str, fault: Fault = "unreadable") -> None:
        super().__init__(f"{file}: {why}")
        self.file, self.why, self.fault = file, why, fault


@dataclass(frozen=True)
class Source:
    """A picture file as it was first seen. name: as the manifest spells it. sha256: of its bytes."""

    name: str
    path: Path
    sha256: str

    @classmethod
    def find(cls, name: str, path: Path) -> Source:
        """Look at a file. Raises BadPictureError when it cannot be read."""
        return cls(name, path, hashlib.sha256(_content(name, path)).hexdigest())

    def read(self) -> bytes:
        """The bytes, those of `sha256`. Raises BadPictureError for any others."""
        content = _content(self.name, self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise BadPictureError(self.name, "the file changed after it was first read")
        return content


def person_picture(person: Source, resolution: Size) -> Tensor:
    """The person, scaled to cover the resolution (height, width) and cropped: (3, H, W) in [-1, 1]."""
    height, width = resolution
    return _tensor(ImageOps.fit(upright(person), (width, height), Image.Resampling.LANCZOS))


def worn_mask(mask: Source, person: Source, resolution: Size) -> Tensor:
    """Where a garment shows on the person, cropped as the person is: (H, W) bool, somewhere true."""
    height, width = resolution
    fitted = np.array(ImageOps.fit(shape_on(mask, person), (width, height), Image.Resampling.BOX)) >= MASK_THRESHOLD
    if not fitted.any():
        why = f"nothing of the mask is left in the picture's centre, {width} x {height}"
        raise BadPictureError(mask.name, why, "cut off")
    return torch.from_numpy(fitted)


def flat_lay(garment: Source, resolution: Size) -> GarmentCanvas:
    """A garment laid flat; of a picture with transparency, what is opaque is cut out."""
    with opened(garment) as image:
        upright = _eight_bit(ImageOps.exif_transpose(image))
        alpha = _alpha(upright)
        picture = _tensor((upright if alpha is None else upright.convert("RGBA")).convert("RGB"))[None]
    if alpha is None:
        return _visible(garment, lay_out(picture, *resolution))
    kept = torch.from_numpy(np.array(alpha)).float()[None, None] / 255
    if not (kept > 0.5).any():
        raise BadPictureError(garment.name, "it is transparent all over", "blank")
    return _visible(garment, lay_out(picture, *resolution, kept))


def cut_out(person: Source, mask: Source, resolution: Size, jitter: float = 0.0) -> GarmentCanvas:
    """A garment cut out of the person's picture onto white. jitter: how much it is changed by chance, see `jittered`."""
    shape = torch.from_numpy(np.array(shape_on(mask, person)) > 0).float()[None, None]
    picture = _tensor(upright(person))[None]
    if jitter:
        seed = int(content_key("jitter", person.sha256, mask.sha256)[:15], 16)
        picture, shape = jittered(picture, shape, jitter, seed)
    return _visible(mask, lay_out(picture, *resolution, shape))


def upright(source: Source) -> Image.Image:
    """The upright picture in colours, without transparency: over white."""
    with opened(source) as image:
        whole = _eight_bit(ImageOps.exif_transpose(image))
        if whole.has_transparency_data:
            whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole.convert("RGBA"))
        return whole.convert("RGB")


@lru_cache(maxsize=1024)  # a PNG is decoded to its end to learn which way is up, and each mask asks for its person
def picture_size(source: Source) -> Size:
    """Height and width of the upright picture."""
    with opened(source) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
        return image.size if sideways else (image.height, image.width)


def shape_on(mask: Source, person: Source) -> Image.Image:
    """A mask in black and white, somewhere white, of its person's upright picture. Raises BadPictureError for any other."""
    values = _mask_values(mask)
    (width, height), (high, wide) = values.size, picture_size(person)
    if (width, height) != (wide, high):
        why = f"the mask is {width} x {height} pixels, its person {wide} x {high}"
        raise BadPictureError(mask.name, why, "mask size")
    brightest = int(np.array(values).max())
    if brightest < MASK_THRESHOLD:
        why = f"the mask is empty: no pixel is {MASK_THRESHOLD} of 255 or brighter, the brightest is {brightest}"
        if brightest == 1:
            why += "; values of 0 and 1 are to be multiplied by 255"
        elif brightest:
            why += "; if these are labels, make one mask in black and white for each garment"
        raise BadPictureError(mask.name, why, "empty mask")
    return values.point([255 if value >= MASK_THRESHOLD else 0 for value in range(256)])


def grey_share(mask: Source) -> float:
    """The share of a mask's pixels that are neither black nor white."""
    counts = _mask_values(mask).histogram()
    return sum(counts[value] for value in GREYS) / sum(counts)


@contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """The picture in a file, as it is stored; BadPictureError for whatever goes wrong with it, inside the block too."""
    content = source.read()
    too_large = BadPictureError(source.name, f"it has more than {MOST_PIXELS:,} pixels")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise too_large
            yield image
    except BadPictureError:
        raise
    except Image.DecompressionBombError as error:
        raise too_large from error
    except UnidentifiedImageError as error:
        instead = what_came_instead(content[:64])
        why = f"it is not a picture in one of {', '.join(FORMATS)}" if instead is None else f"it is {instead[0]}"
        raise BadPictureError(source.name, why) from error
    except Exception as error:
        # Pillow's decoders raise errors of all kinds when a file is broken.
        raise BadPictureError(source.name, f"it is damaged or incomplete: {quote(str(error))}") from error


def _content(name: str, path: Path) -> bytes:
    if path.exists() and not path.is_file():  # asked before opening: opening a pipe would wait for ever
        raise BadPictureError(name, "it is a folder or a device, not a file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadPictureError(name, "there is no such file") from error
    except OSError as error:
        raise BadPictureError(name, f"it cannot be read ({error.strerror})") from error


def _mask_values(source: Source) -> Image.Image:
    """A mask's values, 255 on the garment: what is opaque where there is transparency, else what is bright."""
    with opened(source) as image:
        upright = _eight_bit(ImageOps.exif_transpose(image))
        alpha = _alpha(upright)
        if alpha is None and upright.mode == "P" and not _is_grey(upright):
            why = "it is coloured by a palette, as maps of labels are; a mask is black and white, one for each garment"
            raise BadPictureError(source.name, why, "label map")
        return upright.convert("L") if alpha is None else alpha


def _alpha(image: Image.Image) -> Image.Image | None:
    """How opaque a picture is; None when it is so all over."""
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def _is_grey(image: Image.Image) -> bool:
    pixels = np.array(image.convert("RGB")).astype(np.int16)
    return int((pixels.max(axis=2) - pixels.min(axis=2)).max()) == 0


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range nobody knows")
    sixteen_bit = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((sixteen_bit + 128) // 257).astype(np.uint8))


def _tensor(image: Image.Image) -> Tensor:
    return as_signed(np.array(image))


def _visible(source: Source, canvas: GarmentCanvas) -> GarmentCanvas:
    if not canvas.cells.any():
        raise BadPictureError(source.name, "no garment can be told from its ground", "blank")
    return canvas
