# SPDX-License-Identifier: GPL-3.0-or-later
"""What one sampling run remembers from step to step: where each garment belongs, and where any is worn.

It begins with the run and ends with it: an OUTER_SAMPLE wrapper lays it into the options that ComfyUI makes anew for each
run and throws away behind it, also after a cancel or an error. No node, MODEL or module keeps any of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from ..anydressing_core.places import Places
from ..anydressing_core.worn_queries import WornStates
from .conditions import CALL, KEY, Area, ConditionCall, publish

RUN = "anydressing_run"

Row = tuple[int, Any]
"""A condition of the run: its index among the guider's and its uuid."""


@dataclass
class SamplingRun:
    """batch: pictures of the run. whole: their latents' size. places: by who dresses and condition, for `batch` pictures.

    worn: where garments are worn, by who dresses, the conditions of neighbouring rows and which garments take part.
    """

    batch: int
    whole: Area
    places: defaultdict[tuple[object, Row], Places] = field(default_factory=lambda: defaultdict(Places))
    worn: dict[tuple[object, tuple[Row, ...], tuple[int, ...]], WornStates] = field(
        default_factory=dict[tuple[object, tuple[Row, ...], tuple[int, ...]], WornStates]
    )


def watch_run(model: Any) -> None:
    """Add the wrapper to a MODEL that is our own clone, once, however often it is dressed."""
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    if not model.get_wrappers(kind, KEY):
        model.add_wrapper_with_key(kind, KEY, begin_run)


def begin_run(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """OUTER_SAMPLE: a run begins, with nothing remembered."""
    guider = executor.class_obj
    run = SamplingRun(noise.shape[0], Area(noise.shape[-2], noise.shape[-1]))
    guider.model_options = publish(guider.model_options, RUN, run)  # the run's own; ComfyUI puts the former ones back
    return executor(noise, *args, **kwargs)


def run_of(options: dict[str, Any], x: Tensor, tiles: int) -> SamplingRun | None:
    """The run that a U-Net call belongs to; None where it shows other pieces than its conditions' whole areas.

    x: what the U-Net is given. Tiles and windows over a film are such pieces: what was seen in one says nothing of another.
    """
    run: SamplingRun | None = options.get(RUN)
    call: ConditionCall | None = options.get(CALL)
    if run is None or call is None or tiles > 1 or (call.batch, call.whole) != (run.batch, run.whole):
        return None
    areas = [call.areas.get(row, call.whole) for row in rows_of(options)]
    return run if all((area.height, area.width) == tuple(x.shape[-2:]) for area in areas) else None


def rows_of(options: dict[str, Any]) -> list[Row]:
    """Which condition each row of a U-Net call belongs to."""
    indices = options.get("cond_or_uncond", [0])
    return list(zip(indices, options.get("uuids", indices), strict=True))
