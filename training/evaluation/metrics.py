# SPDX-License-Identifier: GPL-3.0-or-later
"""How near a dressed picture comes to the truth, where the truth is known: colours, textures, places, and mix-ups.

Pictures are (3, H, W) in [0, 1], masks (H, W) bool, all on the CPU. Nothing here samples or reads files, and every value
is of one picture; `interval` says how sure their mean is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Features = Callable[[Tensor], list[Tensor]]
"""Pictures (B, 3, H, W) in [0, 1] -> feature maps, finest first: a `FeatureNetwork` of training.losses.dists."""


# ---- garments where the truth is known to the pixel -----------------------------------------------------------------


def colour_error(picture: Tensor, truth: Tensor, mask: Tensor) -> float:
    """The mean difference in CIE Lab (Delta E 1976) inside a mask; about 2 is just visible, 100 is black for white."""
    return float((_lab(picture) - _lab(truth)).square().sum(dim=-1).sqrt()[mask].mean())


def texture_error(picture: Tensor, truth: Tensor, mask: Tensor, dists: Callable[[Tensor, Tensor], Tensor]) -> float:
    """DISTS of the garment alone, black around it, cut to its box (of at least 32 pixels a side): 0 for equal pictures."""
    return float(dists(_cut_out(picture, mask), _cut_out(truth, mask)))


def texture_distance(
    picture: Tensor, mask: Tensor, garment: Tensor, garment_mask: Tensor, dists: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """DISTS between two pictures of a garment, each cut out on black and the second brought to the first's size.

    Of no exact truth, so that even the garment's own is not 0: hems and folds count. The masks are not empty.
    """
    mine, theirs = _cut_out(picture, mask), _cut_out(garment, garment_mask)
    theirs = functional.interpolate(theirs, (mine.shape[-2], mine.shape[-1]), mode="bilinear", antialias=True)
    return float(dists(mine, theirs))


def _cut_out(picture: Tensor, mask: Tensor) -> Tensor:
    down, across = _bounding_box(mask)
    return (picture * mask)[None, :, down, across]


def palette_error(picture: Tensor, mask: Tensor, garment: Tensor, garment_mask: Tensor, quantiles: int = 64) -> float:
    """How far apart the colours of two garments are, wherever in the garment they stand: 0 for equal palettes.

    The distance in CIE Lab between the sorted values of each channel, at so many quantiles; the masks are not empty.
    """
    at = (torch.arange(quantiles) + 0.5) / quantiles
    mine, theirs = (
        torch.quantile(_lab(image)[inside], at, dim=0) for image, inside in ((picture, mask), (garment, garment_mask))
    )
    return float((mine - theirs).square().sum(dim=-1).sqrt().mean())


def _lab(image: Tensor) -> Tensor:
    """CIE Lab, (H, W, 3)."""
    import cv2

    pixels = np.ascontiguousarray(image.clamp(0, 1).permute(1, 2, 0).numpy(), np.float32)
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB))


# ---- whose garment is it? -------------------------------------------------------------------------------------------


def look_of(network: Features, picture: Tensor, mask: Tensor) -> Tensor:
    """What a garment looks like, wherever it is: the mean of a network's features inside a mask, one unit vector."""
    parts: list[Tensor] = []
    with torch.no_grad():
        for features in network(picture[None]):
            share = functional.adaptive_avg_pool2d(mask[None, None].float(), (features.shape[-2], features.shape[-1]))
            mean = (features * share).sum(dim=(2, 3))[0] / share.sum().clamp(min=1e-6)
            parts.append(functional.normalize(mean, dim=0))
    return functional.normalize(torch.cat(parts), dim=0)


def rank_among(look: Tensor, own: Tensor, others: Sequence[Tensor]) -> int:
    """How many other garments look more like it than its own does: 0 when its own is the nearest."""
    return sum(float(look @ other) > float(look @ own) for other in others)


def is_swapped(looks: tuple[Tensor, Tensor], owns: tuple[Tensor, Tensor]) -> bool:
    """Whether two garments of one person look more like each other's than like their own."""
    straight = float(looks[0] @ owns[0] + looks[1] @ owns[1])
    crossed = float(looks[0] @ owns[1] + looks[1] @ owns[0])
    return crossed > straight


# ---- where attention and change are ---------------------------------------------------------------------------------


def localisation_iou(attention: Tensor, masks: Tensor, threshold: float = 0.5) -> float:
    """Mean over garments of the overlap of A_k > threshold with M_k, intersection over union.

    attention: A_k (N, h, w), brought to the masks' size. masks: M_k (N, H, W) bool.
    """
    height, width = masks.shape[-2:]
    fine = functional.interpolate(attention[None].float(), (height, width), mode="bilinear")[0] > threshold
    return float(mask_iou(fine, masks).mean())


def mask_iou(found: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks (N, H, W) bool, each: (N,). Two empty ones agree."""
    both, either = (found & truth).sum(dim=(1, 2)), (found | truth).sum(dim=(1, 2))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def leakage(dressed: Tensor, undressed: Tensor, garments: Tensor) -> float:
    """How much dressing has changed outside all garments: the mean absolute difference there, 0..1."""
    outside = ~garments
    return float((dressed - undressed).abs().mean(dim=0)[outside].mean()) if outside.any() else 0.0


# ---- how sure a mean is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """A mean over `count` outfits, and the interval that holds 95 % of the means of resampled outfits."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> Mean:
    """The bootstrap interval of a mean; outfits are what is resampled, so give one value for each."""
    data, chance = np.asarray(values, float), np.random.default_rng(seed)
    means = data[chance.integers(len(data), size=(resamples, len(data)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Mean(float(data.mean()), float(low), float(high), len(data))


# ---- helpers --------------------------------------------------------------------------------------------------------

SMALLEST_BOX = 32
"""Pixels: a network of five halvings has nothing left of less, and a sliver of a garment under another may be of 2."""


def _bounding_box(mask: Tensor) -> tuple[slice, slice]:
    """Rows and columns that hold a mask (H, W) which is not empty, at least SMALLEST_BOX a side where there is room."""
    down, across = (_span(mask.bool().any(dim=axis)) for axis in (1, 0))
    return down, across


def _span(within: Tensor) -> slice:
    """From the first to the last place that is True, widened to SMALLEST_BOX."""
    places = within.nonzero()
    start, stop = int(places[0]), int(places[-1]) + 1
    spare = max(SMALLEST_BOX - (stop - start), 0)
    start = max(min(start - spare // 2, len(within) - SMALLEST_BOX), 0)
    return slice(start, max(stop, start + SMALLEST_BOX))
