# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's figures: what the pictures of `bench.pictures` are worth, against the exact truth.

It reads pictures and what stands beside them, paints the truth anew from its seed, and samples nothing.

Every figure is a mean over outfits with its 95 % bootstrap interval. The autoencoder's own error is the floor, somebody
else's garments are the control; for pictures made freely the garments are found by the parser, whose own error on
held-out renders is printed beside them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....anydressing_core.latents import CELL
from ....anydressing_core.pixels import Pixels, as_unit
from ....anydressing_core.refusals import refusal
from ...base.model import BaseModel
from ...evaluation.metrics import (
    colour_error,
    interval,
    is_swapped,
    leakage,
    localisation_iou,
    look_of,
    mask_iou,
    palette_error,
    rank_among,
    texture_distance,
    texture_error,
)
from ...evaluation.report import Report
from ...losses.dists import Dists
from ...picture_files import read_grey, read_pixels, read_unit
from ...progress import Progress, untold
from ...text_files import read_text
from ..networks.parser import Parser
from ..networks.recogniser import Recogniser
from ..world.samples import Sample, sample
from .evidence import FEWEST_PIXELS, recognised, reconstructed
from .pictures import ABOUT, Outfit, anew_mask, outfit

DISTRACTORS = 32
FIRST_DISTRACTOR = 50_000  # their seeds in the held-out split


def measure(
    folder: Path,
    base: BaseModel,
    judge: Recogniser,
    parser: Parser,
    progress: Progress = untold,
) -> Report:
    """Measure the pictures in a folder. Raises ValueError when there are none."""
    figures, about = outfit_figures(folder, base, judge, parser, progress)
    values: dict[str, list[float]] = defaultdict(list)
    for of_outfit in figures.values():
        for name, value in of_outfit.items():
            values[name].append(value)
    return Report({name: interval(some) for name, some in values.items()}, {**about, "outfits": len(figures)})


def outfit_figures(
    folder: Path,
    base: BaseModel,
    judge: Recogniser,
    parser: Parser,
    progress: Progress = untold,
    undressed: Path | None = None,
) -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    """The figures of every outfit in a folder, by its seed, and what its pictures were made from.

    undressed: another such folder, which has the pictures of nobody dressed. Raises ValueError when there are none.
    """
    abouts = {int(path.parent.name): json.loads(read_text(path)) for path in sorted(folder.glob(f"*/{ABOUT}"))}
    if not abouts:
        why = f"It has no finished outfit, which would hold a file {ABOUT}."
        raise refusal(f"The folder {str(folder)!r}", "has nothing to measure", why, "let the bench make its pictures.")
    about = next(iter(abouts.values()))
    bench = _Bench(base, judge, parser, Dists(judge), about["slots"], tuple(about["size"]), about["ways"])
    figures: dict[int, dict[str, float]] = {}
    for done, seed in enumerate(abouts):
        progress("measuring", done, len(abouts))
        plain = (undressed or folder) / str(seed) / "undressed.png"
        figures[seed] = bench.figures(folder / str(seed), outfit(seed, bench.slots, bench.size), plain)
    progress("measuring", len(abouts), len(abouts))
    return figures, about


class _Bench:
    """What the pictures are judged with."""

    def __init__(
        self,
        base: BaseModel,
        judge: Recogniser,
        parser: Parser,
        dists: Dists,
        slots: Sequence[str],
        size: tuple[int, int],
        ways: Sequence[str],
    ) -> None:
        self.base, self.judge, self.parser, self.dists = base, judge, parser, dists
        self.slots, self.size, self.ways = slots, size, ways
        hats = float("hat" in slots)
        crowd = [sample(FIRST_DISTRACTOR + index, "held_out", size, hats) for index in range(DISTRACTORS)]
        self.distractors = {slot: [look_of(judge, *_lain(slot, one)) for one in crowd] for slot in slots}

    def figures(self, folder: Path, one: Outfit, undressed: Path) -> dict[str, float]:
        """All figures of one outfit that its pictures tell. undressed: where the picture of nobody dressed may be."""
        truth = one.truth
        masks = {slot: torch.from_numpy(truth.garments[slot].mask) for slot in self.slots}
        seen = {slot: mask for slot, mask in masks.items() if int(mask.sum()) >= FEWEST_PIXELS}
        floor = as_unit(reconstructed(self.base, truth.person))
        figures = self._against_truth("floor (autoencoder)", floor, truth, seen)
        figures |= self._whose("true picture", as_unit(truth.person), seen, one)
        for name in ("masked", "shuffled"):
            if self._has(name):
                figures |= self._against_truth(name, read_unit(folder / f"{name}.png"), truth, seen)
        for slot, mask in seen.items() if self._has("only") else ():
            alone = read_unit(folder / f"only-{slot}.png")
            figures |= self._against_truth(f"only {slot}", alone, truth, {slot: mask})
        if self._has("masked"):
            figures |= self._whose("masked", read_unit(folder / "masked.png"), seen, one)
            maps = torch.stack([read_grey(folder / f"masked-attention-{slot}.png") for slot in self.slots])
            figures["attention IoU, masked"] = localisation_iou(maps, torch.stack(list(masks.values())))
        return figures | (self._free(folder, one, undressed) if self._has("free") else {})

    def _has(self, way: str) -> bool:
        return way in self.ways

    def _against_truth(self, name: str, picture: Tensor, truth: Sample, masks: dict[str, Tensor]) -> dict[str, float]:
        if not masks:
            return {}
        person = as_unit(truth.person)
        colours = [colour_error(picture, person, mask) for mask in masks.values()]
        textures = [texture_error(picture, person, mask, self.dists) for mask in masks.values()]
        return {f"colour error, {name}": float(np.mean(colours)), f"DISTS, {name}": float(np.mean(textures))}

    def _whose(self, name: str, picture: Tensor, masks: dict[str, Tensor], one: Outfit) -> dict[str, float]:
        """Whose garments these are, inside masks: by palette and texture, and by their look among many."""
        if not masks:
            return {}
        looks = {slot: look_of(self.judge, picture, mask) for slot, mask in masks.items()}
        own, others = ({slot: _lain(slot, worn) for slot in masks} for worn in (one.truth, one.others))
        own_looks = {slot: look_of(self.judge, *lain) for slot, lain in own.items()}

        def palette(flat_lay: Tensor, lies: Tensor, mask: Tensor) -> float:
            return palette_error(picture, mask, flat_lay, lies)

        def texture(flat_lay: Tensor, lies: Tensor, mask: Tensor) -> float:
            return texture_distance(picture, mask, flat_lay, lies, self.dists)

        first = [float(rank_among(looks[slot], own_looks[slot], self.distractors[slot]) == 0) for slot in looks]
        figures = {
            f"{what}, {name}{whose}": float(np.mean([error(*lain[slot], mask) for slot, mask in masks.items()]))
            for what, error in (("palette error", palette), ("DISTS to flat-lay", texture))
            for whose, lain in (("", own), (", of somebody else's", others))
        }
        figures[f"own garment nearest of {DISTRACTORS + 1}, {name}"] = float(np.mean(first))
        if {"upper", "lower"} <= looks.keys():
            swapped = is_swapped((looks["upper"], looks["lower"]), (own_looks["upper"], own_looks["lower"]))
            figures[f"swapped, {name}"] = float(swapped)
        return figures

    def _free(self, folder: Path, one: Outfit, undressed: Path) -> dict[str, float]:
        """Figures of the pictures that nothing but caption and garments were given for."""
        free = read_pixels(folder / "free.png")
        parts = self.parser.parse(as_unit(free))
        real = self.parser.parse(as_unit(one.truth.person))
        true = torch.stack([torch.from_numpy(one.truth.garments[slot].mask) for slot in self.slots])
        figures = {
            "parser IoU, held-out renders": float(mask_iou(torch.stack([real[s] for s in self.slots]), true).mean())
        }
        found = {slot: parts[slot] for slot in self.slots if int(parts[slot].sum()) >= FEWEST_PIXELS}
        figures["garments found, free"] = len(found) / len(self.slots)
        figures |= self._whose("free", as_unit(free), found, one)
        maps = torch.stack([read_grey(folder / f"free-attention-{slot}.png") for slot in self.slots])
        figures["attention IoU, free"] = localisation_iou(maps, torch.stack([parts[slot] for slot in self.slots]))
        figures |= self._prompt_kept("free", free, one)
        if not undressed.is_file():
            return figures
        plain = read_pixels(undressed)
        before = self.parser.parse(as_unit(plain))
        both = [found_parts[slot].numpy() for found_parts in (parts, before) for slot in self.slots]
        worn = anew_mask(both)[0].repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
        figures["leakage, free"] = leakage(as_unit(free), as_unit(plain), worn)
        return figures | self._prompt_kept("undressed", plain, one)

    def _prompt_kept(self, name: str, picture: Pixels, one: Outfit) -> dict[str, float]:
        scores = recognised(self.judge, [picture], [one.truth.labels])
        return {f"{what} recognised, {name}": float(scores[what].right) for what in ("scene", "pose")}


def _lain(slot: str, worn: Sample | Mapping[str, Sample]) -> tuple[Tensor, Tensor]:
    """A garment laid flat, and where it lies. worn: by one person, or by one for each slot."""
    picture = as_unit((worn if isinstance(worn, Sample) else worn[slot]).garments[slot].flat_lay)
    return picture, (picture < 1).any(dim=0)  # it lies on pure white
