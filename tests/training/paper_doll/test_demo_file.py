# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnyDressing file that comes with the pack: what it says of itself, and that it dresses."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint
from comfyui_anydressing.anydressing_core.pixels import as_unit
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.dressing.finished import dressing_model
from comfyui_anydressing.training.evaluation.metrics import colour_error
from comfyui_anydressing.training.model.sampling import SamplingSettings
from comfyui_anydressing.training.paper_doll.bench.pictures import FIRST, BenchPlan, make_pictures, outfit
from comfyui_anydressing.training.picture_files import read_unit

OUTFITS = 3


@pytest.fixture(scope="module")
def demo(root):
    return root / "demo"


@pytest.fixture(scope="module")
def file(demo):
    return load_checkpoint(demo / "anydressing" / "paper_doll.safetensors")


def test_it_says_what_it_is(file):
    info = file.info
    assert {"upper", "lower"} <= set(info.slots)
    assert info.dataset_licence == "CC0-1.0"
    assert info.resolution == (384, 288)
    assert info.steps > 0
    assert info.training_config_hash != "unknown"


def test_right_garments_come_closer_to_the_truth_than_somebody_elses(file, demo, tmp_path):
    """Garments made anew in true pictures of people that no training showed; at 8 steps, of the 30 that artists take."""
    base = load_base(demo / "paper_doll_base.safetensors")
    settings = SamplingSettings(steps=8, guidance=3.0, strength=1.0)
    plan = BenchPlan(OUTFITS, settings, slots=("upper", "lower"), ways=("masked", "shuffled"))
    make_pictures(dressing_model(file, base), file.identity, base, tmp_path, plan)
    errors = {"masked": 0.0, "shuffled": 0.0}
    for seed in range(FIRST, FIRST + OUTFITS):
        truth = outfit(seed, ("upper", "lower"), (384, 288)).truth
        for way in errors:
            picture = read_unit(tmp_path / str(seed) / f"{way}.png")
            for worn in truth.garments.values():
                errors[way] += colour_error(picture, as_unit(truth.person), torch.from_numpy(worn.mask))
    assert errors["masked"] < 0.7 * errors["shuffled"], errors
