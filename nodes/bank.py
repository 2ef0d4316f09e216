# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and values of all garments of one Apply, kept where ComfyUI's memory manager loads and offloads them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ..anydressing_core.checkpoint import Checkpoint
from ..anydressing_core.garment_kv import Columns, GarmentKV, garment_kv, project_garment
from ..anydressing_core.noise_levels import nearest_level
from ..anydressing_core.reference_attention import reference_kv
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

    def garments(self, like: Tensor | None = None) -> GarmentKV:
        """The garments, on the device and in the dtype of `like`; where they rest without it."""
        layout, like = self.layout, self.key if like is None else like
        null_bias = self.null_bias.to(like.device) if layout.columns.null else None
        return GarmentKV(self.key.to(like), self.value.to(like), layout.counts, layout.heads, layout.columns, null_bias)


class Bank(torch.nn.Module):
    """The garments at every site."""

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

    def at_rest(self) -> dict[str, GarmentKV]:
        """The garments of every site, wherever they are."""
        return {key: site.garments() for key, site in self.sites.items()}  # pyright: ignore[reportCallIssue]


class Wardrobe(torch.nn.Module):
    """All that one Apply keeps of its garments: what the file makes of them, and how they read at each level of noise.

    trained: None without a file. levels: none where no garment was read for reference; sigmas: their noise.
    Only the patcher and the patched MODEL own a wardrobe: with the last clone of that MODEL it is gone.
    """

    def __init__(self, trained: Bank | None, levels: Sequence[Bank], sigmas: Sequence[float]) -> None:
        super().__init__()
        self.trained, self.levels, self.sigmas = trained, torch.nn.ModuleList(levels), tuple(sigmas)

    def level(self, sigma: float) -> Bank:
        """The garments as they read at the level that is nearest to a step's noise."""
        return self.levels[nearest_level(sigma, self.sigmas)]  # pyright: ignore[reportReturnType]

    @property
    def layout(self) -> list[list[SiteLayout]]:
        """Of the trained bank and of the first level; all levels are laid out alike."""
        return [bank.layout for bank in (self.trained, *self.levels[:1]) if isinstance(bank, Bank)]


@torch.inference_mode()
def make_wardrobe(model: Any, shape: UNetShape, garments: Sequence[Garment]) -> Any:
    """Lay the garments out for attention, once, and wrap them for ComfyUI: a ModelPatcher over a Wardrobe."""
    device, dtype = model.load_device, compute_dtype(model)
    home = comfy.model_management.unet_offload_device()

    def at_rest(sites: Iterator[tuple[str, GarmentKV]]) -> Bank:
        """Site by site, so that the device never holds more than one of them."""
        return Bank({key: _move(one, home) for key, one in sites})

    checkpoint = garments[0].anydressing.checkpoint
    trained = None if checkpoint is None else at_rest(_trained_sites(shape, garments, checkpoint, device, dtype))
    read = [garment for garment in garments if garment.levels]
    sigmas = [level.sigma for level in read[0].levels] if read else []
    levels = [at_rest(_level_sites(shape, read, index, device, dtype)) for index in range(len(sigmas))]
    return _in_comfyuis_care(Wardrobe(trained, levels, sigmas), device, home)


def _trained_sites(
    shape: UNetShape, garments: Sequence[Garment], checkpoint: Checkpoint, device: Any, dtype: Any
) -> Iterator[tuple[str, GarmentKV]]:
    """K' and V' (Eq. 6)."""
    regions = any(garment.region is not None for garment in garments)
    for index, site in enumerate(shape.sites):
        to_k, to_v = (weight.to(device, dtype) for weight in (checkpoint.to_k(site.key), checkpoint.to_v(site.key)))
        pairs = [project_garment(garment.tokens[index].to(device, dtype), to_k, to_v) for garment in garments]
        yield (
            site.key,
            garment_kv(
                [key for key, _ in pairs],
                [value for _, value in pairs],
                shape.heads,
                weights=[garment.weight for garment in garments],
                null=_null_token(checkpoint, site, device, dtype),
                biased=regions,
                maps=checkpoint.info.null_token,  # what tells where garments are worn rides in columns that are there anyway
            ),
        )


def _level_sites(
    shape: UNetShape, garments: Sequence[Garment], level: int, device: Any, dtype: Any
) -> Iterator[tuple[str, GarmentKV]]:
    """K_g and V_g at one level of noise."""
    for index, site in enumerate(garments[0].levels[level].sites):
        pairs = [[part.to(device, dtype) for part in garment.levels[level].tokens[index]] for garment in garments]
        yield site.key, reference_kv([key for key, _ in pairs], [value for _, value in pairs], shape.heads)


def _in_comfyuis_care(wardrobe: Wardrobe, device: torch.device, home: torch.device) -> Any:
    # Read at call time: ComfyUI rebinds CoreModelPatcher when dynamic VRAM is on.
    patcher_class = comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(wardrobe, load_device=device, offload_device=home)
    # How ComfyUI's MultiGPU node makes a copy for another card; without it that node refuses a dressed MODEL.
    patcher.cached_patcher_init = (_copy_in_comfyuis_care, (wardrobe, device, home))
    return patcher


def _copy_in_comfyuis_care(wardrobe: Wardrobe, device: torch.device, home: torch.device) -> Any:
    return _in_comfyuis_care(copy.deepcopy(wardrobe), device, home)


def _null_token(checkpoint: Checkpoint, site: AttentionSite, device: Any, dtype: Any) -> tuple[Tensor, Tensor] | None:
    null = checkpoint.null(site.key)
    return None if null is None else (null[0].to(device, dtype), null[1].to(device, torch.float32))


def _move(garments: GarmentKV, home: Any) -> GarmentKV:
    null_bias = None if garments.null_bias is None else garments.null_bias.to(home)
    return GarmentKV(
        garments.key.to(home), garments.value.to(home), garments.counts, garments.heads, garments.columns, null_bias
    )
