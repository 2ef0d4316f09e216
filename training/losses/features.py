# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain feature networks for DISTS: the stages of a recogniser, without the heads by which it names what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ...anydressing_core.digests import tensor_digest
from ...anydressing_core.pixels import signed_of
from ..network_file import is_network, read_network

KIND = "recogniser"
"""What such a file calls itself."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each pixel's channels by themselves: no place depends on the rest of the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeatureStages(nn.Module):
    """Stages of two convolutions and ReLU, each at half the resolution of the one before, the first at half the picture's.

    From the second on every pixel's channels are normalised: in the first that would take more time than it saves.
    widths: channels of the stages. kernel: of the first convolution, in pixels.
    """

    def __init__(self, widths: Sequence[int], kernel: int = 3) -> None:
        super().__init__()
        self.widths, self.kernel = tuple(widths), kernel
        self.stages = nn.ModuleList(
            nn.Sequential(
                *_layer(before, after, kernel if place == 0 else 3, stride=2 if place == 0 else 1, normed=place > 0),
                *_layer(after, after, 3, stride=1, normed=place > 0),
            )
            for place, (before, after) in enumerate(pairwise((3, *widths)))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps of pictures (B, 3, H, W) in [0, 1], finest first."""
        x, maps = signed_of(image), list[Tensor]()
        for stage in self.stages:
            x = stage(functional.avg_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps


def _layer(inside: int, outside: int, size: int, *, stride: int, normed: bool) -> list[nn.Module]:
    norm = [ChannelNorm(outside)] if normed else []
    return [nn.Conv2d(inside, outside, size, stride, size // 2), *norm, nn.ReLU()]


def shape_of_stages(shape: dict[str, Any]) -> tuple[list[int], int]:
    """Widths and kernel from a file's description, which a stranger wrote."""
    return [int(width) for width in shape["widths"]][:8], int(shape["kernel"])


def is_feature_file(path: Path) -> bool:
    """Whether a safetensors file says that it is a recogniser."""
    return is_network(path, KIND)


def load_features(path: Path) -> tuple[FeatureStages, str]:
    """Read a recogniser's stages, frozen, in fp32; and the fingerprint of the whole file's tensors.

    Raises ValueError when the file is not one.
    """
    network, tensors = read_network(path, KIND, lambda shape: FeatureStages(*shape_of_stages(shape)), behind="heads.")
    return network, tensor_digest({f"network.{name}": tensor for name, tensor in tensors.items()})
