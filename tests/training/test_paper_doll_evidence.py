# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reported of the base model is what was measured: on constructed answers and errors."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_anydressing.training.paper_doll import sample
from comfyui_anydressing.training.paper_doll.evidence import (
    Score,
    autoencoder_psnr,
    garments_recognised,
    recognised,
    table,
)
from comfyui_anydressing.training.paper_doll.recogniser import HEADS, KINDS


class Judge:
    """Says the same of every picture. answers: head -> the word it is sure of; wears: kinds, surest first."""

    def __init__(self, wears=(), **answers):
        self.answers, self.wears = answers, wears

    def classify(self, pictures):
        logits = {name: torch.zeros(len(pictures), len(words)) for name, words in HEADS.items()}
        for name, word in self.answers.items():
            logits[name][:, HEADS[name].index(word)] = 1.0
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
    assert scores["garment kind"] == Score(right, 24)
    assert 0 < scores["scene"].right < 12


def test_a_kind_is_chosen_among_those_of_its_slot(people):
    truth = people[0].labels
    upper, lower = (truth.garments[slot].kind for slot in ("upper", "lower"))
    # Surest of all of a hat, which she does not wear, then of her skirt, and least of her shirt: each slot has its own.
    scores = recognised(Judge(wears=("cap", lower, upper)), [people[0].person], [truth])
    assert scores["garment kind"] == Score(2, 2)


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
