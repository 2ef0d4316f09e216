# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the paper-doll world's base model as the one file that ComfyUI's demo node and the trainer open.

`training.base.model.load_base` is the way back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ....anydressing_core.atomic_write import write_atomically
from ....anydressing_core.demo_checkpoint import LATENT_SCALE, UNET_PREFIX, VAE_PREFIX, DemoInfo, read_demo_checkpoint
from ....anydressing_core.refusals import quote, refusal
from ....anydressing_core.sites import UNetShape
from ...base.names import ldm_unet_tensors, taesd_name

LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class TinyVae:
    """An autoencoder with TAESD's layers, at most 64 wide, and the mean and deviation of its latents, one number each."""

    encoder: nn.Module
    decoder: nn.Module
    mean: float
    deviation: float


def write_base(
    path: str | os.PathLike[str],
    *,
    unet: UNet2DConditionModel,
    vae: TinyVae,
    word_table_seed: int,
    title: str,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the base model, float16; a crash leaves the old file or the whole new one.

    unet: trained on z = (encoder(image) - mean) / deviation with the text of `word_table(word_table_seed)`. The decoder
    begins with TAESD's clamp, which is why mean and deviation are one number each: they go into `vae_scale` and
    `vae_shift`, before the clamp, exactly.
    facts: what else the file tells, steps and data set among them.

    Raises ValueError for networks of another layout and for values that float16 cannot hold, OSError when the disk
    refuses.
    """
    info = DemoInfo(UNetShape.from_diffusers(unet.config), word_table_seed, title, LICENCE, facts or {})
    padded = {VAE_PREFIX + name: tensor for name, tensor in pad_to_taesd(vae.encoder, vae.decoder).items()}
    # ComfyUI: encoded / vae_scale + vae_shift, then times 0.18215.
    scale = {
        VAE_PREFIX + "vae_scale": torch.tensor(LATENT_SCALE * vae.deviation),
        VAE_PREFIX + "vae_shift": torch.tensor(-vae.mean / (LATENT_SCALE * vae.deviation)),
    }
    _write(path, info, {**_halves({**_unet_tensors(unet), **padded}), **scale})


def _unet_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    return {UNET_PREFIX + name: tensor for name, tensor in ldm_unet_tensors(unet).items()}


def _halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}


def _write(path: str | os.PathLike[str], info: DemoInfo, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            why = f"{quote(name)} has values that float16 cannot hold."
            raise refusal("This base model", "cannot be written", why, "train again; something has diverged.")
    write_atomically(path, safetensors.torch.save(dict(tensors), info.to_metadata()))


def with_other_unet(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    unet: UNet2DConditionModel,
    *,
    title: str,
    facts: Mapping[str, str],
) -> None:
    """Write a base model anew with another U-Net of the same shape; autoencoder and word table stay to the bit."""
    info, tensors = read_demo_checkpoint(path)
    assert UNetShape.from_diffusers(unet.config) == info.unet
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNET_PREFIX)}
    _write(out, replace(info, title=title, facts=facts), {**_halves(_unet_tensors(unet)), **others})


def pad_to_taesd(encoder: nn.Module, decoder: nn.Module) -> dict[str, Tensor]:
    """Widen networks with TAESD's layers to its 64 channels, under the names by which ComfyUI knows a TAESD.

    The channels that are added are zero and stay zero through every layer, so that the result computes the same.
    Raises ValueError for networks of another layout.
    """
    with torch.device("meta"):
        shapes = {taesd_name(name): tensor.shape for name, tensor in AutoencoderTiny().state_dict().items()}
    networks = (("taesd_encoder", encoder), ("taesd_decoder", decoder))
    narrow = {f"{kind}.{name}": tensor for kind, network in networks for name, tensor in network.state_dict().items()}
    misfits = [name for name in {**shapes, **narrow} if not _fits(narrow.get(name), shapes.get(name))]
    if misfits:
        why = f"{quote(misfits[0])} is missing, too many or wider than TAESD's."
        raise refusal("This autoencoder", "does not have TAESD's layers", why, "build it as TAESD is built.")
    return {name: _padded(narrow[name], shape) for name, shape in shapes.items()}


def _fits(narrow: Tensor | None, wide: torch.Size | None) -> bool:
    if narrow is None or wide is None or narrow.ndim != len(wide):
        return False
    return all(few <= many for few, many in zip(narrow.shape, wide, strict=True))


def _padded(tensor: Tensor, shape: torch.Size) -> Tensor:
    wide = tensor.new_zeros(shape)
    wide[tuple(slice(length) for length in tensor.shape)] = tensor
    return wide
