# SPDX-License-Identifier: GPL-3.0-or-later
"""An AnyDressing file of random numbers: same format, no meaning."""

from __future__ import annotations

import torch
from comfyui_anydressing.anydressing_core.checkpoint import Checkpoint, expected_tensors
from comfyui_anydressing.anydressing_core.checkpoint_info import CheckpointInfo
from torch import Tensor


def random_checkpoint(
    info: CheckpointInfo, seed: int, scale: float = 0.1, dtype: torch.dtype = torch.float32
) -> Checkpoint:
    """Make a checkpoint whose numbers depend on `seed` alone.

    W_k' and W_v' keep the size of what they project. scale: size of a LoRA's update relative to its input, before
    alpha / rank. The null token's keys have unit entries, its biases are small.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in expected_tensors(info).items():
        noise = torch.randn(shape, generator=generator)
        tensors[name] = (noise * _deviation(name, shape, scale)).to(dtype)
    return Checkpoint(info, tensors)


def _deviation(name: str, shape: tuple[int, ...], scale: float) -> float:
    if name.endswith("null_key"):
        return 1.0
    if name.endswith("null_bias"):
        return 0.1
    deviation = shape[1] ** -0.5  # keeps the variance through the product
    return deviation * scale if name.endswith("up.weight") else deviation
