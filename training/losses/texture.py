# SPDX-License-Identifier: GPL-3.0-or-later
"""L_texture (Eq. 11-13) with the memory of one decode, exactly: the two-phase backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...anydressing_core.refusals import refusal
from .terms import LossReading, high_frequency_loss, perceptual_loss

TEXTURE_PARTS = ("perc", "hf")
"""What L_texture is the sum of: L_perc (Eq. 12) and L_hf (Eq. 13)."""


def texture_of_rows(
    image: Tensor,
    target: Tensor,
    masks: Tensor,
    edges: Tensor,
    dists: Callable[[Tensor, Tensor], Tensor],
    reading: LossReading,
    *,
    present: Tensor | None = None,
) -> Tensor:
    """L_perc and L_hf of each row, before the gate (Eq. 11): (2, B), in the order of TEXTURE_PARTS."""
    perceptual = perceptual_loss(image, target, masks, dists, present=present)
    return torch.stack(
        [
            perceptual,
            high_frequency_loss(image, target, masks, edges, reduction=reading.high_frequency, present=present),
        ]
    )


def texture_acts(timestep: Tensor, eta: int) -> Tensor:
    """Which rows have a texture loss, those with t <= eta (Eq. 11): (B,) -> (B,) bool."""
    return timestep <= eta


@dataclass(frozen=True)
class TextureTerm:
    """L_texture after its first backward pass.

    surrogate: scalar whose *gradient* is that of L_texture; its value means nothing. parts: L_perc and L_hf, (2,),
    detached. part_surrogates: (2,), the surrogate of each, where asked for. rows: which rows were decoded.
    """

    surrogate: Tensor
    parts: Tensor
    part_surrogates: Tensor | None
    rows: tuple[int, ...]

    @property
    def loss(self) -> Tensor:
        """L_texture, detached."""
        return self.parts.sum()


def two_phase_texture(
    estimate: Tensor,
    timestep: Tensor,
    eta: int,
    texture_of_row: Callable[[Tensor, int], Tensor],
    *,
    max_per_step: int | None = None,
    generator: torch.Generator | None = None,
    separate: bool = False,
) -> TextureTerm:
    """Compute L_texture and its gradient with the memory of one decode, exactly (Eq. 10-13).

    Each row with t <= eta is detached, decoded and judged by itself, and gives g = dL / dz0_hat; its graph is freed
    before the next. The surrogate (g z0_hat).sum() then carries g into the U-Net in the ordinary backward pass.

    estimate: z0_hat (B, 4, h, w), with its graph. texture_of_row: (z0_hat of one row (1, 4, h, w), its index) -> the
    row's L_perc and L_hf, (2,); it decodes in fp32 or bf16, since g is not scaled and would underflow in fp16.
    max_per_step, generator: decode at most so many rows, drawn by the generator, as in `drawn_rows`. separate: also
    give each part's own surrogate, which takes a second pass backwards through the decoder.
    """
    rows, weight = drawn_rows(timestep, eta, max_per_step, generator)
    parts = estimate.new_zeros(len(TEXTURE_PARTS), dtype=torch.float32)
    # A zero that carries the graph, so that every rank has one to go through.
    surrogates = estimate[:0].float().sum().expand(len(TEXTURE_PARTS) if separate else 1)
    for row in rows:
        latent = estimate[row : row + 1]
        leaf = latent.detach().requires_grad_()
        with torch.enable_grad():
            values = texture_of_row(leaf, row).float() * (weight / len(timestep))
            sums = values.unbind() if separate else (values.sum(),)
        gradients = [torch.autograd.grad(each, leaf, retain_graph=each is not sums[-1])[0] for each in sums]
        parts = parts + values.detach()
        surrogates = surrogates + torch.stack([(gradient * latent).float().sum() for gradient in gradients])
    return TextureTerm(surrogates.sum(), parts, surrogates if separate else None, rows)


def drawn_rows(
    timestep: Tensor, eta: int, max_per_step: int | None = None, generator: torch.Generator | None = None
) -> tuple[tuple[int, ...], float]:
    """Choose the rows to decode among those with t <= eta, and how much each then counts.

    With more than `max_per_step` of them, every choice of that many is equally likely and each counts
    (low rows) / max_per_step times, so that the expected loss and gradient are those of all. generator: on the CPU,
    seeded by (seed, step, rank), so that a resumed run draws the same rows.
    """
    if max_per_step is not None and max_per_step < 1:
        remedy = "choose 1 or more; to decode nothing, switch texture off."
        raise refusal(f"max_per_step = {max_per_step}", "is impossible", "It counts people.", remedy)
    low = texture_acts(timestep, eta).nonzero().flatten().tolist()
    if max_per_step is None or len(low) <= max_per_step:
        return tuple(low), 1.0
    assert generator is not None
    order = torch.randperm(len(low), generator=generator)[:max_per_step]
    return tuple(sorted(low[index] for index in order.tolist())), len(low) / max_per_step
