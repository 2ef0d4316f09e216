# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing-Attention and reference attention on ComfyUI's MODEL, by an APPLY_MODEL wrapper on a clone.

For each U-Net call it makes ready what the step wears, lets `dressed_call` build the patches, and calls on. Together with
these, `conditions`, which tells the rows that may see garments, and `sampling_run`, this alone knows transformer_options.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ..anydressing_core.reference_attention import fair_weight
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import UNetShape
from ..anydressing_core.worn_queries import WornStates
from .bank import Wardrobe
from .conditions import KEY, positive_rows, publish, tiles_of, watch_conditions
from .dressed_call import RECORDER, DressedCall, Span, Worn, runs_of
from .garment import Garment
from .kernels import warn_once
from .reference_call import ReferenceCall, biases, learn, word_keys
from .regions import regions_of_conditions
from .sampling_run import SamplingRun, rows_of, run_of, watch_run
from .unet import dtype_of

Recorder = Callable[["Dressing", list[int], Tensor, tuple[int, int]], None]
"""Told at every dressed site: whose garments, which of them take part, A_k (B, h, w, N), and h, w of the latent."""


@dataclass(frozen=True)
class GarmentTiming:
    """When one garment takes part, in fractions of the sampling."""

    start: float
    end: float


@dataclass(frozen=True)
class Strengths:
    """trained: lambda of Eq. 6. reference: what every garment's weight in reference attention is multiplied by."""

    trained: float
    reference: float


def dress_model(
    model: Any,
    shape: UNetShape,
    garments: Sequence[Garment],
    wardrobe: Any,
    strengths: Strengths,
    timing: GarmentTiming,
    only_where_worn: bool = False,
) -> Any:
    """Return a clone of MODEL that wears the garments; `wardrobe` is the ModelPatcher from `make_wardrobe`.

    only_where_worn: compute garments where they are worn, as `WornStates.usual` has it; else everywhere, in every step.
    """
    dressed = model.clone()
    watch_conditions(dressed)
    watch_run(dressed)
    dressing = Dressing(
        shape, garments, wardrobe.model, strengths, timing, WornStates.usual if only_where_worn else None
    )
    dressed.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, dressing)
    dressed.set_additional_models(KEY, [*dressed.get_additional_models_with_key(KEY), wardrobe])
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
        self,
        shape: UNetShape,
        garments: Sequence[Garment],
        wardrobe: Wardrobe,
        strengths: Strengths,
        timing: GarmentTiming,
        new_states: Callable[[], WornStates] | None,
    ) -> None:
        self.shape, self.strengths, self.timing, self.new_states = shape, strengths, timing, new_states
        self._wardrobe = weakref.ref(wardrobe)  # packs keep transformer_options, and us in it, beyond the MODEL's end
        self.timings = [GarmentTiming(garment.start, garment.end) for garment in garments]
        self.regions = [garment.region for garment in garments]
        self.slots = [garment.slot for garment in garments]
        self.weights = [garment.weight for garment in garments]
        self.read = [index for index, garment in enumerate(garments) if garment.levels]
        self.canvases = {index: garments[index].levels[0].canvas for index in self.read}
        words = {index: words for index in self.read if (words := garments[index].words) is not None}
        self.worded, self.words = [*words], torch.stack([*words.values()])[None] if words else None

    @property
    def wardrobe(self) -> Wardrobe:
        """The garments, which the MODEL owns. Raises ValueError when it came here without them."""
        wardrobe = self._wardrobe()
        if wardrobe is None:
            raise refusal(
                "model:",
                "its garments are gone",
                "A node has copied the MODEL's patches without the models that belong to them.",
                "connect AnyDressing Apply after the node that does so.",
            )
        return wardrobe

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
        if not any(rows) or not active:
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        tiles = tiles_of(options, rows, x)
        regions = regions_of_conditions(options, self.regions, x)
        regions = None if regions is None else [masks[active] for masks in regions]
        run = run_of(options, x, tiles)
        if run is None and self.worded:
            warn_once(
                "this MODEL is sampled in tiles or windows, so garments are not kept to the places of their words."
            )
        reference = self._reference(executor.class_obj, options, run, active, regions, x)
        # A tensor, because torch.compile bakes Python numbers into the graph.
        strength = torch.tensor(self.strengths.trained, device=x.device)
        trained = self.wardrobe.trained
        size = (x.shape[-2], x.shape[-1])
        states = {} if _is_compiled(options) else self._states(run, options, rows, active, x)
        worn = Worn(self, self.shape, rows * tiles, active, regions, trained, strength, reference, states)
        dressed = DressedCall(worn, x)
        options = dressed.transformer_options(options)
        if _is_compiled(options):
            kwargs[dressed.structure_name(self.wardrobe.layout, kwargs)] = True
        out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        if reference is not None and run is not None:
            conditional = [row if seen else None for row, seen in zip(rows_of(options), rows, strict=True)]
            learn(run, self, conditional, reference, size)
        return out

    def _states(
        self, run: SamplingRun | None, options: dict[str, Any], rows: list[bool], active: list[int], x: Tensor
    ) -> dict[Span, WornStates]:
        """What the run knows of where garments are worn, for each run of conditional rows of x, ready for a step."""
        if run is None or self.new_states is None:
            return {}
        told, batch = rows_of(options), x.shape[0] // len(rows)
        states: dict[Span, WornStates] = {}
        for first, last, positive in runs_of(rows):
            if positive:
                who = (self, tuple(told[first:last]), tuple(active))
                if who not in run.worn:
                    run.worn[who] = self.new_states()
                states[first * batch, last * batch] = run.worn[who]
                for state in run.worn[who]:
                    state.begin(self.shape.sites, (x.shape[-2], x.shape[-1]))
        return states

    def _active_garments(self, sampling: Any, options: dict[str, Any]) -> list[int]:
        """The garments whose time has come and not passed; the sampling's own schedule translates fractions."""
        sigmas = options.get("sigmas")
        if sigmas is None:
            return list(range(len(self.timings)))
        sigma = float(sigmas[0])
        if not _in_time(self.timing, sampling, sigma):
            return []
        return [index for index, timing in enumerate(self.timings) if _in_time(timing, sampling, sigma)]

    def _reference(
        self,
        model: Any,
        options: dict[str, Any],
        run: SamplingRun | None,
        active: list[int],
        regions: list[Tensor] | None,
        x: Tensor,
    ) -> ReferenceCall | None:
        """Reference attention of one call, made ready; None where no garment was read for it."""
        worn = [index for index in active if index in self.read]
        if not worn:
            return None
        sigmas = options.get("sigmas")
        level = self.wardrobe.level(1.0 if sigmas is None else float(sigmas[0]))
        chosen = [self.read.index(index) for index in worn]
        garments = {key: one.select(chosen) for key, one in level.at_rest().items()}
        size, strength = (x.shape[-2], x.shape[-1]), self.strengths.reference
        fair = [fair_weight(self.weights[index] * strength, self.canvases[index], size) for index in worn]
        weights = torch.tensor(fair, device=x.device)
        fields = [
            self._field(run, row, worn, None if regions is None else regions[place][[active.index(i) for i in worn]])
            for place, row in enumerate(rows_of(options))
        ]
        batch = x.shape[0] // len(fields)
        joined = [site for site in self.shape.sites if site.key in garments]
        ready = biases(joined, fields, weights, batch, size)
        keys = None
        if run is not None and self.words is not None:
            words = self.words.to(x.device, dtype_of(model))
            keys = word_keys(model.diffusion_model, self.shape, size, words)
        return ReferenceCall(garments, weights, ready, keys)

    def _field(
        self, run: SamplingRun | None, row: tuple[int, Any], worn: list[int], regions: Tensor | None
    ) -> Tensor | None:
        """Where the garments belong over what a condition shows, (B or 1, N, h, w); None for everywhere.

        A region says it; words say it among the garments without one. regions: of the garments that are worn, (N, h, w).
        """
        told = [place for place, index in enumerate(worn) if index in self.worded and self.regions[index] is None]
        known = None if run is None else run.places.get((self, row))
        places = None
        if known is not None and told:
            places = known.among([self.worded.index(worn[place]) for place in told])
        if places is None:
            return None if regions is None else regions[None]
        field = places.new_ones(places.shape[0], len(worn), *places.shape[-2:])
        if regions is not None:
            field = field * regions
        field[:, told] = places
        return field


def _in_time(timing: GarmentTiming, sampling: Any, sigma: float) -> bool:
    return sampling.percent_to_sigma(timing.end) <= sigma <= sampling.percent_to_sigma(timing.start)


def _is_compiled(options: dict[str, Any]) -> bool:
    return "torch.compile" in options.get("wrappers", {}).get("apply_model", {})
