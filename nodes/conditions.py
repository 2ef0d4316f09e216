# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rows of a U-Net call are conditional, and where in the picture they lie: only they see garments (Eq. 16).

`cond_or_uncond == 0` does not mean positive (SAG's second pass, DualCFG), and uuids repeat under area prompts: only the
identity of the condition lists tells. Two wrappers find it out:

    PREDICT_NOISE     publishes which lists of conditions are the positive ones
    CALC_COND_BATCH   turns that into "which indices of this call", and notes each area prompt's place
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.patcher_extension
from torch import Tensor

from ..anydressing_core.refusals import refusal

KEY = "anydressing"
POSITIVE_LISTS = "anydressing_positive_lists"
CALL = "anydressing_call"


class Area(NamedTuple):
    """A rectangle in latent pixels."""

    height: int
    width: int
    top: int = 0
    left: int = 0


@dataclass(frozen=True)
class ConditionCall:
    """One call of CALC_COND_BATCH: which condition indices are positive, and where area prompts sit.

    areas: (index, uuid) -> the area of that prompt. whole: the latent. batch: pictures in the latent.
    """

    positive: frozenset[int]
    areas: dict[tuple[int, Any], Area]
    whole: Area
    batch: int


def watch_conditions(model: Any) -> None:
    """Add the two wrappers to a MODEL that is our own clone, once, however often it is dressed."""
    wrappers = comfy.patcher_extension.WrappersMP
    if not model.get_wrappers(wrappers.PREDICT_NOISE, KEY):
        model.add_wrapper_with_key(wrappers.PREDICT_NOISE, KEY, publish_positive_lists)
        model.add_wrapper_with_key(wrappers.CALC_COND_BATCH, KEY, publish_condition_call)


def publish_positive_lists(
    executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: Any = None
) -> Tensor:
    """PREDICT_NOISE: note the running guider's positive condition lists. A "middle" one (DualCFG) is conditional."""
    conds = getattr(executor.class_obj, "conds", {})
    positive = [c for name, c in conds.items() if c is not None and not name.startswith(("neg", "empty_neg"))]
    options = publish(model_options or {}, POSITIVE_LISTS, positive)
    return executor(x, timestep, _with_ours_innermost(options), seed)


def _with_ours_innermost(model_options: dict[str, Any]) -> dict[str, Any]:
    """Let `publish_condition_call` see the calls that reach the U-Net, not the film that another wrapper cuts up.

    AnimateDiff-Evolved's context windows are such a wrapper; which of the two is outside is else a matter of who came
    first to the MODEL.
    """
    options = model_options["transformer_options"]  # `publish` has made this dictionary
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    others = {key: wrappers for key, wrappers in options.get("wrappers", {}).get(kind, {}).items() if key != KEY}
    ours = options.get("wrappers", {}).get(kind, {}).get(KEY)
    if ours is not None:
        options["wrappers"] = {**options["wrappers"], kind: {**others, KEY: ours}}
    return model_options


def publish_condition_call(
    executor: Any, model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    """CALC_COND_BATCH: note which of these condition lists are positive, and the areas of their prompts."""
    lists = model_options.get("transformer_options", {}).get(POSITIVE_LISTS)
    if lists is not None:
        positive = frozenset(
            index for index, cond in enumerate(conds) if cond is not None and any(_same(cond, p) for p in lists)
        )
        whole = Area(x.shape[-2], x.shape[-1])
        areas = {
            (index, entry.get("uuid")): _clipped_area(entry["area"], whole)
            for index, cond in enumerate(conds)
            for entry in cond or ()
            if entry.get("area") is not None
        }
        call = ConditionCall(positive, areas, whole, x.shape[0])
        model_options = publish(model_options, CALL, call)
    return executor(model, conds, x, timestep, model_options)


def positive_rows(options: dict[str, Any]) -> list[bool]:
    """For each condition of a U-Net call whether it is positive."""
    call: ConditionCall | None = options.get(CALL)
    positive = {0} if call is None else call.positive  # without a guider of ComfyUI's kind, the first one is positive
    return [index in positive for index in options.get("cond_or_uncond", [0])]


def tiles_of(options: dict[str, Any], rows: list[bool], x: Tensor) -> int:
    """How many tiles this call holds: packs that tile the sampling repeat all rows for each tile, tile after tile."""
    call: ConditionCall | None = options.get(CALL)
    if call is None:
        return 1
    tiles, rest = divmod(x.shape[0], call.batch * len(rows))
    if rest or not tiles:
        raise refusal(
            "model:",
            "a node rearranges the batch in a way in which positive and negative cannot be told apart",
            f"{x.shape[0]} rows came for {call.batch} pictures and {len(rows)} conditions.",
            "remove the node that splits or joins the sampling's batch.",
        )
    return tiles


def _same(cond: list[Any], other: list[Any]) -> bool:
    """Whether two condition lists are one; context windows copy a list but keep its entries' uuids."""
    names = [entry.get("uuid") for entry in cond]
    return cond is other or (None not in names and names != [] and names == [entry.get("uuid") for entry in other])


def _clipped_area(area: Sequence[int], whole: Area) -> Area:
    """The area of a prompt, (..., height, width, ..., top, left), cut off at the latent's edge as ComfyUI does."""
    half = len(area) // 2
    height, width, top, left = area[half - 2], area[half - 1], area[-2], area[-1]
    return Area(min(whole.height - top, height), min(whole.width - left, width), top, left)


def publish(model_options: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy of the options in which transformer_options say `name`."""
    options = model_options.copy()
    options["transformer_options"] = {**options.get("transformer_options", {}), name: value}
    return options
