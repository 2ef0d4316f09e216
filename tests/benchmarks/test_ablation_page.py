# SPDX-License-Identifier: GPL-3.0-or-later
"""The ablation's page says what its figures say, and keeps the words around them."""

from __future__ import annotations

import json

import pytest
from comfyui_anydressing.benchmarks import ablation
from comfyui_anydressing.training.evaluation.arms import ARMS
from PIL import Image

WHAT = "colour error, masked"
BASE, GFE = ARMS["base"].title, ARMS["gfe"].title


@pytest.fixture
def written(tmp_path, monkeypatch):
    """`written({arm-seed: {outfit: value}})` is the page and the JSON made from these figures."""
    monkeypatch.setattr(ablation, "PAGE", tmp_path)
    monkeypatch.setattr(ablation, "sheet", lambda folder, names: Image.new("RGB", (8, 8)))
    runs = tmp_path / "runs"
    runs.mkdir()

    def write(arms):
        for name, values in arms.items():
            figures = {str(outfit): {WHAT: value} for outfit, value in values.items()}
            content = {"seed": int(name[-1]), "figures": figures}
            (runs / f"{name}.json").write_text(json.dumps(content))
        ablation.page(runs)
        return (tmp_path / "ablation.md").read_text(), json.loads((tmp_path / "ablation.json").read_text())

    return write


def test_an_arm_is_its_mean_over_outfits_of_the_mean_over_seeds(written):
    page, content = written({"base-0": {1: 0.2, 2: 0.4}, "base-1": {1: 0.4, 2: 0.4}})
    mean, low, high, count = content["arms"]["base"]["figures"][WHAT]
    assert (mean, low, high, count) == (pytest.approx(0.35), pytest.approx(0.3), pytest.approx(0.4), 2)
    assert content["arms"]["base"]["seeds"] == [0, 1]
    assert content["arms"]["base"]["figures_of_seeds"][WHAT] == [pytest.approx(0.3), pytest.approx(0.4)]
    assert f"| `base`: {BASE} | 2 | 0.35 [0.3, 0.4]" in page


def test_a_change_is_taken_outfit_by_outfit(written):
    """Outfits differ by far more than the arms do; every outfit is better by the same."""
    before = {outfit: 0.1 * outfit for outfit in range(10)}
    page, content = written({"base-0": before, "gfe-0": {outfit: v - 0.01 for outfit, v in before.items()}})
    change = content["changes"]["base -> gfe"]
    assert change["figures"][WHAT] == [pytest.approx(-0.01), pytest.approx(-0.01), pytest.approx(-0.01), 10]
    assert f"| {BASE} -> {GFE} | 1 | **-0.01 [-0.01, -0.01]**" in page


def test_a_change_is_taken_seed_by_seed(written):
    """A seed that only one of two arms has says nothing about what lies between them."""
    page, content = written({"base-0": {1: 0.4, 2: 0.3}, "base-1": {1: 0.1, 2: 0.1}, "gfe-0": {1: 0.3, 2: 0.2}})
    assert content["changes"]["base -> gfe"]["seeds"] == [0]
    assert f"| {BASE} -> {GFE} | 1 | **-0.1 [-0.1, -0.1]**" in page


def test_seeds_that_contradict_each_other_are_not_bold(written):
    page, _ = written(
        {"base-0": {1: 0.2, 2: 0.2}, "base-1": {1: 0.2, 2: 0.2}, "gfe-0": {1: 0.5, 2: 0.5}, "gfe-1": {1: 0.1, 2: 0.1}}
    )
    assert f"| {BASE} -> {GFE} | 2 | +0.1 [+0.1, +0.1] |" in page


def test_what_may_be_chance_is_not_bold(written):
    page, _ = written({"base-0": {1: 0.2, 2: 0.4}, "gfe-0": {1: 0.4, 2: 0.2}})
    assert f"| {BASE} -> {GFE} | 1 | +0 [-0.2, +0.2]" in page


def test_an_arm_that_was_measured_before_stays_and_is_compared_with(written, tmp_path):
    before = {outfit: 0.1 * outfit for outfit in range(10)}
    written({"base-0": before})
    (tmp_path / "runs" / "base-0.json").unlink()
    page, content = written({"gfe-0": {outfit: value - 0.01 for outfit, value in before.items()}})
    assert content["changes"]["base -> gfe"]["figures"][WHAT] == [pytest.approx(-0.01)] * 3 + [10]
    assert f"| {BASE} -> {GFE} | 1 | **-0.01 [-0.01, -0.01]**" in page
    again, _ = written({"base-0": {1: 0.2}})  # measured anew, it is no more what it was
    assert f"| `base`: {BASE} | 1 | 0.2 [" in again


def test_words_around_the_figures_stay(written, tmp_path):
    (tmp_path / "ablation.md").write_text(
        f"# Ours\n{ablation.PAGE_OF_ARMS.begin} former {ablation.PAGE_OF_ARMS.end}\nThe order holds.\n"
    )
    page, _ = written({"base-0": {1: 0.2}})
    assert page.startswith("# Ours\n")
    assert page.endswith("\nThe order holds.\n")
    assert "former" not in page
    assert BASE in page


def test_a_page_without_a_place_for_figures_is_left_alone(written, tmp_path):
    (tmp_path / "ablation.md").write_text("Only words.\n")
    with pytest.raises(ValueError, match="no place for the figures"):
        written({"base-0": {1: 0.2}})
    assert (tmp_path / "ablation.md").read_text() == "Only words.\n"
