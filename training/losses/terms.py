# SPDX-License-Identifier: GPL-3.0-or-later
"""The losses of AnyDressing: one function for each of Eq. 9-15, all computed in fp32 whatever comes in.

    L = L_LDM + (lambda1 / m) sum over sites of L_loc + lambda2 L_texture        L_texture = L_perc + L_hf for t <= eta

The paper prints its norms unsquared (Eq. 2, 9, 13), so every term has a named reading (decision D6): `mse` is the mean
of squares, `l2` the norm itself. L_LDM is always read as mse. Pictures are (B, 3, H, W) in [-1, 1], masks M_k
(B, N, H, W) in [0, 1] in the person picture; `present` (B, N) bool says which garments a person wears, None that
everybody wears all N. A row's 1/N counts the garments present; a row without any has no L_loc and no L_texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ...anydressing_core.defaults import ETA, LAMBDA1, LAMBDA2
from ...anydressing_core.pixels import unit_of
from ...anydressing_core.refusals import refusal

Reduction = Literal["mse", "l2"]


@dataclass(frozen=True)
class LossWeights:
    """lambda1, lambda2 of Eq. 15 and eta of Eq. 11; the defaults are the paper's (Sec. 7.1)."""

    lambda1: float = LAMBDA1
    lambda2: float = LAMBDA2
    eta: int = ETA

    def __post_init__(self) -> None:
        for name, value in (("lambda1", self.lambda1), ("lambda2", self.lambda2)):
            if not 0 <= value < math.inf:
                raise refusal(
                    f"{name} = {value}", "is impossible", "It weighs a loss.", "choose a finite number from 0."
                )
        if not 0 <= self.eta <= 999:
            why = "It is the last timestep at which the texture losses act."
            raise refusal(f"eta = {self.eta}", "is impossible", why, "choose 0 to 999; the paper takes 350.")


@dataclass(frozen=True)
class LossReading:
    """How the paper's norms are read (D6).

    localisation: `l2` is Eq. 9 as printed, the norm over a site's pixels; `mse` their mean square.
    high_frequency: both average over the values under M_k P; `l2` is the root of `mse`.
    """

    localisation: Reduction = "l2"
    high_frequency: Reduction = "l2"

    def __post_init__(self) -> None:
        _require("localisation", self.localisation, get_args(Reduction))
        _require("high_frequency", self.high_frequency, get_args(Reduction))

    @property
    def text(self) -> str:
        """What the file records as `loss_reading`."""
        return f"L_LDM mse; L_loc {self.localisation}; L_perc DISTS frame; L_hf {self.high_frequency} per edge value"


# ---- the terms ------------------------------------------------------------------------------------------------------


def ldm_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise (Eq. 14): two (B, 4, h, w) -> scalar."""
    return functional.mse_loss(prediction.float(), noise.float())


def localisation_loss(
    maps: Mapping[str, Tensor],
    masks: Tensor,
    grids: Mapping[str, tuple[int, int]],
    *,
    reduction: Reduction = "l2",
    present: Tensor | None = None,
) -> Tensor:
    """L_loc, 1/N sum_k ||A_k - M_k|| (Eq. 9), averaged over the sites: the 1/m of Eq. 15 is in it.

    maps: site key -> A (B, L, N). masks: M_k, averaged over each token's area. grids: site key -> (h, w), h * w = L.
    Returns the mean over rows, a scalar. The null token, if any, acts through the maps: without one they sum to 1 at
    every pixel, so that one garment alone has a constant loss (decision D2).
    """
    assert maps.keys() == grids.keys()
    on_grid = {grid: _tokens(masks, grid) for grid in set(grids.values())}
    present = _present(masks, present)
    losses: list[Tensor] = []
    for site, attention in maps.items():
        target = on_grid[grids[site]]  # -> (B, L, N)
        assert attention.shape == target.shape
        # Chosen before the norm: an absent garment must not even pass a NaN backwards.
        difference = (attention.float() - target).masked_fill(~present[:, None], 0.0)
        # vector_norm has the slope 0 at 0, where a root has an infinite one.
        l2 = reduction == "l2"
        distance = torch.linalg.vector_norm(difference, dim=1) if l2 else difference.square().mean(dim=1)
        losses.append(_garment_mean(distance, present).mean())
    return torch.stack(losses).mean()


def one_step_estimate(noisy: Tensor, prediction: Tensor, alpha: Tensor) -> Tensor:
    """Estimate the clean latents z0_hat in one step (Eq. 10), in fp32.

    noisy, prediction: z_t and eps_hat, (B, 4, h, w). alpha: a_t (B,), the cumulative product at each row's timestep.
    """
    alpha = alpha.float().view(-1, 1, 1, 1)
    return (noisy.float() - (1 - alpha).sqrt() * prediction.float()) / alpha.sqrt()


def perceptual_loss(
    image: Tensor,
    target: Tensor,
    masks: Tensor,
    dists: Callable[[Tensor, Tensor], Tensor],
    *,
    present: Tensor | None = None,
) -> Tensor:
    """L_perc, 1/N sum_k DISTS(I_hat M_k, I M_k) (Eq. 12), of each row: (B,).

    image, target: I_hat and I. dists: two (1, 3, H, W) in [0, 1] -> (1,). A garment whose mask is empty counts as 0.
    """
    assert image.shape == target.shape
    assert masks.shape[-2:] == image.shape[-2:]
    image, target, masks = unit_of(image), unit_of(target), masks.float()
    # The sum of no pixels: a zero that a gradient can be asked of, and finite even if a pixel is not.
    nothing = image[:, :, :0].sum(dim=(1, 2, 3))
    present = _present(masks, present)
    rows: list[Tensor] = []
    for row, worn in enumerate(present.tolist()):
        loss = nothing[row]
        for garment in (index for index, wears in enumerate(worn) if wears):
            mask = masks[row, garment]
            if mask.any():
                pair = (picture[row : row + 1] * mask for picture in (image, target))
                loss = loss + dists(*pair)[0] / sum(worn)
        rows.append(loss)
    return torch.stack(rows)


def high_frequency_loss(
    image: Tensor,
    target: Tensor,
    masks: Tensor,
    edges: Tensor,
    *,
    reduction: Reduction = "l2",
    present: Tensor | None = None,
) -> Tensor:
    """L_hf, 1/N sum_k ||I_hat M_k P - I M_k P|| (Eq. 13), of each row: (B,).

    image, target: I_hat and I, compared in [0, 1]. edges: P of I, (B, 1, H, W). The squares are averaged over the
    values under M_k P, 3 a pixel, each weighted by (M_k P)^2, so that a difference of d everywhere gives d (`l2`) or
    d^2 (`mse`) whatever M_k and P. A garment without an edge counts as 0.
    """
    assert image.shape == target.shape
    assert masks.shape[-2:] == edges.shape[-2:] == image.shape[-2:]
    weight = masks.float() * edges.float()  # -> (B, N, H, W)
    difference = (unit_of(image) - unit_of(target))[:, None] * weight[:, :, None]  # -> (B, N, 3, H, W)
    values = 3 * weight.square().sum(dim=(2, 3))  # -> (B, N)
    values = torch.where(values > 0, values, 1.0)
    if reduction == "l2":
        distance = torch.linalg.vector_norm(difference, dim=(2, 3, 4)) / values.sqrt()
    else:
        distance = difference.square().sum(dim=(2, 3, 4)) / values
    return _garment_mean(distance, _present(masks, present))


def weighted_sum(ldm: Tensor, localisation: Tensor | float, texture: Tensor | float, weights: LossWeights) -> Tensor:
    """L = L_LDM + lambda1 L_loc + lambda2 L_texture (Eq. 15), where `localisation` holds the 1/m already.

    A term that is switched off is 0.0.
    """
    return ldm + weights.lambda1 * localisation + weights.lambda2 * texture


# ---- which term pulls how much --------------------------------------------------------------------------------------


def gradient_norms(losses: Mapping[str, Tensor], probe: Tensor) -> dict[str, float]:
    """The l2 norm of each loss's gradient at one tensor, by which terms of different scales can be compared.

    probe: a tensor in the graph of the losses, such as one site's W_k'. For the texture term give its surrogate. The
    graph stays usable and no `.grad` is touched. A loss that does not depend on the probe has the norm 0.
    """
    norms: dict[str, float] = {}
    for name, loss in losses.items():
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, probe, retain_graph=True, allow_unused=True)
        norms[name] = 0.0 if gradient is None else float(torch.linalg.vector_norm(gradient.float()))
    return norms


# ---- helpers --------------------------------------------------------------------------------------------------------


def _tokens(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average M_k (B, N, H, W) over each token's area, as core's `region_on_grid` does for one: (B, L, N)."""
    return functional.adaptive_avg_pool2d(masks.float(), grid).flatten(2).transpose(1, 2)


def _present(masks: Tensor, present: Tensor | None) -> Tensor:
    if present is None:
        return torch.ones(masks.shape[:2], dtype=torch.bool, device=masks.device)
    assert present.shape == masks.shape[:2]
    return present.to(masks.device, torch.bool)


def _garment_mean(values: Tensor, present: Tensor) -> Tensor:
    """1/N sum_k over the garments present in each row: (B, N) -> (B,), 0 where there is none."""
    return values.masked_fill(~present, 0.0).sum(dim=1) / present.sum(dim=1).clamp(min=1)


def _require(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        why = f"A norm is read as {' or '.join(choices)} (D6)."
        raise refusal(f"{name} = {value!r}", "is unknown", why, "choose one of these.")
