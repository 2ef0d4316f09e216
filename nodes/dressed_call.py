# SPDX-License-Identifier: GPL-3.0-or-later
"""The attention patches of one dressed U-Net call: at every site around whatever replaces its attention already.

A static attn1 replacement would crash SAG and neuter PAG.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..anydressing_core.canvas import region_on_grid
from ..anydressing_core.dressing_attention import attention_maps, garment_attention
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import UNetShape
from ..anydressing_core.worn_queries import WornStates
from .bank import Bank
from .conditions import KEY
from .kernels import attend_with, own_attention, takes_only_plain_heads
from .reference_call import ReferenceCall

RECORDER = "anydressing_recorder"

Replacement = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]

Span = tuple[int, int]
"""A run of neighbouring rows: the first and the one behind the last."""

NO_REGIONS = "remove the region from Garment Settings, or the node that tiles or merges tokens."


@dataclass(frozen=True)
class Worn:
    """What one call wears.

    who: tells recorders whose garments these are. rows: for each row of conditions whether it is dressed. active: which of
    who's garments take part. regions: for each condition their masks (N, h, w), None without any. trained, strength: what
    the file made of them, and lambda. reference: reference attention. states: where each run of conditional rows is known to
    wear something, by its first row and the one behind it; everything is computed of a run that is not there.
    """

    who: object
    shape: UNetShape
    rows: list[bool]
    active: list[int]
    regions: list[Tensor] | None
    trained: Bank | None
    strength: Tensor
    reference: ReferenceCall | None
    states: Mapping[Span, WornStates] = field(default_factory=dict[Span, WornStates])


class DressedCall:
    """x: what the U-Net is given, (B, 4, h, w)."""

    def __init__(self, worn: Worn, x: Tensor) -> None:
        self.worn, self.size = worn, x.shape
        self.shape, self.reference = worn.shape, worn.reference
        self._grids = {site.key: site.grid(x.shape[-2], x.shape[-1]) for site in worn.shape.sites}

    def transformer_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """A copy of the options in which every site is dressed, around whatever replaces its attention already."""
        options = options.copy()
        options["patches_replace"] = patches = options.get("patches_replace", {}).copy()
        patches["attn1"] = attn1 = patches.get("attn1", {}).copy()
        attn1.update(self._patches(attn1, self._dressed_site, [site.key for site in self.shape.sites]))
        if self.reference is not None and self.reference.word_keys is not None:
            patches["attn2"] = attn2 = patches.get("attn2", {}).copy()
            attn2.update(self._patches(attn2, self._watched_text, [self.reference.word_keys[0]]))
        return options

    def _patches(
        self, there: dict[Any, Replacement], make: Callable[[str, Replacement | None], Replacement], sites: list[str]
    ) -> dict[Any, Replacement]:
        return {
            (*site.ldm_block, 0): make(site.key, there.get((*site.ldm_block, 0), there.get(site.ldm_block)))
            for site in self.shape.sites
            if site.key in sites
        }

    def structure_name(self, layout: object, taken: dict[str, Any]) -> str:
        """A keyword whose *name* tells torch.compile this call's structure, of which `layout` is a part.

        ComfyUI's TorchCompileModel drops every guard on transformer_options, so a compiled U-Net would ignore garments
        or keep those of an earlier run. The names of keyword arguments are guarded; the U-Net ignores their values.
        """
        call = self.reference
        told = None if call is None else (call.biases is not None, call.word_keys is not None)
        structure = (self.worn.rows, self.worn.active, layout, told)
        count = sum(name.startswith(f"{KEY}_") for name in taken)
        return f"{KEY}_{count}_{zlib.crc32(repr(structure).encode()):08x}"

    def _dressed_site(self, key: str, previous: Replacement | None) -> Replacement:
        reference = None if self.reference is None or key not in self.reference.garments else self.reference

        def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
            spans = self._conditional(q)
            terms = [] if self.worn.trained is None else self._garment_terms(key, q, spans, extra)
            # All that needs q comes before `previous`: SEG's replacement writes into it.
            if reference is None or not spans:
                return _with_terms(self._own(previous, q, k, v, extra), terms)
            if previous is None and not takes_only_plain_heads(extra):
                return _with_terms(self._joint(reference, key, q, k, v, spans, extra), terms)
            grid, rows = self._place_tokens(key, q, extra), _row_by_row(k, q)
            parts = [reference.part(key, grid, q, rows, span, attend_with(extra, True)) for span in spans]
            if self.worn.trained is None:
                for part in parts:
                    self._tell(key, part.maps, extra)
            own = self._own(previous, q, k, v, extra)
            out = _by_rows(
                len(own), spans, lambda place: parts[place].beside(own[spans[place]]), lambda rest: own[rest]
            )
            return _with_terms(out, terms)

        return attend

    def _own(self, previous: Replacement | None, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        """What the picture's own tokens give, by whoever attends already."""
        return own_attention(q, k, v, self.shape.heads, extra) if previous is None else previous(q, k, v, extra)

    def _joint(
        self,
        reference: ReferenceCall,
        key: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        spans: list[slice],
        extra: dict[str, Any],
    ) -> Tensor:
        """One softmax over the picture's tokens and the garments' on the conditional rows, the plain one on the others."""
        grid = self._place_tokens(key, q, extra)
        k, v = _row_by_row(k, q), _row_by_row(v, q)

        def joint(place: int) -> Tensor:
            span = spans[place]
            state = self._state(key, q, span)
            attends = (attend_with(extra, True), attend_with(extra, False))
            out, maps = reference.joint(key, grid, q, k, v, span, attends, None if state is None else state.reference)
            if self.worn.trained is None:
                self._tell(key, maps, extra)
            return out

        return _by_rows(len(q), spans, joint, lambda rows: self._own(None, q[rows], k[rows], v[rows], extra))

    def _watched_text(self, key: str, previous: Replacement | None) -> Replacement:
        reference = self.reference
        assert reference is not None

        def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
            grid = self._grid_of(key, q, extra)
            if q.shape[0] == self.size[0] == k.shape[0] and grid is not None:
                reference.look(grid, q, k, self.shape.heads)
            return self._own(previous, q, k, v, extra)

        return attend

    def _conditional(self, q: Tensor) -> list[slice]:
        """The runs of conditional rows of q (B, L, C)."""
        if q.shape[0] % self.size[0]:
            return []  # a pack asks once more about some of the rows; which ones they are cannot be known
        batch = q.shape[0] // len(self.worn.rows)
        return [slice(first * batch, last * batch) for first, last, positive in runs_of(self.worn.rows) if positive]

    def _garment_terms(
        self, key: str, q: Tensor, spans: list[slice], extra: dict[str, Any]
    ) -> list[tuple[slice, Tensor]]:
        """What the file's attention adds at a site, for each run of conditional rows of q (B, L, C)."""
        assert self.worn.trained is not None
        if not spans:
            return []
        garments = self.worn.trained.at(key, q).select(self.worn.active)
        regions = self._regions_at_site(key, q, extra)
        terms: list[tuple[slice, Tensor]] = []
        for span in spans:
            masks = None if regions is None else regions[span]
            attend, state = attend_with(extra, garments.columns.widened), self._state(key, q, span)
            if state is None:
                term, _ = garment_attention(q[span], garments, regions=masks, attend=attend)
            else:
                term, _ = state.trained.term(key, q[span], garments, regions=masks, attend=attend)
            if RECORDER in extra:
                self._tell(key, attention_maps(q[span], garments, regions=masks, attend=attend), extra)
            terms.append((span, self.worn.strength * term))
        return terms

    def _state(self, key: str, q: Tensor, span: slice) -> WornStates | None:
        """What is known of where these rows wear something; nothing where tokens are tiled, merged or shrunk."""
        whole = q.shape[:2] == (self.size[0], math.prod(self._grids[key]))
        return self.worn.states.get((span.start, span.stop)) if whole else None

    def _tell(self, key: str, maps: Tensor, extra: dict[str, Any]) -> None:
        if RECORDER in extra:
            grid = self._grid_of(key, maps, extra)
            if grid is None:
                remedy = "give AnyDressing Attention Maps the MODEL without the node that tiles or merges tokens."
                raise _moved("model:", "so it cannot be mapped", maps, remedy)
            size = (self.size[-2], self.size[-1])
            extra[RECORDER](self.worn.who, self.worn.active, maps.unflatten(1, grid), size)

    def _regions_at_site(self, key: str, q: Tensor, extra: dict[str, Any]) -> Tensor | None:
        """The masks on this site's grid, one row for each row of q: (B, L, N)."""
        if self.worn.regions is None:
            return None
        grid = self._place_tokens(key, q, extra)
        assert grid is not None
        batch = q.shape[0] // len(self.worn.rows)
        per_row = [torch.stack([region_on_grid(mask, grid) for mask in masks], dim=-1) for masks in self.worn.regions]
        return torch.stack(per_row).repeat_interleave(batch, dim=0)

    def _place_tokens(self, key: str, q: Tensor, extra: dict[str, Any]) -> tuple[int, int] | None:
        """The grid of q (B, L, C), None without one. Raises ValueError where a region needs it; other places are left out."""
        grid = self._grid_of(key, q, extra)
        if grid is None and self.worn.regions is not None:
            raise _moved("region:", "so a region cannot be placed", q, NO_REGIONS)
        return grid

    def _grid_of(self, key: str, tokens: Tensor, extra: dict[str, Any]) -> tuple[int, int] | None:
        """Height and width of the grid in which tokens (B, L, any) of a site lie: its own, or that of a U-Net that something
        shrank (Kohya's Deep Shrink); None where they were moved, merged or cut into tiles.
        """
        shrunk = extra.get("activations_shape") or self.size
        grids = (self._grids[key], (shrunk[-2], shrunk[-1]))
        return next((grid for grid in grids if grid[0] * grid[1] == tokens.shape[1]), None)


def _moved(name: str, so: str, tokens: Tensor, remedy: str) -> ValueError:
    why = f"A layer was asked about {tokens.shape[1]} tokens, which is not the number that it has."
    return refusal(name, f"this MODEL rearranges its attention (HyperTile, ToMe), {so}", why, remedy)


def _row_by_row(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values as attention takes them: HyperTile cuts q alone into tiles, and the rest is cut as it lies."""
    return x if len(x) == len(q) else x.reshape(len(q), -1, x.shape[-1])


def _by_rows(
    count: int, spans: Sequence[slice], inside: Callable[[int], Tensor], outside: Callable[[slice], Tensor]
) -> Tensor:
    """Attention's output (B, L, C), put together. inside: of a span's number. outside: of the rows between the spans."""
    parts: list[Tensor] = []
    done = 0
    for place, span in enumerate(spans):
        if done < span.start:
            parts.append(outside(slice(done, span.start)))
        parts.append(inside(place))
        done = span.stop
    if done < count:
        parts.append(outside(slice(done, count)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _with_terms(out: Tensor, terms: Sequence[tuple[slice, Tensor]]) -> Tensor:
    """Attention's output (B, L, C) with the garments' terms on their rows; the others keep their bits."""
    spans = [span for span, _ in terms]
    return _by_rows(len(out), spans, lambda place: out[spans[place]] + terms[place][1], lambda rows: out[rows])


def runs_of(rows: list[bool]) -> list[tuple[int, int, bool]]:
    """Neighbouring rows of one kind, as (first, last + 1, kind)."""
    edges = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1]), len(rows)]
    return [(first, last, rows[first]) for first, last in pairwise(edges)]
