# SPDX-License-Identifier: GPL-3.0-or-later
"""DISTS (Ding et al. 2020, arXiv 2004.07728): how far two pictures differ in structure and texture, for Eq. 12.

Per channel of each feature map, and of the picture itself, with c = 1e-6:

    texture    l = (2 mean_x mean_y + c) / (mean_x^2 + mean_y^2 + c)
    structure  s = (2 cov_xy + c) / (var_x + var_y + c)
    DISTS      sum of alpha (1 - l) + beta (1 - s), all alpha and beta together summing to 1

The feature network is the caller's: VGG16 for photographs, from a file that the user brings, or any other small
network for other worlds. Nothing is ever downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from ...anydressing_core.digests import tensor_digest
from ...anydressing_core.refusals import quote, refusal
from ...anydressing_core.safetensors_header import read_header
from ..places import looked_at
from .features import is_feature_file, load_features

STABILITY = 1e-6
"""c of both similarities; below fp16's smallest normal number, one reason why DISTS is always computed in fp32."""


_NEW_WEIGHTS = "take them from DISTS' own weights, or leave both out of the file."


class FeatureNetwork(Protocol):
    """Any network that looks at pictures (B, 3, H, W) in [0, 1] and returns feature maps (B, C_i, h_i, w_i).

    The maps leave out the picture itself, which `Dists` puts first, and their channels are always the same.
    """

    def __call__(self, image: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True)
class DistsWeights:
    """alpha and beta: (K,), not negative, one entry per channel: the picture's three, then those of every map."""

    alpha: Tensor
    beta: Tensor

    def __post_init__(self) -> None:
        if self.alpha.dim() != 1 or self.alpha.shape != self.beta.shape:
            shapes = f"{tuple(self.alpha.shape)} and {tuple(self.beta.shape)}"
            why = f"They have the shapes {shapes}."
            raise refusal("DISTS' alpha and beta", "are not two lists of one length", why, _NEW_WEIGHTS)
        both = torch.cat([self.alpha, self.beta]).float()
        if not bool(torch.isfinite(both).all()) or bool((both < 0).any()) or float(both.sum()) <= 0:
            why = "They weigh distances."
            raise refusal("DISTS' alpha and beta", "must be finite, not negative and not all zero", why, _NEW_WEIGHTS)


class Dists(nn.Module):
    """DISTS on a frozen feature network, in fp32 whatever runs around it."""

    alpha_beta: Tensor | None

    def __init__(
        self, network: FeatureNetwork, weights: DistsWeights | None = None, fingerprint: str | None = None
    ) -> None:
        """Take the network over: if it is a module, it is frozen, set to fp32 and to evaluation.

        weights: None gives every channel the same weight, in alpha and in beta. fingerprint: of the network's file;
        made from its tensors when left out.
        """
        super().__init__()
        self.network, self._fingerprint = network, fingerprint
        alpha_beta = None if weights is None else torch.stack([weights.alpha, weights.beta]).detach().float()
        self.register_buffer("alpha_beta", alpha_beta, persistent=False)
        self.requires_grad_(False).float().eval()

    @property
    def fingerprint(self) -> str:
        """What tells the network from any other: a run never goes on with another one."""
        return self._fingerprint or tensor_digest(self.state_dict())

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Return (B,), 0 for equal pictures. image, target: (B, 3, H, W) in [0, 1]; values beyond are not clamped."""
        with torch.autocast(image.device.type, enabled=False):
            image, target = image.float(), target.float()
            x_maps, y_maps = ([picture, *self.network(picture)] for picture in (image, target))
            distances = [_distances(x, y) for x, y in zip(x_maps, y_maps, strict=True)]
            distance = torch.cat(distances, dim=-1)  # -> (B, 2, K)
            return (distance * self._shares(distance)).sum(dim=(1, 2))

    def _shares(self, distance: Tensor) -> Tensor:
        """alpha and beta as (2, K), summing to 1."""
        weights = self.alpha_beta
        if weights is None:
            return torch.full_like(distance[0], 1 / distance[0].numel())
        if weights.shape != distance.shape[1:]:
            why = f"The picture and its feature maps have {distance.shape[2]} channels."
            problem = f"have {weights.shape[1]} entries"
            raise refusal("DISTS' alpha and beta", problem, why, _NEW_WEIGHTS)
        return weights / weights.sum()


class Vgg16Stages(nn.Module):
    """The five stages of VGG16 as DISTS uses them: ImageNet's normalisation first, L2 pooling for max pooling."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential) -> None:
        """features: torchvision's `vgg16().features`, with its weights; the layers are used, not copied."""
        super().__init__()
        stages: list[nn.Sequential] = [nn.Sequential()]
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                stages.append(nn.Sequential())
            else:
                stages[-1].append(layer)
        self.stages = nn.ModuleList(stages[:-1])  # nothing follows the last pooling
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of (B, 3, H, W) in [0, 1]."""
        maps: list[Tensor] = []
        x = (image - self.mean) / self.std
        for stage in self.stages:
            x = stage(l2_pool(x) if maps else x)
            maps.append(x)
        return maps


def l2_pool(x: Tensor) -> Tensor:
    """Halve (B, C, H, W): the root of the Hann-weighted mean of squares, 3 x 3, stride 2, zeros around."""
    hann = x.new_tensor([0.25, 0.5, 0.25])
    window = torch.outer(hann, hann).expand(x.shape[1], 1, 3, 3)
    # The 1e-12 keeps the root's slope finite where all is zero.
    return (functional.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def load_dists(path: str | os.PathLike[str] | None) -> Dists:
    """Read DISTS from the file of its feature network: VGG16, or a recogniser of the paper-doll world.

    Raises ValueError as `load_vgg16_dists` does.
    """
    if path is not None and Path(path).is_file() and is_feature_file(Path(path)):
        network, fingerprint = load_features(Path(path))
        return Dists(network, fingerprint=fingerprint)
    return load_vgg16_dists(path)


def load_vgg16_dists(path: str | os.PathLike[str] | None) -> Dists:
    """Read DISTS on VGG16 from a file: torchvision's convolutions, and optionally `alpha` and `beta`.

    The tensors are named as in `vgg16().features` or in `vgg16()` (then the classifier behind them is not read). Alpha
    and beta have 1475 entries, in any shape; without them every channel counts the same. Raises ValueError for a
    missing path or file and for missing, unknown or misshapen tensors, and says what to do.
    """
    if path is None:
        raise refusal("The file of VGG16's weights", "is not named", _WHY_VGG16, _MAKE_VGG16)
    name = quote(Path(path).name)
    if not Path(path).exists():
        raise refusal(repr(str(path)), "was not found", f"{looked_at(path)} {_WHY_VGG16}", _MAKE_VGG16)
    header = read_header(path)
    unread = [key for key in header.tensors if key.startswith(_BEHIND)]
    keys = {key.removeprefix("features."): key for key in header.tensors if key not in unread}
    with torch.device("meta"):
        features = _vgg16_features()
    expected = {key: tuple(tensor.shape) for key, tensor in features.state_dict().items()}
    shapes = {key: header.tensors[stored].shape for key, stored in keys.items()}
    _refuse_other_tensors(shapes, expected, name)
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors: dict[str, Tensor] = {key: file.get_tensor(stored).float() for key, stored in keys.items()}
    wrong = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise refusal(name, "cannot be used", f"Tensor {quote(wrong[0])} holds NaN or infinity.", _MAKE_VGG16)
    weights = DistsWeights(*(tensors.pop(key).flatten() for key in _ALPHA_BETA)) if "alpha" in tensors else None
    features.load_state_dict(tensors, assign=True)
    return Dists(Vgg16Stages(features), weights)


_ALPHA_BETA = ("alpha", "beta")
_VGG16_CHANNELS = 3 + 64 + 128 + 256 + 512 + 512
_BEHIND = ("classifier.", "pre_logits.", "head.")  # torchvision's and timm's names for what follows the convolutions
_WHY_VGG16 = "The perceptual loss (Eq. 12) compares pictures by VGG16, which this pack neither holds nor downloads."
_MAKE_VGG16 = (
    "name a .safetensors file with torchvision's VGG16 (ImageNet) weights as losses.feature_network, or set "
    "losses.texture = 0, which trains without the texture losses. Where torchvision may download, this makes the file:\n"
    '  python -c "import torchvision, safetensors.torch as s; '
    "s.save_file(torchvision.models.vgg16(weights='IMAGENET1K_V1').features.state_dict(), 'vgg16.safetensors')\""
)


def _vgg16_features() -> nn.Sequential:
    from torchvision.models import vgg16  # half a second to import, and only real data needs it

    features = vgg16(weights=None, init_weights=False).features
    assert isinstance(features, nn.Sequential)
    return features


def _refuse_other_tensors(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Refuse all but exactly VGG16's convolutions, with both or neither of alpha and beta."""
    missing = sorted(set(expected) - set(shapes))
    if any(key in shapes for key in _ALPHA_BETA):
        missing += [key for key in _ALPHA_BETA if key not in shapes]
    unknown = sorted(set(shapes) - set(expected) - set(_ALPHA_BETA))
    for keys, fault in ((missing, "is missing"), (unknown, "is not VGG16's")):
        if keys:
            why = f"Tensor {quote(keys[0])} {fault}" + (f", and {len(keys) - 1} more." if len(keys) > 1 else ".")
            raise refusal(name, "does not hold VGG16's convolutions", why, _MAKE_VGG16)
    for key, shape in shapes.items():
        fits = shape == expected[key] if key in expected else torch.Size(shape).numel() == _VGG16_CHANNELS
        if not fits:
            needed = expected.get(key, (_VGG16_CHANNELS,))
            why = f"Tensor {quote(key)} has the shape {shape}; VGG16 asks for {needed}."
            raise refusal(name, "does not hold VGG16's convolutions", why, _MAKE_VGG16)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """1 - l and 1 - s of every channel of two maps (B, C, h, w): (B, 2, C)."""
    x, y = x.flatten(2), y.flatten(2)
    x_mean, y_mean = x.mean(-1, keepdim=True), y.mean(-1, keepdim=True)
    x_centred, y_centred = x - x_mean, y - y_mean
    covariance = (x_centred * y_centred).mean(-1)
    variances = x_centred.square().mean(-1) + y_centred.square().mean(-1)
    x_mean, y_mean = x_mean[..., 0], y_mean[..., 0]  # -> (B, C)
    texture = (2 * x_mean * y_mean + STABILITY) / (x_mean.square() + y_mean.square() + STABILITY)
    structure = (2 * covariance + STABILITY) / (variances + STABILITY)
    return torch.stack([1 - texture, 1 - structure], dim=1)
