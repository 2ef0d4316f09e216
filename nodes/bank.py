# SPDX-License-Identifier: GPL-3.0-or-later
"""K' and V' of all garments of one Apply, kept where ComfyUI's memory manager loads and offloads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ..anydressing_core.dressing_attention import Columns, GarmentKV, garment_kv, project_garment
from ..anydressing_core.sites import AttentionSite, UNetShape
from .garment import Garment
from .unet import compute_dtype


@dataclass(frozen=True)
class BankLayout:
    """All that is not a tensor: tokens of each garment and spare columns, per site. Two equal layouts compute alike."""

    heads: int
    counts: dict[str, tuple[int, ...]]
    columns: dict[str, Columns]


class Bank(torch.nn.Module):
    """The garments' K' and V', one pair of parameters for each site.

    Parameters, so that a ModelPatcher can move them. Only the patcher and the patched MODEL own a bank: with the last
    clone of that MODEL it is gone.
    """

    def __init__(self, sites: dict[str, GarmentKV], heads: int) -> None:
        super().__init__()
        counts = {key: garments.counts for key, garments in sites.items()}
        self.layout = BankLayout(heads, counts, {key: garments.columns for key, garments in sites.items()})
        for key, garments in sites.items():
            self._store(f"{key}_key", garments.key)
            self._store(f"{key}_value", garments.value)
            if garments.null_bias is not None:
                self._store(f"{key}_null_bias", garments.null_bias)

    def _store(self, name: str, tensor: Tensor) -> None:
        self.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))

    def at(self, site: str, like: Tensor) -> GarmentKV:
        """The garments at one site, on the device and in the dtype of `like`."""
        columns = self.layout.columns[site]
        key, value = getattr(self, f"{site}_key").to(like), getattr(self, f"{site}_value").to(like)
        null_bias = getattr(self, f"{site}_null_bias").to(like.device) if columns.null else None
        return GarmentKV(key, value, self.layout.counts[site], self.layout.heads, columns, null_bias)


@torch.inference_mode()
def make_bank(model: Any, shape: UNetShape, garments: Sequence[Garment]) -> Any:
    """Project the garments once, lay them out for attention, and wrap them for ComfyUI: a ModelPatcher over a Bank."""
    device, dtype = model.load_device, compute_dtype(model)
    home = comfy.model_management.unet_offload_device()
    regions = any(garment.region is not None for garment in garments)
    sites: dict[str, GarmentKV] = {}
    for index, site in enumerate(shape.sites):
        pairs = [_project(garment, index, site, device, dtype) for garment in garments]
        laid_out = garment_kv(
            [key for key, _ in pairs],
            [value for _, value in pairs],
            shape.heads,
            weights=[garment.weight for garment in garments],
            null=_null_token(garments[0], site, device, dtype),
            regions=regions,
        )
        sites[site.key] = _move(laid_out, home)
    # Read at call time: ComfyUI rebinds CoreModelPatcher when dynamic VRAM is on.
    patcher_class = comfy.model_patcher.CoreModelPatcher
    return patcher_class(Bank(sites, shape.heads), load_device=device, offload_device=home)


def _project(garment: Garment, index: int, site: AttentionSite, device: Any, dtype: Any) -> tuple[Tensor, Tensor]:
    tokens = [part.to(device, dtype) for part in garment.tokens[index]]
    checkpoint = garment.anydressing.checkpoint
    if checkpoint is None:
        return tokens[0], tokens[1]
    to_k, to_v = (weight.to(device, dtype) for weight in (checkpoint.to_k(site.key), checkpoint.to_v(site.key)))
    return project_garment(tokens[0], to_k, to_v)


def _null_token(garment: Garment, site: AttentionSite, device: Any, dtype: Any) -> tuple[Tensor, Tensor] | None:
    checkpoint = garment.anydressing.checkpoint
    null = None if checkpoint is None else checkpoint.null(site.key)
    if null is None:
        return None
    return null[0].to(device, dtype), null[1].to(device, torch.float32)


def _move(garments: GarmentKV, home: Any) -> GarmentKV:
    null_bias = None if garments.null_bias is None else garments.null_bias.to(home)
    return GarmentKV(
        garments.key.to(home), garments.value.to(home), garments.counts, garments.heads, garments.columns, null_bias
    )
