# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reported of the base model is what was measured: on constructed answers and errors."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_anydressing.training.paper_doll.bench.evidence import (
    Score,
    autoencoder_psnr,
    garments_recognised,
    kinds_recognised,
    places_iou,
    recognised,
    table,
)
from comfyui_anydressing.training.paper_doll.networks.recogniser import KINDS, QUESTIONS
from comfyui_anydressing.training.paper_doll.world import sample


class Judge:
    """Says the same of every picture. answers: head -> the word it is sure of; wears: kinds, surest first."""

    def __init__(self, wears=(), **answers):
        self.answers, self.wears = answers, wears

    def classify(self, pictures):
        logits = {name: torch.zeros(len(pictures), len(words)) for name, words in QUESTIONS.items()}
        for name, word in self.answers.items():
            logits[name][:, QUESTIONS[name].index(word)] = 1.0
        for rank, kind in enumerate(self.wears):
            logits["wears"][:, KINDS.index(kind)] = 9.0 - rank
        return logits


@pytest.fixture(scope="module")
def people():
    return [sample(seed, size=(64, 48), hats=0) for seed in range(12)]


def test_people_are_right_when_the_judge_says_what_they_are(people):
    pictures, truths = [one.person for one in people], [one.labels for one in people]
    first = truths[0]
    kinds = [garment.kind for garment in first.garments.values()]
    scores = recognised(Judge(wears=kinds, scene=first.scene, pose=first.pose), pictures, truths)
    assert scores["scene"] == Score(sum(one.scene == first.scene for one in truths), 12)
    assert scores["pose"] == Score(sum(one.pose == first.pose for one in truths), 12)
    right = sum(garment.kind in kinds for one in truths for garment in one.garments.values())
    assert scores["garment kind, at one look"] == Score(right, 24)
    assert 0 < scores["scene"].right < 12


def test_a_kind_is_chosen_among_those_of_its_slot(people):
    truth = people[0].labels
    upper, lower = (truth.garments[slot].kind for slot in ("upper", "lower"))
    # Surest of all of a hat, which she does not wear, then of her skirt, and least of her shirt: each slot has its own.
    scores = recognised(Judge(wears=("cap", lower, upper)), [people[0].person], [truth])
    assert scores["garment kind, at one look"] == Score(2, 2)


def places(**bands):
    """Each of these slots in the band of rows given for it, every other one nowhere."""
    masks = {slot: torch.zeros(64, 48, dtype=torch.bool) for slot in ("upper", "lower", "hat")}
    for slot, rows in bands.items():
        masks[slot][rows] = True
    return [masks]


class KindJudge(Judge):
    """Says the kind of whatever lies in the upper half of the picture, and remembers what it was shown."""

    def __init__(self, above, below):
        super().__init__()
        self.above, self.below, self.shown = above, below, []

    def classify(self, pictures):
        self.shown += list(pictures)
        logits = super().classify(pictures)
        for row, picture in enumerate(pictures):
            half = picture.shape[1] // 2
            kind = self.above if picture[:, :half].sum() > picture[:, half:].sum() else self.below
            logits["kind"][row, KINDS.index("cap")] = 2.0  # surer still of another slot's
            logits["kind"][row, KINDS.index(kind)] = 1.0
        return logits


def test_a_garment_is_recognised_where_it_is(people):
    truth = people[0].labels
    upper, lower = (truth.garments[slot].kind for slot in ("upper", "lower"))
    judge, pictures = KindJudge(upper, lower), [people[0].person]
    right = places(upper=slice(10, 30), lower=slice(36, 60))
    assert kinds_recognised(judge, pictures, [truth], right) == Score(2, 2)
    assert all((shown[:, :10] == 0).all() for shown in judge.shown)  # nothing but the garment is shown
    swapped = places(lower=slice(10, 30), upper=slice(36, 60))
    assert kinds_recognised(KindJudge(upper, lower), pictures, [truth], swapped) == Score(0, 2)


def test_a_garment_that_is_not_found_is_not_recognised(people):
    truth = people[0].labels
    upper, lower = (truth.garments[slot].kind for slot in ("upper", "lower"))
    judge = KindJudge(upper, lower)
    assert kinds_recognised(judge, [people[0].person], [truth], places(upper=slice(10, 30))) == Score(1, 2)
    assert len(judge.shown) == 1


def test_what_is_found_is_measured_on_each_slot_by_the_true_masks(people):
    """Uppers are found as they are, and the left half of every lower."""
    found = [{slot: torch.from_numpy(worn.mask.copy()) for slot, worn in one.garments.items()} for one in people]
    for place in found:
        place["lower"][:, 24:] = False
    iou = places_iou(found, people)
    shown = [one.garments["lower"].mask for one in people if one.garments["lower"].mask.sum() >= 40]
    assert iou == {"upper": 1.0, "lower": pytest.approx(np.mean([mask[:, :24].sum() / mask.sum() for mask in shown]))}


def test_flat_lays_are_right_head_by_head(people):
    labels = people[0].labels.garments["upper"]
    scores = garments_recognised(Judge(kind=labels.kind, texture=labels.texture), people[:1])
    assert scores["kind"] == Score(1 + (people[0].labels.garments["lower"].kind == labels.kind), 2)
    assert scores["texture"].right >= 1


def test_psnr_of_a_known_error():
    class Darker(SimpleNamespace):
        """Gives back every picture a tenth darker."""

        def encode_mode(self, images):
            return images

        def decode(self, latents):
            return latents - 0.2  # of [-1, 1]

    pictures = [np.full((16, 8, 3), 200, np.uint8), np.full((16, 8, 3), 100, np.uint8)]
    assert autoencoder_psnr(Darker(), pictures) == pytest.approx(-20 * math.log10(0.1), abs=1e-4)


def test_scores_add_up_and_stand_side_by_side():
    assert str(Score(1, 2) + Score(2, 2)) == "75.0% (3 of 4)"
    assert table({"a": {"x": Score(1, 2)}, "b": {"x": Score(1, 1), "y": Score(0, 4)}}).splitlines() == [
        "| | a | b |",
        "|---|---|---|",
        "| x | 50.0% (1 of 2) | 100.0% (1 of 1) |",
        "| y |  | 0.0% (0 of 4) |",
    ]
