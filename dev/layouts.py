# SPDX-License-Identifier: GPL-3.0-or-later
"""How the shipped workflows lie on the canvas: by hand, so that they can be read at the zoom at which they open.

A layout is a row of columns, each a stack of nodes, and frames around some of them. Nodes have the keys of their prompt; NOTE is
the note. Wires go from one column to the next, or along a corridor that the columns between leave free: none behind a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

NOTE = "note"
TITLE = 30  # pixels of a node's title, above its position
BETWEEN, BESIDE, AROUND, HEAD = 45, 75, 15, 35  # between nodes, beside columns, within a frame, its heading

GARMENTS, PERSON, PICTURE = "#3f789e", "#b58b2a", "#8A8"
"""Colours of frames, as ComfyUI's own palette has them."""


@dataclass(frozen=True)
class Lies:
    """A node in a column. height: without its title; 0 is collapsed, a title alone. drop: pixels of space above it."""

    key: str
    title: str
    height: int = 0
    drop: int = 0


@dataclass(frozen=True)
class Frame:
    """A frame with a heading around some nodes."""

    heading: str
    colour: str
    keys: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """columns: the width of each, and its nodes. detours: the points by which a wire goes, from the output on, where a straight
    one would lie behind a node; named by the two nodes and the input.
    """

    columns: Sequence[tuple[int, Sequence[Lies]]]
    frames: Sequence[Frame]
    detours: Mapping[tuple[str, str, str], Sequence[tuple[int, int]]] = field(default_factory=dict)


def laid_out(workflow: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """A workflow whose nodes lie as a layout says. Raises ValueError unless it names each of them once."""
    nodes = {NOTE if node["type"] == "MarkdownNote" else str(node["id"]): node for node in workflow["nodes"]}
    named = [lies.key for _, column in layout.columns for lies in column]
    if sorted(named) != sorted(nodes):
        raise ValueError(f"The layout names {sorted(named)}, the workflow has {sorted(nodes)}.")
    taken = places(layout.columns)
    for _, column in layout.columns:
        for lies in column:
            left, top, width, _ = taken[lies.key]
            node = nodes[lies.key]
            node["pos"], node["size"] = [left, top], [width, lies.height or node["size"][1]]
            node["title"], node["flags"] = lies.title, {} if lies.height else {"collapsed": True}
    groups = [
        {"id": number, "title": frame.heading, "bounding": _around([nodes[key] for key in frame.keys])}
        | {"color": frame.colour, "font_size": 24, "flags": {}}
        for number, frame in enumerate(layout.frames, 1)
    ]
    return {**workflow, "groups": groups, "extra": _detours(workflow, nodes, layout)}


def places(columns: Sequence[tuple[int, Sequence[Lies]]]) -> dict[str, tuple[int, int, int, int]]:
    """Left, top (below the title), width and height of each node."""
    taken: dict[str, tuple[int, int, int, int]] = {}
    left = 0
    for width, column in columns:
        top = 0
        for lies in column:
            top += lies.drop + TITLE
            taken[lies.key] = (left, top, width, lies.height)
            top += lies.height + BETWEEN
        left += width + BESIDE
    return taken


def _detours(workflow: dict[str, Any], nodes: Mapping[str, dict[str, Any]], layout: Layout) -> dict[str, Any]:
    """The reroutes of the wires that make one, as the frontend keeps them."""
    reroutes: list[dict[str, Any]] = []
    extensions: list[dict[str, Any]] = []
    for (source, target, name), points in layout.detours.items():
        slot = [entry["name"] for entry in nodes[target]["inputs"]].index(name)
        (link,) = (link[0] for link in workflow["links"] if link[1] == int(source) and link[3:5] == [int(target), slot])
        for index, point in enumerate(points):
            before = {"parentId": len(reroutes)} if index else {}
            reroutes.append({"id": len(reroutes) + 1, **before, "pos": list(point), "linkIds": [link]})
        extensions.append({"id": link, "parentId": len(reroutes)})
    return {"reroutes": reroutes, "linkExtensions": extensions} if reroutes else {}


def _around(nodes: Sequence[dict[str, Any]]) -> list[int]:
    """Left, top, width and height of a frame around nodes."""
    left, top = (min(node["pos"][axis] for node in nodes) for axis in (0, 1))
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    bottom = max(node["pos"][1] + (0 if node["flags"] else node["size"][1]) for node in nodes)
    top -= TITLE + HEAD
    return [left - AROUND, top - AROUND // 2, right - left + 2 * AROUND, bottom - top + AROUND + AROUND // 2]


Columns = list[tuple[int, list[Lies]]]
Point = tuple[int, int]


@dataclass(frozen=True)
class Keys:
    """The nodes of a dressed picture, by their keys. garments: picture, Garment Encode, and what it is called, of each."""

    checkpoint: str
    loader: str
    garments: Sequence[tuple[str, str, str]]
    positive: str
    negative: str
    size: str
    apply: str
    sampler: str
    decode: str
    save: str
    maps: str = ""


def one_picture(keys: Keys, checkpoint: str, checkpoint_height: int = 66) -> Layout:
    """Garments on the left, the person in the middle, the picture on the right."""
    tall = {1: 400, 2: 290, 3: 260}[len(keys.garments)]
    pictures = [Lies(picture, f"The {name}", tall) for picture, _, name in keys.garments]
    note = Lies(NOTE, "Read me", 190 if len(pictures) < 3 else 220, drop=80 * (len(pictures) == 3))
    columns: Columns = [
        (240, pictures if len(pictures) == 3 else [note, replace(pictures[0], drop=20), *pictures[1:]]),
        (240, [Lies(keys.checkpoint, checkpoint, checkpoint_height), Lies(keys.loader, "AnyDressing file", 58)]),
        (
            320,
            [
                Lies(keys.positive, "Who, doing what, where", 150, drop=120),
                Lies(keys.negative, "Not in the picture", 88),
                *(Lies(encode, f"Read the {name}") for _, encode, name in keys.garments),
                Lies(keys.size, "Size", 106),
            ],
        ),
        (260, [Lies(keys.apply, "Dress", 166 + 20 * len(keys.garments), drop=50), Lies(keys.sampler, "Draw", 262)]),
        (380, [Lies(keys.decode, "Decode"), Lies(keys.save, "The picture", 470, drop=30)]),
    ]
    if len(pictures) == 3:
        columns[3][1].append(note)
    shown = [keys.save]
    if keys.maps:
        columns[-1][1].append(Lies(keys.maps, "Where each garment went", 400))
        shown.append(keys.maps)
    frames = [
        Frame("Garments", GARMENTS, [picture for picture, _, _ in keys.garments]),
        Frame("Person", PERSON, [keys.positive, keys.negative]),
        Frame("Picture", PICTURE, shown),
    ]
    return Layout(columns, frames, _around_nodes(keys, columns))


def _around_nodes(keys: Keys, columns: Columns) -> dict[tuple[str, str, str], list[Point]]:
    """The detours of one picture's wires."""
    lies = places(columns)
    left, top, width, height = lies[keys.apply]
    gap = top + height + BETWEEN // 2
    detours = {(keys.apply, keys.sampler, "model"): [(left + width + 25, gap), (left - 20, gap)]}
    for index, (_, encode, _) in enumerate(keys.garments):
        beyond = lies[encode][0] + lies[encode][2] + 15 + 10 * index
        detours[encode, keys.apply, f"garments.garment_{index}"] = [(beyond, lies[encode][1] - TITLE // 2)]
    left, top, width, _ = lies[keys.decode]
    detours[keys.decode, keys.save, "images"] = [(left + 120, top + 18), (left - 25, top + 18)]
    if len(keys.garments) == 3:
        picture, encode, _ = keys.garments[0]
        detours[picture, encode, "image"] = [(lies[picture][2] + 25, 320)]
    if keys.maps:
        sampler = lies[keys.sampler]
        under = sampler[1] + sampler[3] + 40
        detours[keys.positive, keys.maps, "positive"] = [
            (sampler[0] - 25, under),
            (sampler[0] + sampler[2] + 15, under),
        ]
        map_left, map_top = lies[keys.maps][:2]
        detours[keys.decode, keys.maps, "image"] = [
            (left + 120, top + 18),
            (map_left - 40, top + 18),
            (map_left - 40, map_top),
        ]
    return detours


def two_pictures() -> Layout:
    """The same garments twice, without a file and with one, side by side."""
    columns: Columns = [
        (220, [Lies(NOTE, "Read me", 190), Lies("3", "The shirt", 290, drop=20), Lies("4", "The skirt", 290)]),
        (
            220,
            [
                *(Lies("1", "Checkpoint: the paper doll", 66), Lies("2", "AnyDressing: no file", 58)),
                Lies("22", "AnyDressing: her file", 58, drop=610),
            ],
        ),
        (
            280,
            [
                Lies("8", "Who, doing what, where", 150, drop=120),
                Lies("9", "Not in the picture", 88),
                *(Lies("5", "Read the shirt"), Lies("6", "Read the skirt")),
                Lies("10", "Size", 106),
                *(Lies("25", "The shirt again"), Lies("26", "The skirt again")),
            ],
        ),
        (
            250,
            [
                *(Lies("7", "Dress, without a file", 206, drop=50), Lies("11", "Draw", 262)),
                *(Lies("27", "Dress, with the file", 206), Lies("31", "Draw the same")),
            ],
        ),
        (
            280,
            [
                Lies("12", "Decode"),
                Lies("13", "Without a file", 430, drop=30),
                Lies("14", "Where each garment went", 380),
            ],
        ),
        (280, [Lies("32", "Decode the same"), Lies("33", "With the doll's file", 430, drop=30)]),
    ]
    frames = [
        Frame("Garments", GARMENTS, ["3", "4"]),
        Frame("Person", PERSON, ["8", "9"]),
        Frame("The same person twice", PICTURE, ["13", "33", "14"]),
    ]
    keys = Keys("1", "2", [("3", "5", ""), ("4", "6", "")], *("8", "9", "10", "7", "11", "12", "13", "14"))
    detours = _around_nodes(keys, columns)
    lies = places(columns)
    for index, encode in enumerate(("25", "26")):
        left, top, width, _ = lies[encode]
        detours[encode, "27", f"garments.garment_{index}"] = [(left + width + 15 + 10 * index, top - TITLE // 2)]
    left, top, _, _ = lies["32"]
    detours["32", "33", "images"] = [(left + 120, top + 18), (left - 25, top + 18)]
    maps_left, maps_top, maps_width, maps_height = lies["14"]
    under, beyond = maps_top + maps_height + 40, maps_left + maps_width + BESIDE // 2
    detours["31", "32", "samples"] = [(maps_left - 30, under), (beyond, under), (beyond, 40)]
    left, top, width, _ = lies["25"]
    above = top - TITLE - BETWEEN // 2
    detours["1", "27", "model"] = [(left - 15, above), (left + width + 10, above)]
    detours["1", "32", "vae"] = [(lies["7"][0], -25), (maps_left + maps_width, -25)]
    return Layout(columns, frames, detours)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "01_two_garments": one_picture(
            Keys("1", "2", [("3", "5", "shirt"), ("4", "6", "skirt")], *("8", "9", "10", "7", "11", "12", "13", "14")),
            "Checkpoint: the paper doll",
        ),
        "02_one_garment": one_picture(
            Keys("1", "2", [("3", "4", "sweater")], *("6", "7", "8", "5", "9", "10", "11", "12")),
            "Checkpoint: the paper doll",
        ),
        "03_three_garments": one_picture(
            Keys(
                *("1", "2", [("3", "6", "hoodie"), ("4", "7", "shorts"), ("5", "8", "cap")]),
                *("10", "11", "12", "9", "13", "14", "15", "16"),
            ),
            "Checkpoint: the paper doll",
        ),
        "04_with_and_without_file": two_pictures(),
        "10_sd15_two_garments": one_picture(
            Keys("1", "2", [("3", "5", "shirt"), ("4", "6", "jeans")], *("8", "9", "10", "7", "11", "12", "13")),
            "Your SD1.5 checkpoint",
            98,
        ),
    }
)
"""By the name of the workflow."""
