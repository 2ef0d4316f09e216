# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of an evaluation, drawn rather than dressed: items, garments of one colour each, and pictures of several methods."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from comfyui_anydressing.training.evaluation.dressed import Method, open_method
from comfyui_anydressing.training.evaluation.items import Asked, BenchItem, WornPicture, lay_down
from PIL import Image

COLOURS = {
    "upper": [(200, 40, 40), (40, 40, 200)],
    "lower": [(30, 140, 60), (220, 180, 40)],
    "hat": [(90, 30, 120)] * 2,
}
PLACES = {"hat": slice(2, 8), "upper": slice(10, 28), "lower": slice(30, 46)}


def draw_garment(path: Path, colour) -> Path:
    """A block of colour on white."""
    picture = np.full((48, 36, 3), 255, np.uint8)
    picture[8:40, 8:28] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def draw_person(path: Path, worn) -> None:
    """A grey ground, and a block of colour for each slot that is worn. worn: slot -> colour."""
    picture = np.full((48, 36, 3), 128, np.uint8)
    for slot, colour in worn.items():
        picture[PLACES[slot], 8:28] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def draw_bench(
    out: Path, bench: str, slots, methods, outfits: int = 2, prompts=("a park", "a beach")
) -> list[BenchItem]:
    """A bench in OUT. methods: name -> (item, its place) -> slot -> colour; what a method wears."""
    pictures, items = {}, []
    for place in range(outfits):
        worn = []
        for slot in slots:
            name = f"garments/{slot}{place % 2}.png"
            pictures[name] = draw_garment(out / "source" / f"{slot}{place % 2}.png", COLOURS[slot][place % 2])
            worn.append(WornPicture(slot=slot, image=name))
        items += [
            BenchItem(id=f"{place:04d}-{number}", prompt=prompt, garments=tuple(worn), outfit=f"{place:04d}")
            for number, prompt in enumerate(prompts)
        ]
    lay_down(Asked(items, pictures), out / bench)
    for name, wears in methods.items():
        way = "plain" if name == "plain" else "file"
        method = Method(name, out / bench / "pictures" / name, True, None, {"way": way, "size": [48, 36]})
        open_method(out / bench, method)
        for place, item in enumerate(items):
            draw_person(method.folder / f"{item.id}.png", wears(item, place // len(prompts)))
            (method.folder / f"{item.id}.json").write_text(json.dumps(method.made_from))
    return items


def own(item, place):
    """What the item asks for."""
    return {garment.slot: COLOURS[garment.slot][place % 2] for garment in item.garments}


def others(item, place):
    """Somebody else's garments."""
    return {garment.slot: COLOURS[garment.slot][(place + 1) % 2] for garment in item.garments}
