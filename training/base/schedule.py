# SPDX-License-Identifier: GPL-3.0-or-later
"""SD1.5's noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """SD1.5's: 1000 timesteps, betas scaled-linear from 0.00085 to 0.012, a U-Net that predicts the noise (epsilon).

    alphas_cumprod: (1000,), the a_t of Eq. 10, double precision, on the CPU; timestep counts 0..999.
    """

    alphas_cumprod: Tensor

    @classmethod
    def sd15(cls) -> NoiseSchedule:
        """Compute SD1.5's schedule."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        return cls((1 - betas).cumprod(0))

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t of clean latents (B, 4, h, w) at timestep (B,)."""
        signal, spread = self._weights(timestep, latents)
        return signal * latents + spread * noise

    def remove_noise(self, noisy: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The one-step estimate of the clean latents from z_t and the predicted noise (Eq. 10)."""
        signal, spread = self._weights(timestep, noisy)
        return (noisy - spread * noise) / signal

    def _weights(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod[timestep.cpu()].reshape(-1, 1, 1, 1)
        return alphas.sqrt().to(like), (1 - alphas).sqrt().to(like)
