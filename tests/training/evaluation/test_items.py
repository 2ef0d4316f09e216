# SPDX-License-Identifier: GPL-3.0-or-later
"""The benches ask for what the paper asks for, of garments that nobody was trained in, the same every time."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.evaluation import items
from comfyui_anydressing.training.evaluation.items import (
    PROMPTS,
    Garment,
    garments_of,
    lay_down,
    make_items,
    own_items,
    read_items,
)
from support.evaluations import COLOURS, draw_garment


@pytest.fixture
def garments(tmp_path):
    """30 uppers, 30 lowers and 5 hats, each of a colour of its own."""
    made = []
    for number, (slot, count) in enumerate((("upper", 30), ("lower", 30), ("hat", 5))):
        for place in range(count):
            name = f"{slot}{place:02d}.png"
            made.append(Garment(slot, name, draw_garment(tmp_path / name, (place * 8, number * 20, 90))))
    return made


def test_the_pairs_are_every_upper_with_every_lower_in_seven_prompts(garments):
    asked = make_items("dressing-pair", garments, PROMPTS, 5, None)
    assert len(asked.items) == 10 * 25 * 7
    worn = {tuple(garment.image for garment in item.garments) for item in asked.items}
    assert len(worn) == 250
    assert {tuple(garment.slot for garment in item.garments) for item in asked.items} == {("upper", "lower")}
    assert Counter(Counter(item.worn_as for item in asked.items).values()) == {7: 250}
    assert [item.seed for item in asked.items] == list(range(5, 5 + 1750))
    assert len({item.id for item in asked.items}) == 1750
    assert len(asked.pictures) == 35


def test_a_single_garment_is_no_hat(garments):
    asked = make_items("single", garments, ("a park",), 0, None)
    assert {garment.slot for item in asked.items for garment in item.garments} == {"upper", "lower"}
    assert len(asked.items) == 60


def test_three_garments_are_upper_lower_and_hat(garments):
    asked = make_items("three", garments, PROMPTS, 0, None)
    assert len({item.worn_as for item in asked.items}) == 5
    assert all([garment.slot for garment in item.garments] == ["upper", "lower", "hat"] for item in asked.items)


def test_fewer_outfits_are_some_of_the_same_in_whatever_order_they_came(garments):
    whole = make_items("dressing-pair", garments, PROMPTS, 0, None).items
    assert make_items("dressing-pair", garments[::-1], PROMPTS, 0, 20).items == whole[: 20 * 7]


def test_without_garments_it_says_what_a_bench_needs(garments):
    uppers = [one for one in garments if one.slot == "upper"]
    with pytest.raises(
        ValueError, match=r"--bench dressing-pair finds no garments\.\nIt needs an upper and a lower laid flat"
    ):
        make_items("dressing-pair", uppers, PROMPTS, 0, None)


def test_a_garment_that_somebody_was_trained_in_is_not_asked_for(tmp_path):
    for name in ("own", "shared", "trained"):
        draw_garment(tmp_path / f"{name}.png", (90, 90, 90))

    def line(name, split, worn):
        garments = [
            {"slot": "upper", "image": image, "kind": "inshop" if image else "crop", "mask": "m.png"} for image in worn
        ]
        return json.dumps({"id": name, "image": "p.png", "caption": "x", "split": split, "garments": garments})

    lines = [line("a", "train", ["trained.png", "shared.png"]), line("b", "held_out", ["own.png", "shared.png", None])]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    found = garments_of(read_manifest(tmp_path / "manifest.jsonl"))
    assert [(one.slot, one.name) for one in found] == [("upper", "own.png")]


@pytest.fixture
def own(tmp_path):
    """A folder with a person's own items, and a function that writes them."""
    draw_garment(tmp_path / "own" / "a.png", COLOURS["upper"][0])
    draw_garment(tmp_path / "own" / "b" / "a.png", COLOURS["lower"][0])

    def write(*entries):
        (tmp_path / "own" / "items.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return tmp_path / "own" / "items.jsonl"

    return write


ITEM = {
    "id": "Ä 1",
    "prompt": "a woman",
    "garments": [{"slot": "upper", "image": "a.png"}, {"slot": "lower", "image": "b/a.png"}],
}


def test_own_items_are_laid_down_with_their_garments(own, tmp_path):
    asked = own_items(own(ITEM))
    laid = lay_down(asked, tmp_path / "out")
    assert [(item.id, item.seed, item.worn_as) for item in laid] == [("Ä 1", 0, "Ä 1")]
    images = [garment.image for garment in laid[0].garments]
    assert len(set(images)) == 2  # of one name, and yet apart
    assert all((tmp_path / "out" / image).is_file() for image in images)
    assert read_items(tmp_path / "out" / items.ITEMS) == laid
    assert lay_down(own_items(tmp_path / "out" / items.ITEMS), tmp_path / "out") == laid  # its own form is read again


def test_other_items_are_refused_where_some_are(own, tmp_path):
    lay_down(own_items(own(ITEM)), tmp_path / "out")
    with pytest.raises(ValueError, match="holds other items"):
        lay_down(own_items(own(ITEM | {"prompt": "a man"})), tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (ITEM | {"garments": [{"slot": "upper", "image": "../a.png"}]}, "stays inside the folder"),
        (ITEM | {"seeds": 1}, "seeds: Extra inputs are not permitted"),
        (ITEM | {"garments": []}, "garments: "),
        (ITEM | {"seed": -1}, "seed: "),
        (ITEM | {"id": "a/b"}, "id: "),
        ([1, 2], "it: "),
    ],
)
def test_a_line_that_is_no_item_is_named(own, entry, told):
    with pytest.raises(ValueError, match=rf"(?s)Line 2 of 'items.jsonl' is no item.*{told}"):
        own_items(own(ITEM | {"id": "first"}, entry))


def test_a_garment_that_is_not_there_is_named(own, tmp_path):
    path = own(ITEM)
    shutil.rmtree(tmp_path / "own" / "b")
    with pytest.raises(ValueError, match=r"Item 'Ä 1': '.*b/a.png' was not found"):
        own_items(path)
