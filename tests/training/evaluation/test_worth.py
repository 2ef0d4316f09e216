# SPDX-License-Identifier: GPL-3.0-or-later
"""What pictures are worth, by judges who see colours alone, so that every figure is known beforehand."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_anydressing.training.evaluation.dressed import ALONE, Method, Share, methods_of, named, open_method
from comfyui_anydressing.training.evaluation.tables import BenchResults, measured, to_csv, to_json, to_text
from comfyui_anydressing.training.evaluation.worth import BenchMeasurer, Judges, bad_of, figures_of, judges_of
from PIL import Image
from support.evaluations import COLOURS, PLACES, draw_bench, draw_person, others, own

SIZE = (384, 288)


class ColourClip:
    """A picture is the mean of what is coloured in it; a text is red when it speaks of a park."""

    name, sha256, width = "colours", "c" * 64, 3

    def of_pictures(self, pictures):
        means = []
        for picture in pictures:
            coloured = picture[np.ptp(picture.astype(int), axis=2) > 20]
            means.append(coloured.mean(axis=0) if len(coloured) else np.ones(3))
        return torch.nn.functional.normalize(torch.tensor(np.array(means), dtype=torch.float32), dim=1)

    def of_texts(self, texts):
        return torch.tensor([[1.0, 0, 0] if "park" in text else [0, 1.0, 0] for text in texts])


class Head:
    sha256 = "d" * 64

    def marks(self, embeddings):
        return 10 * embeddings[:, 0]


class RowsParser:
    """Sees a garment of a slot where something coloured is in its rows."""

    digest = "p" * 64

    def parse(self, person):
        picture = np.array(Image.open(person.path).convert("RGB")).astype(int)
        coloured = np.ptp(picture, axis=2) > 20
        found = {}
        for slot, rows in PLACES.items():
            mask = np.zeros_like(coloured)
            mask[rows] = coloured[rows]
            if mask.any():
                found[slot] = mask
        return found


JUDGES = Judges(ColourClip(), Head(), RowsParser())
METHODS = {"plain": lambda item, place: {}, "good": own, "bad": others}


@pytest.fixture
def bench(tmp_path):
    """Two outfits in two prompts, dressed by nobody, rightly, and in somebody else's."""
    items = draw_bench(tmp_path, "dressing-pair", ["upper", "lower"], METHODS)
    return tmp_path / "dressing-pair", items


def results(folder, items, judges=JUDGES, share=ALONE):
    methods = methods_of(folder)
    BenchMeasurer(folder, items, judges, SIZE).measure(methods, share)
    rows = [measured(method, figures_of(folder, method, items), items) for method in methods]
    return BenchResults("dressing-pair", items, rows, judges_of(folder))


def test_right_garments_are_told_from_others(bench):
    folder, items = bench
    plain, bad, good = results(folder, items).methods
    assert [one.method.name for one in (plain, bad, good)] == ["plain", "bad", "good"]
    assert good.means["CLIP-I*"].value == pytest.approx(1, abs=1e-5)
    assert bad.means["CLIP-I*"].value < 0.9
    assert good.means["own garment nearest"].value == 1
    assert bad.means["own garment nearest"].value == 0
    assert good.means["colour difference"].value < 5 < 20 < bad.means["colour difference"].value
    assert good.means["swapped"].value == 0
    assert good.means["garments found"].value == 1
    assert plain.means["garments found"].value == 0
    assert "CLIP-I*" not in plain.means  # nothing is found of which it could be told


def test_scores_are_their_formulas(bench):
    folder, items = bench
    one = figures_of(folder, results(folder, items).methods[2].method, items)[items[0].id]
    upper, lower = (np.array(COLOURS[slot][0], float) for slot in ("upper", "lower"))
    rows = [(PLACES[slot].stop - PLACES[slot].start) * colour for slot, colour in (("upper", upper), ("lower", lower))]
    whole = sum(rows) / np.linalg.norm(sum(rows))
    cosines = [float(whole @ colour / np.linalg.norm(colour)) for colour in (upper, lower)]
    assert one["CLIP-I"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert one["CLIP-T"] == pytest.approx(whole[0], abs=1e-4)
    assert one["CLIP-AS"] == pytest.approx(10 * whole[0], abs=1e-3)


def test_a_pair_worn_the_wrong_way_round_is_swapped(tmp_path):
    swap = {"swap": lambda item, place: {"upper": COLOURS["lower"][place], "lower": COLOURS["upper"][place]}}
    items = draw_bench(tmp_path, "dressing-pair", ["upper", "lower"], swap)
    assert results(tmp_path / "dressing-pair", items).methods[0].means["swapped"].value == 1


def test_leakage_is_what_changes_away_from_garments(bench):
    folder, items = bench
    before = results(folder, items).methods[2].means["leakage"].value
    assert before == 0
    path = folder / "pictures" / "good" / f"{items[0].id}.png"
    picture = np.array(Image.open(path))
    picture[:, 34:] += 51  # a fifth of white, beside the person; above and below her it is far from garments
    Image.fromarray(picture).save(path)
    one = figures_of(folder, results(folder, items).methods[2].method, items)[items[0].id]
    assert 0 < one["leakage"] <= 0.2


def test_pictures_that_are_missing_are_counted_and_others_measured(bench):
    folder, items = bench
    (folder / "pictures" / "good" / f"{items[1].id}.png").unlink()
    good = results(folder, items).methods[2]
    assert (good.pictures, good.asked) == (3, 4)
    assert good.means["CLIP-T"].count == 2  # outfits


def test_a_picture_that_cannot_be_used_is_kept_with_its_reason_and_the_others_measured(bench):
    folder, items = bench
    path = folder / "pictures" / "good" / f"{items[1].id}.png"
    path.write_bytes(path.read_bytes()[:60])
    good = results(folder, items).methods[2]
    assert (good.pictures, good.asked) == (3, 4)
    ((item, why),) = bad_of(folder, good.method, items).items()
    assert item == items[1].id
    assert why
    draw_person(path, own(items[1], 0))
    assert results(folder, items).methods[2].pictures == 4
    assert bad_of(folder, good.method, items) == {}


def test_intervals_are_over_outfits_of_the_means_over_their_prompts(bench):
    folder, items = bench
    good = results(folder, items).methods[2]
    figures = figures_of(folder, good.method, items)
    of_outfits = [
        np.mean([figures[item.id]["CLIP-T"] for item in items if item.worn_as == name]) for name in ("0000", "0001")
    ]
    assert good.means["CLIP-T"].value == pytest.approx(np.mean(of_outfits))
    assert good.means["CLIP-T"].low == pytest.approx(min(of_outfits))
    assert good.means["CLIP-T"].high == pytest.approx(max(of_outfits))


def test_what_is_measured_is_kept_until_picture_or_judge_change(bench):
    folder, items = bench
    results(folder, items)
    kept = folder / "figures" / "good" / f"{items[0].id}.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"figures": {"CLIP-T": 99}}))
    assert figures_of(folder, results(folder, items).methods[2].method, items)[items[0].id] == {"CLIP-T": 99}
    draw_person(folder / "pictures" / "good" / f"{items[0].id}.png", {"upper": (1, 200, 1)})
    again = figures_of(folder, results(folder, items).methods[2].method, items)[items[0].id]
    assert again["CLIP-T"] < 0.1
    without = results(folder, items, Judges(ColourClip()))
    assert set(without.methods[2].means) == {"CLIP-T", "CLIP-I"}
    assert without.judges["regions by"] is None


def test_shares_together_measure_everything_once(bench):
    folder, items = bench
    first = results(folder, items, share=Share(0, 2))
    assert sum(one.pictures for one in first.methods) == 6
    both = results(folder, items, share=Share(1, 2))
    assert [one.pictures for one in both.methods] == [4, 4, 4]


def test_another_s_pictures_are_found_by_their_items_and_not_compared_with_our_noise(bench, tmp_path):
    folder, items = bench
    draw_person(tmp_path / "rival" / f"{items[0].id}.JPG", own(items[0], 0))
    open_method(folder, Method("=IP", tmp_path / "rival", is_ours=False))
    found = results(folder, items)
    rival = next(one for one in found.methods if not one.method.is_ours)
    assert rival.pictures == 1
    assert "leakage" not in rival.means
    rows = list(csv.DictReader(io.StringIO(to_csv([found]))))
    assert len(rows) == 4 * 3 + 1
    assert {row["method"] for row in rows} == {"plain", "good", "bad", "'=IP"}  # no formula in a spreadsheet
    assert "=IP (1 of 4)" in to_text([found])


def test_the_json_says_what_and_by_whom(bench):
    folder, items = bench
    told = json.loads(to_json([results(folder, items)]))["benches"]["dressing-pair"]
    assert told["judges"]["CLIP"] == "colours cccccccccccc"
    assert told["outfits"] == 2
    good = told["methods"]["good"]["figures"]["CLIP-I*"]
    assert math.isclose(good["value"], 1, abs_tol=1e-5)
    assert good["count"] == 2


def test_a_picture_without_a_pose_is_named_where_regions_are_found_by_pose(bench):
    folder, items = bench
    found = results(folder, items, Judges(ColourClip(), by="pose"))
    assert [one.pictures for one in found.methods] == [0, 0, 0]
    bad = bad_of(folder, found.methods[0].method, items)
    assert bad[items[0].id] == "its pose, 0000-0_keypoints.json, is not beside it"


def test_figures_of_other_judges_do_not_count(bench):
    """A share that another process still has to measure is not told by what an earlier CLIP said."""
    folder, items = bench
    results(folder, items)

    class Other(ColourClip):
        sha256 = "e" * 64

    first = results(folder, items, Judges(Other(), Head(), RowsParser()), Share(0, 2))
    assert sum(one.pictures for one in first.methods) == 6
    assert results(folder, items).methods[0].pictures == 4


def test_a_picture_that_is_gone_has_no_figures(bench):
    folder, items = bench
    results(folder, items)
    (folder / "pictures" / "good" / f"{items[0].id}.png").unlink()
    assert results(folder, items).methods[2].pictures == 3


def test_a_broken_picture_of_nobody_dressed_costs_leakage_alone(bench):
    folder, items = bench
    (folder / "pictures" / "plain" / f"{items[0].id}.png").write_bytes(b"")
    good = results(folder, items).methods[2]
    assert good.pictures == 4
    assert "leakage" not in good.figures[items[0].id]
    assert "leakage" in good.figures[items[1].id]


def test_a_garment_without_others_of_its_kind_is_no_nearest_one(tmp_path):
    items = draw_bench(tmp_path, "single", ["upper"], {"good": own}, outfits=1)
    methods = methods_of(tmp_path / "single")
    BenchMeasurer(tmp_path / "single", items, JUDGES, SIZE).measure(methods)
    assert "own garment nearest" not in figures_of(tmp_path / "single", methods[0], items)[items[0].id]


def test_the_worst_are_those_of_which_nothing_was_found(bench):
    folder, items = bench
    draw_person(folder / "pictures" / "good" / f"{items[2].id}.png", {})
    name, ranked = results(folder, items).by_item("CLIP-I*")
    assert name == "good"
    assert ranked[-1] == items[2]
    assert len(ranked) == 4


def test_damaged_figures_are_made_again(bench):
    folder, items = bench
    results(folder, items)
    (folder / "figures" / "good" / f"{items[0].id}.json").write_text('{"key": "x", "fig')
    assert results(folder, items).methods[2].pictures == 4


@pytest.mark.parametrize("name", ["..", ".hidden", "", "a\nb", "x" * 61, " a"])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(ValueError, match="cannot be a method's name"):
        named(name)


def test_a_row_of_table_3_is_of_one_method_and_stays(bench):
    folder, _ = bench
    good = next(one for one in methods_of(folder) if one.name == "good")
    open_method(folder, replace(good, row="gtl"))
    assert open_method(folder, good).row == "gtl"
    with pytest.raises(ValueError, match=r"--row gtl is taken\.\nIt is that of 'good'"):
        open_method(folder, replace(next(one for one in methods_of(folder) if one.name == "bad"), row="gtl"))
