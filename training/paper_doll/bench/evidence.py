# SPDX-License-Identifier: GPL-3.0-or-later
"""How good the base model is: what its autoencoder loses, and whether a recogniser finds in its pictures what was asked.

Everything is measured on held-out renders or on pictures that somebody else sampled; nothing here samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ....anydressing_core.pixels import Pixels, as_unit, bytes_of
from ...base.model import BaseModel
from ...evaluation.metrics import mask_iou
from ..networks.recogniser import KINDS, OF_SLOT, QUESTIONS, Recogniser
from ..networks.views import reconstructions
from ..world.garments import SLOTS
from ..world.samples import Labels, Sample

AT_ONCE = 8
FEWEST_PIXELS = 40
"""Where a garment shows on fewer pixels, at these sizes, nothing can be said of it."""


@dataclass(frozen=True)
class Score:
    """How many of how many were right."""

    right: int
    of: int

    def __add__(self, other: Score) -> Score:
        return Score(self.right + other.right, self.of + other.of)

    def __str__(self) -> str:
        return f"{self.right / max(self.of, 1):.1%} ({self.right} of {self.of})"


def recognised(judge: Recogniser, pictures: Sequence[Pixels], truths: Sequence[Labels]) -> dict[str, Score]:
    """What a recogniser finds in whole people at one look: scene, pose, and the kinds of their garments.

    pictures: (H, W, 3) bytes, all of one size.
    """
    scores = {name: Score(0, 0) for name in ("scene", "pose", "garment kind, at one look")}
    for start in range(0, len(pictures), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        with torch.no_grad():
            logits = judge.classify(_batch(pictures[some]))
        for row, labels in enumerate(truths[some]):
            for name, truth in (("scene", labels.scene), ("pose", labels.pose)):
                scores[name] += _score(QUESTIONS[name][int(logits[name][row].argmax())], truth)
            for slot, garment in labels.garments.items():
                of_slot = OF_SLOT[slot]
                answer = KINDS[of_slot][int(logits["wears"][row, of_slot].argmax())]
                scores["garment kind, at one look"] += _score(answer, garment.kind)
    return scores


def kinds_recognised(
    judge: Recogniser, pictures: Sequence[Pixels], truths: Sequence[Labels], places: Sequence[Mapping[str, Tensor]]
) -> Score:
    """Of how many garments the kind is recognised among those of their slot, cut out of the people who wear them.

    places: where each slot's garment is in each picture, (H, W) bool; by its true mask, or as a parser finds it. One that
    is on too few pixels is not recognised.
    """
    score = Score(0, 0)
    for picture, labels, place in zip(map(as_unit, pictures), truths, places, strict=True):
        for slot, garment in labels.garments.items():
            answer = ""
            if int(place[slot].sum()) >= FEWEST_PIXELS:
                with torch.no_grad():
                    logits = judge.classify((picture * place[slot])[None])["kind"][0, OF_SLOT[slot]]
                answer = KINDS[OF_SLOT[slot]][int(logits.argmax())]
            score += _score(answer, garment.kind)
    return score


def places_iou(places: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> dict[str, float]:
    """How well the garments of each slot are found: the mean IoU over people on whom they show.

    places: where each slot's garment was found in each person's picture, (H, W) bool.
    """
    found: dict[str, list[float]] = {slot: [] for slot in SLOTS}
    for place, sample in zip(places, samples, strict=True):
        for slot, garment in sample.garments.items():
            mask = torch.from_numpy(garment.mask)
            if int(mask.sum()) >= FEWEST_PIXELS:
                found[slot].append(float(mask_iou(place[slot][None], mask[None])))
    return {slot: float(np.mean(values)) for slot, values in found.items() if values}


def garments_recognised(judge: Recogniser, samples: Iterable[Sample]) -> dict[str, Score]:
    """What a recogniser finds in flat-lays: kind, cut, texture and print."""
    scores = {name: Score(0, 0) for name in ("kind", "cut", "texture", "print")}
    for sample in samples:
        for slot, garment in sample.garments.items():
            labels = sample.labels.garments[slot]
            with torch.no_grad():
                logits = judge.classify(_batch([garment.flat_lay]))
            for name in scores:
                scores[name] += _score(QUESTIONS[name][int(logits[name][0].argmax())], getattr(labels, name))
    return scores


def autoencoder_psnr(base: BaseModel, pictures: Sequence[Pixels]) -> float:
    """Peak signal-to-noise ratio of what comes back from the autoencoder, in dB, the mean over the pictures."""
    return float(np.mean([_psnr(base, picture) for picture in pictures]))


def reconstructed(base: BaseModel, picture: Pixels) -> Pixels:
    """A picture after encoding and decoding."""
    return bytes_of(reconstructions(base, _batch([picture]))[0].permute(1, 2, 0))


def _psnr(base: BaseModel, picture: Pixels) -> float:
    error = functional.mse_loss(reconstructions(base, _batch([picture])).cpu(), _batch([picture]))
    return float(-10 * torch.log10(error))


def _batch(pictures: Sequence[Pixels]) -> Tensor:
    return torch.stack([as_unit(picture) for picture in pictures])


def _score(answer: str, truth: str) -> Score:
    return Score(int(answer == truth), 1)


def table(columns: Mapping[str, Mapping[str, Score]]) -> str:
    """Scores side by side as a table in Markdown. columns: heading -> row -> score."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [str(column[row]) if row in column else "" for column in columns.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
