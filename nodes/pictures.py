# SPDX-License-Identifier: GPL-3.0-or-later
"""ComfyUI's IMAGE and MASK, checked and turned into core's pictures, and back."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.canvas import LEAST_SHOWN, MASK_THRESHOLD
from ..anydressing_core.pixels import signed_of, unit_of
from ..anydressing_core.refusals import refusal

SMALLEST_SIDE = 16


class GarmentPicture(NamedTuple):
    """One garment's picture (1, 3, H, W) in [-1, 1], its mask (1, 1, H, W) in [0, 1] or None, and what the mask is."""

    picture: Tensor
    mask: Tensor | None
    origin: Literal["mask", "alpha", "black", ""]

    @property
    def told_by(self) -> str:
        """What tells the garment, in the artist's words."""
        return {
            "mask": "by the mask",
            "alpha": "by its transparency",
            "black": "on pure black, taken for the transparency that Load Image drops",
            "": "",
        }[self.origin]

    @property
    def seems_inverted(self) -> bool:
        """Whether the mask takes all of the border and hides something within: no garment lies like that."""
        return (
            self.origin == "mask" and self.mask is not None and bool((_border(self.mask[0, 0]) > MASK_THRESHOLD).all())
        )


def garment_picture(image: Any, mask: Any = None, *, invert: bool = False) -> GarmentPicture:
    """Check one garment's picture and find out where in it the garment is: by mask, by alpha, or by neither.

    image: IMAGE (1, H, W, 3 or 4) in [0, 1]; a fourth channel is alpha. mask: MASK (1, H', W') or None, 1 on the
    garment, or with `invert` 0. One that hides nothing counts as none, and so does one that is all zero, because
    LoadImage gives that for a picture without alpha. Pure black all around a picture is what LoadImage leaves of
    transparency, and is taken for it.
    """
    _require_one_picture(image)
    picture = image.movedim(-1, 1).float().clamp(0, 1).cpu()
    kept, origin = _garment_mask(mask, picture.shape[-2:], invert), "mask"
    if picture.shape[1] == 4 and bool((picture[:, 3:] < 1).any()):
        alpha, origin = picture[:, 3:], "alpha" if kept is None else "mask"
        kept = alpha if kept is None else kept * alpha
    if kept is None:
        kept, origin = _around_black(picture[:, :3]), "black"
    if kept is None:
        return GarmentPicture(signed_of(picture[:, :3]), None, "")
    found = GarmentPicture(signed_of(picture[:, :3]), kept, origin)
    taken = (kept > MASK_THRESHOLD).float()
    if not taken.any() or (found.seems_inverted and not (picture[:, :3] * taken).any()):
        raise refusal(
            "mask:" if origin == "mask" else "image:",
            "nothing of the garment is left",
            "What a mask shows white is taken for the garment: here that is nothing, or only the black beneath transparency.",
            "switch invert_mask, or make the mask from this very picture.",
        )
    return found


def region_mask(mask: Any) -> Tensor:
    """Check a region MASK (1, H, W) in [0, 1], 1 where the garment may go. Returns (H, W)."""
    tensor = _require_mask("region", mask)
    if not tensor.any():
        raise refusal(
            "region:",
            "the mask is empty (0 everywhere)",
            "A garment whose region is empty can go nowhere.",
            "paint the region white, invert the mask, or disconnect it.",
        )
    return tensor


def to_image(picture: Tensor) -> Tensor:
    """Core's picture (1, 3, H, W) in [-1, 1] as an IMAGE (1, H, W, 3) in [0, 1]."""
    return unit_of(picture).clamp(0, 1).movedim(1, -1)


def require_image(name: str, image: Any) -> None:
    """Raise ValueError unless this is what an IMAGE wire carries: (B, H, W, 3 or 4)."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise refusal(
            f"{name}:",
            f"expected a picture, got {_kind(image)}",
            "It must come as an IMAGE with three or four channels.",
            "connect a Load Image node or any other IMAGE output.",
        )


def _require_one_picture(image: Any) -> None:
    require_image("image", image)
    frames, height, width = image.shape[:3]
    if frames != 1:
        raise refusal(
            "image:",
            f"the garment picture has {frames} frames, expected one",
            "It is an animation or a batch; garments are never averaged.",
            "pick one picture with ImageFromBatch, or use one Garment Encode node for each garment.",
        )
    if min(height, width) < SMALLEST_SIDE:
        raise refusal(
            "image:",
            f"the garment picture is {width} x {height} pixels",
            f"A side shorter than {SMALLEST_SIDE} pixels shows no garment.",
            "use a larger picture; 512 pixels and more work best.",
        )
    if not torch.isfinite(image).all():
        raise refusal(
            "image:",
            "the garment picture holds values that are not numbers (NaN or infinity)",
            "A node before this one failed without saying so.",
            "preview the picture and repair the node that makes it.",
        )


def _garment_mask(mask: Any, size: torch.Size, invert: bool) -> Tensor | None:
    """The mask (1, 1, H, W) on the picture, 1 on the garment; None when it hides nothing."""
    if mask is None:
        return None
    tensor = _require_mask("mask", mask)
    if not tensor.any():
        return None
    kept = 1 - tensor if invert else tensor
    if bool((kept == kept.flatten()[0]).all()):  # of one value: where it lies does not matter
        return None if float(kept.flatten()[0]) > MASK_THRESHOLD else torch.zeros(1, 1, *size)
    if abs(tensor.shape[0] * size[1] - tensor.shape[1] * size[0]) > max(*tensor.shape, *size):  # a pixel of rounding
        raise refusal(
            "mask:",
            f"it is {tensor.shape[1]} x {tensor.shape[0]}, the garment picture {size[1]} x {size[0]}",
            "A mask of another shape does not lie on the garment.",
            "make the mask from the same picture, or crop both alike.",
        )
    return functional.interpolate(kept[None, None], tuple(size), mode="bilinear", antialias=True).clamp(0, 1)


def _around_black(picture: Tensor) -> Tensor | None:
    """Where a picture (1, 3, H, W) lies on pure black that reaches all around its border: 1 on it; None elsewhere."""
    import cv2

    black = picture.amax(dim=1)[0] == 0
    if not bool(_border(black).all()):
        return None
    _, pieces = cv2.connectedComponents(black.numpy().astype(np.uint8), connectivity=4)
    kept = torch.from_numpy(pieces != pieces[0, 0])
    return kept.float()[None, None] if kept.float().mean() > LEAST_SHOWN else None


def _border(plane: Tensor) -> Tensor:
    """The outermost values of (H, W), as one line."""
    return torch.cat([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def _require_mask(name: str, mask: Any) -> Tensor:
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3) or not torch.isfinite(mask).all():
        raise refusal(
            f"{name}:",
            f"expected a MASK, got {_kind(mask)}",
            "A mask is one picture of numbers from 0 to 1.",
            f"connect a MASK output, or disconnect {name}.",
        )
    if mask.ndim == 3 and mask.shape[0] != 1:
        raise refusal(
            f"{name}:",
            f"the mask has {mask.shape[0]} frames, expected one",
            "It belongs to an animation or a batch.",
            "pick one mask.",
        )
    return mask.reshape(mask.shape[-2:]).float().clamp(0, 1).cpu()


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"
