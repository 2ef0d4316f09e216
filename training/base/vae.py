# SPDX-License-Identifier: GPL-3.0-or-later
"""The base model's autoencoder, SD1.5's or a TAESD, and how its latents are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from safetensors import safe_open
from torch import nn

from ...anydressing_core.demo_checkpoint import LATENT_SCALE
from ...anydressing_core.refusals import quote
from .names import ldm_vae_name, old_attention_name, taesd_name
from .part import Module, Part, config_beside, matched, run_of_widths

Vae = AutoencoderKL | AutoencoderTiny


def plan_ldm_vae(vae: Part) -> Module:
    """Place every tensor of a checkpoint's autoencoder. Raises ValueError for one unlike SD1.5's and no TAESD."""
    if "taesd_decoder.1.weight" in vae.shapes:
        weights = {name: shape for name, shape in vae.shapes.items() if name not in _TAESD_SCALE}
        for name in set(vae.shapes) - set(weights):
            if math.prod(vae.shapes[name]) != 1:
                why = f"{quote(vae.prefix + name)} must be one number."
                raise vae.refuse("has an autoencoder whose latents cannot be scaled", why)
        part = Part(vae.name, vae.path, weights, vae.prefix)
        return matched(_tiny_vae(part, "taesd_encoder.0.weight"), part, taesd_name)
    return matched(*_kl_vae(vae, "encoder.down.{}.block.{}.conv2.weight"), ldm_vae_name)


def plan_folder_vae(vae: Part) -> Module:
    """Place every tensor of a diffusers folder's autoencoder. Raises ValueError as `plan_ldm_vae` does."""
    config = config_beside(vae)
    tiny = "encoder.layers.0.weight" in vae.shapes
    if tiny:
        module = matched(_tiny_vae(vae, "encoder.layers.0.weight"), vae, lambda name: name)
    else:
        # Folders saved by old diffusers, SD1.5's own among them, call the attention's layers otherwise.
        old = "encoder.mid_block.attentions.0.query.weight" in vae.shapes
        network, part = _kl_vae(vae, "encoder.down_blocks.{}.resnets.{}.conv2.weight")
        module = matched(network, part, old_attention_name if old else lambda name: name)
    scale = config.get("scaling_factor", 1.0 if tiny else LATENT_SCALE)
    shift = config.get("shift_factor") or 0.0
    _register_latent_scale(module.network, scale, shift, vae)
    return module


def _tiny_vae(vae: Part, first: str) -> AutoencoderTiny:
    width = vae.width(first)
    if not width:
        raise vae.refuse("has an autoencoder unlike SD1.5's", f"{quote(vae.prefix + first)} is missing or misshapen.")
    widths = (width,) * 4
    with torch.device("meta"):
        return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)


def _kl_vae(vae: Part, conv: str) -> tuple[AutoencoderKL, Part]:
    """Build the autoencoder that the shapes tell of; conv: the name of a level's and layer's second convolution."""
    levels = [run_of_widths(lambda layer, level=level: conv.format(level, layer), vae) for level in range(5)]
    widths = [level[-1] for level in levels if level]
    layers = {len(level) for level in levels if level}
    if len(widths) != 4 or len(layers) != 1 or any(width % 32 for width in widths):
        why = "SD1.5's has four resolutions with equally many layers, or it is a TAESD."
        raise vae.refuse("has an autoencoder unlike SD1.5's", why)
    config: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": widths,
        "layers_per_block": layers.pop(),
        "latent_channels": 4,
        "scaling_factor": LATENT_SCALE,
    }
    with torch.device("meta"):
        network = AutoencoderKL(**config)
    weights = {name: shape for name, shape in vae.shapes.items() if not name.startswith(("loss.", "model_ema."))}
    return network, Part(vae.name, vae.path, weights, vae.prefix)


_TAESD_SCALE = {"vae_scale": 1.0, "vae_shift": 0.0}  # what ComfyUI takes where a file does not say


def with_latent_scale(vae: Vae, part: Part) -> Vae:
    """Give a checkpoint's TAESD the scale and shift that ComfyUI gives its latents."""
    if isinstance(vae, AutoencoderTiny) and part.prefix:
        with safe_open(part.path, framework="pt") as file:
            # ComfyUI: encoded / vae_scale + vae_shift, then times 0.18215. Ours: (encoded - shift) * scale.
            present = set(file.keys())
            scale, shift = (
                file.get_tensor(part.prefix + name).item() if part.prefix + name in present else default
                for name, default in _TAESD_SCALE.items()
            )
        _register_latent_scale(vae, LATENT_SCALE / scale if scale else math.inf, -shift * scale, part)
    return vae


def narrowed(vae: Vae) -> Vae:
    """Take away a TAESD's last channels where they are zero throughout, and leave every other autoencoder as it is.

    The paper-doll world's has 16 to 64 channels, padded to the 64 that ComfyUI knows. It computes the same without them,
    four times as fast, and with its channels last in memory twice as fast again on a CPU.
    """
    if isinstance(vae, AutoencoderTiny):
        for half, colours in ((vae.encoder, 3), (vae.decoder, 4)):
            cuts = [(place, index, cut) for place, index, cut in _cuts(half.layers, colours) if cut is not None]
            if len(cuts) == sum(isinstance(module, nn.Conv2d) for module in half.modules()):
                for place, index, cut in cuts:
                    place[index] = cut
        vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return vae


def _cuts(layers: nn.Sequential, inside: int) -> Iterator[tuple[nn.Sequential, int, nn.Conv2d | None]]:
    """Where each convolution stands and what it can be cut down to; None where what is cut off is not zero.

    inside: channels that come in.
    """
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            outside = layer.out_channels if place == len(layers) - 1 else _used(layer)
            yield layers, place, _cut(layer, inside, outside)
            inside = outside
        elif isinstance(layer, AutoencoderTinyBlock):
            for index, conv in enumerate(layer.conv):
                if isinstance(conv, nn.Conv2d):
                    yield layer.conv, index, _cut(conv, inside, inside)


def _used(conv: nn.Conv2d) -> int:
    """How many outputs there are up to the last one that is not zero for every input."""
    busy = conv.weight.detach().flatten(1).abs().amax(dim=1)
    if conv.bias is not None:
        busy = busy + conv.bias.detach().abs()
    return int(busy.nonzero().max()) + 1 if bool(busy.any()) else conv.out_channels


def _cut(conv: nn.Conv2d, inside: int, outside: int) -> nn.Conv2d | None:
    """The convolution of the first channels, None where the others matter."""
    rest = conv.weight[outside:].abs().sum() + conv.weight[:outside, inside:].abs().sum()
    if conv.bias is not None:
        rest = rest + conv.bias[outside:].abs().sum()
    if bool(rest != 0):
        return None
    cut = nn.Conv2d(inside, outside, 3, conv.stride[0], 1, bias=conv.bias is not None, device="meta")
    weights = {"weight": conv.weight[:outside, :inside].detach().clone()}
    if conv.bias is not None:
        weights["bias"] = conv.bias[:outside].detach().clone()
    cut.load_state_dict(weights, assign=True)
    return cut.requires_grad_(False)


def _register_latent_scale(vae: Vae, scale: Any, shift: Any, part: Part) -> None:
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (scale, shift))
    if not numbers or scale <= 0:
        why = f"Its latents' scale is {quote(scale)} and their shift {quote(shift)}."
        raise part.refuse("has an autoencoder whose latents cannot be scaled", why)
    vae.register_to_config(scaling_factor=float(scale), shift_factor=float(shift))


def latent_scale_and_shift(vae: Vae) -> tuple[float, float]:
    """The numbers of (encoded - shift) * scale, which the U-Net is given."""
    return vae.config["scaling_factor"], vae.config["shift_factor"] or 0.0
