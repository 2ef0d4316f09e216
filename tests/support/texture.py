# SPDX-License-Identifier: GPL-3.0-or-later
"""L_texture of a batch in one phase: the plain reference that the two-phase backward pass must equal."""

from __future__ import annotations

from comfyui_anydressing.training.losses.texture import texture_acts
from torch import Tensor


def texture_loss(rows: Tensor, timestep: Tensor, eta: int) -> Tensor:
    """L_texture (Eq. 11) of a batch: rows, (B,), where t <= eta and 0 elsewhere, averaged.

    Rows above eta count as zeros, so the sum is divided by B. Dividing by the number of low rows would weigh a lone
    one as much as a full batch, and texture about 1 / 0.351 times as much as Eq. 11 says.
    """
    return rows.float().masked_fill(~texture_acts(timestep, eta), 0.0).sum() / len(timestep)
