# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing-Attention on ComfyUI's MODEL, by an APPLY_MODEL wrapper on a clone.

For each U-Net call it builds attention patches around whatever already sits at each site, then calls on. A static attn1
replacement would crash SAG and neuter PAG. Together with `conditions`, which tells the rows that may see garments, this
is the only file that knows transformer_options.
"""

from __future__ import annotations

import logging
import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.patcher_extension
import torch
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.canvas import region_on_grid
from ..anydressing_core.dressing_attention import attention_maps, garment_attention
from ..anydressing_core.garment_kv import Attend
from ..anydressing_core.latents import CELL
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import UNetShape
from .bank import Bank
from .conditions import CALL, KEY, Area, ConditionCall, positive_rows, publish, tiles_of, watch_conditions
from .garment import Garment

RECORDER = "anydressing_recorder"

Recorder = Callable[["Dressing", str, list[int], Tensor], None]
"""Told at every dressed site: whose garments, the site's key, which of them take part, and A_k (B, h, w, N)."""

TAKE_ANY_HEADS = {f"attention_{kind}" for kind in ("pytorch", "basic", "sub_quad", "split", "xformers", "flash")}
"""ComfyUI's attention functions that were read and take heads of any width; sage and newer ones may not."""

Replacement = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GarmentTiming:
    """When one garment takes part, in fractions of the sampling."""

    start: float
    end: float


def dress_model(
    model: Any, shape: UNetShape, garments: Sequence[Garment], bank: Any, strength: float, start: float, end: float
) -> Any:
    """Return a clone of MODEL that wears the garments; `bank` is the ModelPatcher from `make_bank`."""
    dressed = model.clone()
    wrappers = comfy.patcher_extension.WrappersMP
    watch_conditions(dressed)
    dressing = Dressing(shape, garments, bank.model, strength, start, end)
    dressed.add_wrapper_with_key(wrappers.APPLY_MODEL, KEY, dressing)
    dressed.set_additional_models(KEY, [*dressed.get_additional_models_with_key(KEY), bank])
    return dressed


def record_maps(model: Any, recorder: Recorder) -> Any:
    """Return a clone of a dressed MODEL that tells `recorder` every A_k of its conditional rows."""

    def with_recorder(
        executor: Any, x: Tensor, timestep: Tensor, model_options: Any = None, seed: Any = None
    ) -> Tensor:
        return executor(x, timestep, publish(model_options or {}, RECORDER, recorder), seed)

    watched = model.clone()
    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, RECORDER, with_recorder)
    return watched


def dressings_of(model: Any) -> list[Dressing]:
    """What a MODEL wears: one entry for each AnyDressing Apply."""
    return model.get_wrappers(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY)


class Dressing:
    """APPLY_MODEL: dress the conditional rows of one U-Net call. Holds nothing that changes from call to call."""

    def __init__(
        self, shape: UNetShape, garments: Sequence[Garment], bank: Bank, strength: float, start: float, end: float
    ) -> None:
        self.shape, self.strength = shape, strength
        self._bank = weakref.ref(bank)  # packs keep transformer_options, and us in it, beyond the MODEL's end
        self.timing = GarmentTiming(start, end)
        self.timings = [GarmentTiming(garment.start, garment.end) for garment in garments]
        self.regions = [garment.region for garment in garments]
        self.slots = [garment.slot for garment in garments]

    @property
    def bank(self) -> Bank:
        """The garments, which the MODEL owns. Raises ValueError when it came here without them."""
        bank = self._bank()
        if bank is None:
            raise refusal(
                "model:",
                "its garments are gone",
                "A node has copied the MODEL's patches without the models that belong to them.",
                "connect AnyDressing Apply after the node that does so.",
            )
        return bank

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        options = transformer_options or {}
        rows = positive_rows(options)
        active = self._active_garments(executor.class_obj.model_sampling, options)
        if any(rows) and active:
            regions = self._regions_per_row(options, active, x)
            dressed = _DressedCall(self, rows * tiles_of(options, rows, x), active, regions, x)
            options = dressed.transformer_options(options)
            if _is_compiled(options):
                kwargs[dressed.structure_name(kwargs)] = True
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _active_garments(self, sampling: Any, options: dict[str, Any]) -> list[int]:
        """The garments whose time has come and not passed; the sampling's own schedule translates fractions."""
        sigmas = options.get("sigmas")
        if sigmas is None:
            return list(range(len(self.timings)))
        sigma = float(sigmas[0])
        if not _in_time(self.timing, sampling, sigma):
            return []
        return [index for index, timing in enumerate(self.timings) if _in_time(timing, sampling, sigma)]

    def _regions_per_row(self, options: dict[str, Any], active: list[int], x: Tensor) -> list[Tensor] | None:
        """For each condition of this call the active garments' masks over its part of the picture: (N, h, w)."""
        if all(region is None for region in self.regions):
            return None
        rows = options.get("cond_or_uncond", [0])
        call: ConditionCall | None = options.get(CALL)
        whole = Area(*x.shape[-2:]) if call is None else call.whole
        for index in active:
            _doubt_region(self.regions[index], whole)
        masks = torch.stack([_latent_mask(self.regions[index], whole) for index in active])
        areas = {} if call is None else call.areas
        places = [areas.get(row, whole) for row in zip(rows, options.get("uuids", rows), strict=True)]
        if any((place.height, place.width) != tuple(x.shape[-2:]) for place in places):
            raise refusal(
                "region:",
                "this MODEL is sampled in tiles, so a region cannot be placed",
                f"A piece of {x.shape[-1]} x {x.shape[-2]} came, of a latent of {whole.width} x {whole.height}.",
                "remove the region from Garment Settings, or the node that tiles the sampling.",
            )
        return [
            masks[:, place.top : place.top + place.height, place.left : place.left + place.width].to(x.device)
            for place in places
        ]


class _DressedCall:
    """One U-Net call's attention patches."""

    def __init__(
        self, dressing: Dressing, rows: list[bool], active: list[int], regions: list[Tensor] | None, x: Tensor
    ) -> None:
        self.dressing, self.shape, self.size = dressing, dressing.shape, x.shape
        self.rows, self.active, self.regions = rows, active, regions
        # A tensor, because torch.compile bakes Python numbers into the graph.
        self.strength = torch.tensor(dressing.strength, device=x.device)

    def transformer_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """A copy of the options in which every site is dressed, around whatever replaces its attention already."""
        options = options.copy()
        options["patches_replace"] = patches = options.get("patches_replace", {}).copy()
        patches["attn1"] = attn1 = patches.get("attn1", {}).copy()
        dressed = {
            (*site.ldm_block, 0): self._dressed_site(
                site.key, attn1.get((*site.ldm_block, 0), attn1.get(site.ldm_block))
            )
            for site in self.shape.sites
        }
        attn1.update(dressed)
        return options

    def structure_name(self, taken: dict[str, Any]) -> str:
        """A keyword whose *name* tells torch.compile this call's structure.

        ComfyUI's TorchCompileModel drops every guard on transformer_options, so a compiled U-Net would ignore garments
        or keep those of an earlier run. The names of keyword arguments are guarded; the U-Net ignores their values.
        """
        structure = (self.rows, self.active, self.dressing.bank.layout)
        count = sum(name.startswith(f"{KEY}_") for name in taken)
        return f"{KEY}_{count}_{zlib.crc32(repr(structure).encode()):08x}"

    def _dressed_site(self, key: str, previous: Replacement | None) -> Replacement:
        def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
            terms = self._garment_terms(key, q, extra)  # first: SEG's replacement writes into q
            if previous is None:
                precision = extra.get("attn_precision")
                out = host_attention.optimized_attention(
                    q, k, v, self.shape.heads, attn_precision=precision, transformer_options=extra
                )
            else:
                out = previous(q, k, v, extra)
            return _with_terms(out, terms)

        return attend

    def _garment_terms(self, key: str, q: Tensor, extra: dict[str, Any]) -> list[tuple[slice, Tensor]]:
        """What the garments add at a site, for each run of conditional rows of q (B, L, C)."""
        if q.shape[0] % self.size[0]:
            return []  # a pack asks once more about some of the rows; which ones they are cannot be known
        garments = self.dressing.bank.at(key, q).select(self.active)
        regions = self._regions_at_site(key, q)
        batch = q.shape[0] // len(self.rows)
        terms: list[tuple[slice, Tensor]] = []
        for first, last, positive in _runs(self.rows):
            if not positive:
                continue
            span = slice(first * batch, last * batch)
            masks = None if regions is None else regions[span]
            attend = _attend(extra, garments.columns.widened)
            term, _ = garment_attention(q[span], garments, regions=masks, attend=attend)
            if RECORDER in extra:
                maps = attention_maps(q[span], garments, regions=masks, attend=attend)
                extra[RECORDER](self.dressing, key, self.active, self._as_picture(key, maps))
            terms.append((span, self.strength * term))
        return terms

    def _regions_at_site(self, key: str, q: Tensor) -> Tensor | None:
        """The masks on this site's grid, one row for each row of q: (B, L, N)."""
        if self.regions is None:
            return None
        remedy = "remove the region from Garment Settings, or the node that tiles or merges tokens."
        grid = self._grid(key, q.shape[1], "region:", "so a region cannot be placed", remedy)
        batch = q.shape[0] // len(self.rows)
        per_row = [torch.stack([region_on_grid(mask, grid) for mask in masks], dim=-1) for masks in self.regions]
        return torch.stack(per_row).repeat_interleave(batch, dim=0)

    def _as_picture(self, key: str, maps: Tensor) -> Tensor:
        """Maps (B, L, N) on their site's grid: (B, h, w, N)."""
        remedy = "give AnyDressing Attention Maps the MODEL without the node that tiles or merges tokens."
        return maps.unflatten(1, self._grid(key, maps.shape[1], "model:", "so it cannot be mapped", remedy))

    def _grid(self, key: str, tokens: int, name: str, so: str, remedy: str) -> tuple[int, int]:
        """A site's height and width in tokens. Raises ValueError where tokens were moved, merged or cut into tiles."""
        site = next(site for site in self.shape.sites if site.key == key)
        height, width = site.grid(self.size[-2], self.size[-1])
        if tokens != height * width:
            why = f"A layer of {height} x {width} tokens was asked about {tokens}."
            raise refusal(name, f"this MODEL rearranges its attention (HyperTile, ToMe), {so}", why, remedy)
        return height, width


def _with_terms(out: Tensor, terms: Sequence[tuple[slice, Tensor]]) -> Tensor:
    """Attention's output (B, L, C) with the garments' terms on their rows; the other rows keep their bits."""
    parts: list[Tensor] = []
    done = 0
    for span, term in terms:
        parts += [out[done : span.start], out[span] + term]
        done = span.stop
    parts = [part for part in (*parts, out[done:]) if len(part)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(extra: dict[str, Any], widened: bool) -> Attend:
    """The user's attention for heads of the model's own width; PyTorch's for widened heads wherever something else may
    limit the head size or quantise away the bias columns."""

    def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        precision = extra.get("attn_precision")
        if widened and _only_plain_heads(extra):
            return host_attention.attention_pytorch(query, key, value, heads, attn_precision=precision)
        return host_attention.optimized_attention(
            query, key, value, heads, attn_precision=precision, transformer_options=extra
        )

    return attend


def _only_plain_heads(extra: dict[str, Any]) -> bool:
    if "optimized_attention_override" in extra:
        say_once("an attention override")
        return True
    name = host_attention.optimized_attention.__name__
    if name in TAKE_ANY_HEADS:
        return False
    say_once("SageAttention" if name.startswith("attention_sage") else f"an attention that we do not know ({name})")
    return True


@cache
def warn_once(text: str) -> None:
    """Warn, also while a pack keeps the log silent: Ultimate SD Upscale does so for the whole of its sampling."""
    logger.handle(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, "AnyDressing: %s", (text,), None))


@cache
def say_once(what: str) -> None:
    logger.info("AnyDressing: %s is active; garments with a null token or regions use PyTorch attention.", what)


def _in_time(timing: GarmentTiming, sampling: Any, sigma: float) -> bool:
    return sampling.percent_to_sigma(timing.end) <= sigma <= sampling.percent_to_sigma(timing.start)


def _is_compiled(options: dict[str, Any]) -> bool:
    return "torch.compile" in options.get("wrappers", {}).get("apply_model", {})


def _doubt_region(region: Tensor | None, whole: Area) -> None:
    """Say so when a region has another shape than what is sampled: then that is a tile or a crop, as like as not."""
    if region is None:
        return
    height, width = region.shape
    if abs(width * whole.height - height * whole.width) > max(height, width):  # a cell of rounding
        warn_once(
            f"a region drawn at {width} x {height} is stretched over {whole.width * CELL} x {whole.height * CELL}, which has "
            "another shape. Upscalers and detailers that sample a tile or a crop at a time stretch it over each of them: "
            "dress without regions there."
        )


def _latent_mask(region: Tensor | None, whole: Area) -> Tensor:
    """One garment's region over the whole latent, (h, w); a garment without one may go everywhere."""
    if region is None:
        return torch.ones(whole.height, whole.width)
    return functional.adaptive_avg_pool2d(region[None, None], (whole.height, whole.width))[0, 0]


def _runs(rows: list[bool]) -> list[tuple[int, int, bool]]:
    """Neighbouring rows of one kind, as (first, last + 1, kind)."""
    edges = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1]), len(rows)]
    return [(first, last, rows[first]) for first, last in pairwise(edges)]
