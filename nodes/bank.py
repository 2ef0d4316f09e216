# SPDX-License-Identifier: GPL-3.0-or-later
"""K' and V' of all garments of one Apply, kept where ComfyUI's memory manager loads and offloads them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ..anydressing_core.garment_kv import Columns, GarmentKV, garment_kv, project_garment
from ..anydressing_core.sites import AttentionSite, UNetShape
from .garment import Garment
from .unet import compute_dtype


@dataclass(frozen=True)
class SiteLayout:
    """All of one site that is not a tensor; equal layouts compute alike."""

    heads: int
    counts: tuple[int, ...]
    columns: Columns


class SiteBank(torch.nn.Module):
    """The garments' K' and V' at one site, as parameters, so that a ModelPatcher can move them."""

    def __init__(self, garments: GarmentKV) -> None:
        super().__init__()
        self.layout = SiteLayout(garments.heads, garments.counts, garments.columns)
        self.key = torch.nn.Parameter(garments.key, requires_grad=False)
        self.value = torch.nn.Parameter(garments.value, requires_grad=False)
        if garments.null_bias is not None:
            self.null_bias = torch.nn.Parameter(garments.null_bias, requires_grad=False)

    def garments(self, like: Tensor) -> GarmentKV:
        """The garments on the device and in the dtype of `like`."""
        layout = self.layout
        null_bias = self.null_bias.to(like.device) if layout.columns.null else None
        return GarmentKV(self.key.to(like), self.value.to(like), layout.counts, layout.heads, layout.columns, null_bias)


class Bank(torch.nn.Module):
    """The garments at every site.

    Only the patcher and the patched MODEL own a bank: with the last clone of that MODEL it is gone.
    """

    def __init__(self, sites: dict[str, GarmentKV]) -> None:
        super().__init__()
        self.sites = torch.nn.ModuleDict({key: SiteBank(garments) for key, garments in sites.items()})

    @property
    def layout(self) -> list[SiteLayout]:
        """Every site's layout, in the U-Net's order."""
        return [site.layout for site in self.sites.values()]  # pyright: ignore[reportReturnType]

    def at(self, site: str, like: Tensor) -> GarmentKV:
        """The garments at one site, on the device and in the dtype of `like`."""
        return self.sites[site].garments(like)  # pyright: ignore[reportCallIssue]


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
            biased=regions,
        )
        sites[site.key] = _move(laid_out, home)
    return _in_comfyuis_care(Bank(sites), device, home)


def _in_comfyuis_care(bank: Bank, device: torch.device, home: torch.device) -> Any:
    # Read at call time: ComfyUI rebinds CoreModelPatcher when dynamic VRAM is on.
    patcher_class = comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(bank, load_device=device, offload_device=home)
    # How ComfyUI's MultiGPU node makes a copy for another card; without it that node refuses a dressed MODEL.
    patcher.cached_patcher_init = (_copy_in_comfyuis_care, (bank, device, home))
    return patcher


def _copy_in_comfyuis_care(bank: Bank, device: torch.device, home: torch.device) -> Any:
    return _in_comfyuis_care(copy.deepcopy(bank), device, home)


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
