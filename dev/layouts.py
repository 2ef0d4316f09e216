# SPDX-License-Identifier: GPL-3.0-or-later
"""How the shipped workflows lie on the canvas: by hand, so that they can be read at the zoom at which they open.

A layout is a row of columns, each a stack of nodes, and frames around some of them. Nodes have the keys of their prompt; NOTE is
the note. Wires go from one column to the next, or through the lanes between the nodes of the columns that they cross: none behind
a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

NOTE = "note"
TITLE = 30  # pixels of a node's title, above its position
BETWEEN, BESIDE, AROUND, HEAD = 45, 75, 15, 35  # between nodes, beside columns, within a frame, its heading
SOCKET, LANE = 20, 9  # between sockets of a node, between wires that lie in one lane

GARMENTS, PERSON, PICTURE = "#3f789e", "#b58b2a", "#8A8"
"""Colours of frames, as ComfyUI's own palette has them."""


@dataclass(frozen=True)
class Lies:
    """A node in a column. height: without its title; 0 is collapsed, a title alone. drop: pixels of space above it. off: it is
    muted, and an artist wakes it when she needs it.
    """

    key: str
    title: str
    height: int = 0
    drop: int = 0
    off: bool = False


@dataclass(frozen=True)
class Frame:
    """A frame with a heading around some nodes."""

    heading: str
    colour: str
    keys: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """name: the workflow's, as artists read it. columns: the width of each, and its nodes. app: node, widget and label of each input
    that App mode shows; a workflow with any opens there.
    """

    name: str
    columns: Sequence[tuple[int, Sequence[Lies]]]
    frames: Sequence[Frame]
    app: Sequence[tuple[str, str, str]] = ()


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
            node["mode"] = MUTED if lies.off else 0
    for key, widget, label in layout.app:
        next(one for one in nodes[key]["inputs"] if one["name"] == widget)["label"] = label
    groups = [
        {"id": number, "title": frame.heading, "bounding": _around([nodes[key] for key in frame.keys])}
        | {"color": frame.colour, "font_size": 24, "flags": {}}
        for number, frame in enumerate(layout.frames, 1)
    ]
    return {**workflow, "groups": groups, "extra": _detours(workflow, layout) | _app(workflow, layout)}


def _app(workflow: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """What App mode shows, as the frontend keeps it: inputs, and the pictures that are saved."""
    if not layout.app:
        return {}
    saved = [node["id"] for node in workflow["nodes"] if node["type"] == "SaveImage"]
    inputs = [[int(key), widget] for key, widget, _ in layout.app]
    return {"linearMode": True, "linearData": {"inputs": inputs, "outputs": saved}}


MUTED = 2  # LiteGraph's "never"


def awake(prompt: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """A prompt without the nodes that are muted: what the frontend sends."""
    off = {lies.key for _, column in layout.columns for lies in column if lies.off}
    return {key: node for key, node in prompt.items() if key not in off}


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


def _detours(workflow: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The reroutes of the wires that make one, as the frontend keeps them."""
    reroutes: list[dict[str, Any]] = []
    extensions: list[dict[str, Any]] = []
    lanes = _Lanes(layout)
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    for link, source, output, target, slot, *_ in workflow["links"]:
        points = list(lanes.path((str(source), output), (str(target), _row(nodes[str(target)], slot))))
        for index, point in enumerate(points):
            before = {"parentId": len(reroutes)} if index else {}
            reroutes.append({"id": len(reroutes) + 1, **before, "pos": list(point), "linkIds": [link]})
        if points:
            extensions.append({"id": link, "parentId": len(reroutes)})
    return {"reroutes": reroutes, "linkExtensions": extensions} if reroutes else {}


def _row(node: dict[str, Any], slot: int) -> int:
    """The row of an input's socket; those of widgets lie elsewhere."""
    return sum("widget" not in entry for entry in node["inputs"][:slot])


class _Lanes:
    """Where wires may lie: in the gaps beside columns, and in the lanes between the nodes of a column."""

    def __init__(self, layout: Layout) -> None:
        self._taken = places(layout.columns)
        self._column = {lies.key: place for place, (_, column) in enumerate(layout.columns) for lies in column}
        self._left = [self._taken[column[0].key][0] for _, column in layout.columns]
        self._width = [width for width, _ in layout.columns]
        self._free = [_free(layout, column, self._taken) for _, column in layout.columns]
        self._used: Counter[tuple[int, int]] = Counter()
        self._collapsed: Counter[int] = Counter()

    def path(self, source: tuple[str, int], target: tuple[str, int]) -> Iterator[tuple[int, int]]:
        """The points by which a wire goes; none from a column to the next. Both ends: a node, and the row of its socket."""
        first, last = self._column[source[0]], self._column[target[0]]
        left, top, width, height = self._taken[source[0]]
        if not height:  # a collapsed node ends somewhere within its column
            self._collapsed[first] += 1
            yield left + width + 10 * self._collapsed[first], top - TITLE // 2
        if last == first + 1:
            return
        at, to = self._height(*source), self._height(*target)
        back = last <= first  # or down the same column: out to the right, and through to the left of the target
        for column in range(first, last - 1, -1) if back else range(first + 1, last):
            at = self._lane(column, at, to)
            before, after = self._left[column] - 20, self._left[column] + self._width[column] + 20
            yield from ((after, at), (before, at)) if back else ((before, at), (after, at))

    def _lane(self, column: int, at: int, to: int) -> int:
        """The height of the lane of a column with the shortest way, beside the wires that lie in it."""
        low, high = min(self._free[column], key=lambda lane: _way(lane, at) + _way(lane, to))
        aim = max(low + 8, min(high - 8, at))
        self._used[column, low] += 1
        shift = (self._used[column, low] // 2) * LANE * (-1) ** self._used[column, low]
        return max(low + 4, min(high - 4, (aim if high - low > 100 else (low + high) // 2) + shift))

    def _height(self, key: str, row: int) -> int:
        _, top, _, height = self._taken[key]
        return top + SOCKET * row + 14 if height else top - TITLE // 2


def _way(lane: tuple[int, int], height: int) -> int:
    return max(lane[0] - height, height - lane[1], 0)


def _free(
    layout: Layout, column: Sequence[Lies], taken: Mapping[str, tuple[int, int, int, int]]
) -> list[tuple[int, int]]:
    """The lanes of a column: from above it, past its nodes and the headings of frames, to below it."""
    above = {frame.keys[0]: AROUND // 2 + HEAD for frame in layout.frames}
    edges = [-200]
    for lies in column:
        _, top, _, height = taken[lies.key]
        edges += [top - TITLE - above.get(lies.key, 0), top + height]
    edges.append(edges[-1] + 200)
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(low, high) for low, high in pairs if high - low >= 2 * LANE]


def _around(nodes: Sequence[dict[str, Any]]) -> list[int]:
    """Left, top, width and height of a frame around nodes."""
    left, top = (min(node["pos"][axis] for node in nodes) for axis in (0, 1))
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    bottom = max(node["pos"][1] + (0 if node["flags"] else node["size"][1]) for node in nodes)
    top -= TITLE + HEAD
    return [left - AROUND, top - AROUND // 2, right - left + 2 * AROUND, bottom - top + AROUND + AROUND // 2]


Columns = list[tuple[int, list[Lies]]]

DOLL, OWN = Lies("1", "Checkpoint: the paper doll", 66), Lies("1", "Your SD1.5 checkpoint", 98)
FILE, NO_FILE = Lies("2", "AnyDressing file", 58), Lies("2", "AnyDressing: no file", 58)
WHO, NOT = "Who, doing what, where", "Not in the picture"
TALL = {1: 400, 2: 290, 3: 260}
DEMO = "(demo, no download)"


@dataclass(frozen=True)
class Keys:
    """The nodes of a dressed picture, by their keys. garments: picture, Garment Encode, and what it is called, of each."""

    garments: Sequence[tuple[str, str, str]]
    positive: str
    negative: str
    size: str
    apply: str
    sampler: str
    decode: str
    save: str
    maps: str = ""

    @property
    def garment_frame(self) -> Frame:
        """The garments' frame."""
        return Frame("Garments", GARMENTS, [picture for picture, _, _ in self.garments])

    @property
    def person_frame(self) -> Frame:
        """The person's frame."""
        return Frame("Person", PERSON, [self.positive, self.negative])


def garments_column(keys: Keys) -> tuple[int, list[Lies]]:
    """The note, and the garments below it; three of them have no room for a note."""
    pictures = [Lies(picture, f"The {name}", TALL[len(keys.garments)]) for picture, _, name in keys.garments]
    if len(pictures) == 3:
        return 240, pictures
    return 230, [Lies(NOTE, "Read me", 190), replace(pictures[0], drop=20), *pictures[1:]]


def person_column(keys: Keys, above: Sequence[Lies] = (), width: int = 300) -> tuple[int, list[Lies]]:
    """Prompts, the reading of garments, and the size, below what an otherwise too wide row has no column for."""
    read = [Lies(encode, f"Read the {name}") for _, encode, name in keys.garments]
    prompts = [Lies(keys.positive, WHO, 150, 40 if above else 120), Lies(keys.negative, NOT, 88)]
    return width, [*above, *prompts, *read, Lies(keys.size, "Size", 106)]


def drawing_column(keys: Keys) -> tuple[int, list[Lies]]:
    """Dress, and draw."""
    return 250, [Lies(keys.apply, "Dress", 166 + 20 * len(keys.garments), 50), Lies(keys.sampler, "Draw", 262)]


def picture_column(keys: Keys, width: int = 380, height: int = 470) -> tuple[int, list[Lies]]:
    """The picture, as it is saved."""
    return width, [Lies(keys.decode, "Decode"), Lies(keys.save, "The picture", height, drop=30)]


def one_picture(name: str, keys: Keys, checkpoint: Lies = DOLL, file: Lies = FILE) -> Layout:
    """Garments on the left, the person in the middle, the picture on the right."""
    columns: Columns = [
        *(garments_column(keys), (240, [checkpoint, file]), person_column(keys), drawing_column(keys)),
        picture_column(keys),
    ]
    if len(keys.garments) == 3:
        columns[3][1].append(Lies(NOTE, "Read me", 220, drop=80))
    shown = [keys.save]
    if keys.maps:
        columns[-1][1].append(Lies(keys.maps, "Where each garment went", 400))
        shown.append(keys.maps)
    return Layout(name, columns, [keys.garment_frame, keys.person_frame, Frame("Picture", PICTURE, shown)])


def two_pictures() -> Layout:
    """The same garments twice, without a file and with one, side by side."""
    columns: Columns = [
        (220, [Lies(NOTE, "Read me", 190), Lies("3", "The shirt", 290, drop=20), Lies("4", "The skirt", 290)]),
        (220, [DOLL, NO_FILE, Lies("22", "AnyDressing: her file", 58, drop=610)]),
        (
            280,
            [
                *(Lies("8", WHO, 150, drop=120), Lies("9", NOT, 88)),
                *(Lies("5", "Read the shirt"), Lies("6", "Read the skirt"), Lies("10", "Size", 106)),
                *(Lies("25", "The shirt again"), Lies("26", "The skirt again")),
            ],
        ),
        (
            250,
            [
                *(Lies("7", "Dress, without a file", 206, drop=50), Lies("11", "Draw", 262)),
                *(Lies("27", "Dress, with the file, too", 206), Lies("31", "Draw the same")),
            ],
        ),
        (
            280,
            [
                Lies("12", "Decode"),
                Lies("13", "Without a file", 430, drop=30),
            ],
        ),
        (
            280,
            [
                Lies("32", "Decode the same"),
                Lies("33", "With the doll's file, too", 430, drop=30),
                Lies("14", "Where each garment went", 380),
            ],
        ),
    ]
    frames = [
        Frame("Garments", GARMENTS, ["3", "4"]),
        Frame("Person", PERSON, ["8", "9"]),
        Frame("The same person twice", PICTURE, ["13", "33", "14"]),
    ]
    return Layout(f"04 With a trained file and without {DEMO}", columns, frames)


TWO = Keys([("3", "5", "shirt"), ("4", "6", "skirt")], *("8", "9", "10", "7", "11", "12", "13"))
SWEATER_AND_JEANS = replace(TWO, garments=[("3", "5", "sweater"), ("4", "6", "jeans")])
SHIRT_AND_JEANS = replace(TWO, garments=[("3", "5", "shirt"), ("4", "6", "jeans")])


def before_and_after() -> Layout:
    """A picture of somebody, and the same picture in other clothes."""
    keys = SWEATER_AND_JEANS
    columns: Columns = [
        garments_column(keys),
        (220, [DOLL, FILE, Lies("10", "Size", 106, drop=400)]),
        (
            290,
            [
                *(
                    Lies("20", "Who is in the picture", 110, drop=40),
                    Lies("8", "Who, in her new clothes", 110, drop=40),
                ),
                *(Lies("9", NOT, 70), Lies("5", "Read the sweater"), Lies("6", "Read the jeans")),
                *(
                    Lies("24", "Nowhere"),
                    Lies("25", "Size of the white place"),
                    Lies("26", "Where it is drawn anew", 130),
                ),
            ],
        ),
        (250, [Lies("21", "Draw the picture"), Lies("7", "Dress", 206, drop=20), Lies("11", "Draw it anew", 262)]),
        (
            290,
            [
                *(Lies("22", "Decode"), Lies("23", "Before", 440, drop=30)),
                *(Lies("27", "Encode the picture"), Lies("28", "Keep what is black")),
            ],
        ),
        (290, [Lies("12", "Decode the new picture"), Lies("13", "After", 440, drop=30)]),
    ]
    frames = [
        keys.garment_frame,
        Frame("Person", PERSON, ["20", "8", "9"]),
        Frame("Before and after", PICTURE, ["23", "13"]),
    ]
    return Layout(f"05 Dress the person of a picture {DEMO}", columns, frames)


def weights_and_ranges() -> Layout:
    """The same outfit as it is, and with a weight and a range."""
    columns: Columns = [
        garments_column(TWO),
        person_column(TWO, [DOLL, FILE]),
        (
            250,
            [
                *(
                    Lies("20", "The shirt, a quarter of it", 130, drop=50),
                    Lies("21", "The skirt, in the first steps", 130),
                ),
                *(Lies("7", "Dress, as they are", 206, drop=20), Lies("27", "Dress, as set", 206)),
            ],
        ),
        (230, [Lies("11", "Draw", 262, drop=50), Lies("31", "Draw the same", 262, drop=60)]),
        (290, [Lies("12", "Decode"), Lies("13", "As they are", 440, drop=30)]),
        (290, [Lies("32", "Decode the same"), Lies("33", "With weight and range", 440, drop=30)]),
    ]
    frames = [
        *(TWO.garment_frame, TWO.person_frame),
        Frame("Settings", GARMENTS, ["20", "21"]),
        Frame("The same person twice", PICTURE, ["13", "33"]),
    ]
    return Layout(f"06 Weight and range of each garment {DEMO}", columns, frames)


def regions() -> Layout:
    """Two garments of one slot, each in a half of the picture."""
    keys = replace(TWO, garments=[("3", "5", "polo shirt"), ("4", "6", "hoodie")])
    columns: Columns = [
        garments_column(keys),
        person_column(keys, [DOLL, FILE]),
        (
            250,
            [
                *(Lies("20", "Nowhere"), Lies("21", "A half"), Lies("22", "The left half", 130)),
                *(Lies("23", "Nowhere, again"), Lies("24", "Another half"), Lies("25", "The right half", 130)),
            ],
        ),
        (240, [Lies("26", "The polo shirt, left", 380, drop=20), Lies("27", "The hoodie, right", 380)]),
        drawing_column(keys),
        picture_column(keys, 320, 450),
    ]
    frames = [
        *(keys.garment_frame, keys.person_frame),
        Frame("Regions", GARMENTS, ["20", "21", "22", "23", "24", "25", "26", "27"]),
        Frame("Picture", PICTURE, ["13"]),
    ]
    return Layout(f"07 Regions, two shirts in one {DEMO}", columns, frames)


def wardrobe() -> Layout:
    """Two garments, read and kept; and how they come back."""
    keys = SWEATER_AND_JEANS
    columns: Columns = [
        garments_column(keys),
        (220, [DOLL, FILE]),
        person_column(keys),
        (
            260,
            [
                *(Lies("20", "Keep the sweater", 250, drop=50), Lies("21", "Keep the jeans", 250)),
                Lies("22", "Next time, from here", 250, drop=40, off=True),
            ],
        ),
        drawing_column(keys),
        picture_column(keys, 340),
    ]
    frames = [
        *(keys.garment_frame, keys.person_frame),
        Frame("Wardrobe", GARMENTS, ["20", "21", "22"]),
        Frame("Picture", PICTURE, ["13"]),
    ]
    return Layout(f"08 Keep garments in a wardrobe {DEMO}", columns, frames)


def outfit_grid() -> Layout:
    """Every outfit in every scene."""
    names = (("3", "polo shirt"), ("4", "skirt"), ("5", "hoodie"), ("6", "shorts"))
    read = [Lies(key, f"Read the {name}") for key, (_, name) in zip(("7", "8", "9", "10"), names, strict=True)]
    columns: Columns = [
        (200, [Lies(key, f"The {name}", 230) for key, name in names[:2]] + [Lies(NOTE, "Read me", 210)]),
        (200, [Lies(key, f"The {name}", 230) for key, name in names[2:]] + [DOLL, FILE]),
        (
            300,
            [
                *(Lies("13", "Here", 110, drop=40), Lies("14", "And there", 110), Lies("15", NOT, 70)),
                *(*read, Lies("18", "Size", 106)),
            ],
        ),
        (240, [Lies("11", "Outfit 1", 206, drop=20), Lies("12", "Outfit 2", 206)]),
        (
            240,
            [
                *(Lies("16", "Outfits: 1, 1, 2, 2", 150), Lies("17", "Scenes: here, there, here, there", 150)),
                Lies("19", "Draw each", 262),
            ],
        ),
        (
            410,
            [Lies("20", "Decode"), Lies("21", "Side by side"), Lies("22", "Every outfit, every scene", 610, drop=30)],
        ),
    ]
    frames = [
        Frame("Garments", GARMENTS, ["3", "4", "5", "6"]),
        Frame("Scenes", PERSON, ["13", "14", "15"]),
        Frame("Pictures", PICTURE, ["22"]),
    ]
    return Layout(f"09 Outfits and scenes in one queue {DEMO}", columns, frames)


def larger() -> Layout:
    """A picture, and the same half as large again."""
    columns: Columns = [
        garments_column(TWO),
        person_column(TWO, [DOLL, FILE], 290),
        drawing_column(TWO),
        (
            270,
            [
                Lies("12", "Decode"),
                Lies("13", "Small", 400, drop=30),
                Lies("25", "One head: Deep Shrink", 250, drop=20),
            ],
        ),
        (240, [Lies("24", "Half as large again", 82), Lies("20", "Encode"), Lies("21", "Draw the details", 262)]),
        (320, [Lies("22", "Decode the large one"), Lies("23", "Large", 480, drop=30)]),
    ]
    frames = [*(TWO.garment_frame, TWO.person_frame), Frame("Small", PICTURE, ["13"]), Frame("Large", PICTURE, ["23"])]
    return Layout(f"10 Larger, without a second head {DEMO}", columns, frames)


def pose() -> Layout:
    """Dressed in a pose."""
    keys = SHIRT_AND_JEANS
    columns: Columns = [
        garments_column(keys),
        (
            240,
            [
                OWN,
                NO_FILE,
                Lies("20", "The pose: a drawn skeleton", 330, drop=30),
                Lies("21", "OpenPose ControlNet", 58),
            ],
        ),
        person_column(keys),
        (250, [Lies("22", "In this pose", 186, drop=20), *drawing_column(keys)[1]]),
        picture_column(keys),
    ]
    frames = [
        *(keys.garment_frame, keys.person_frame),
        *(Frame("Pose", GARMENTS, ["20", "21"]), Frame("Picture", PICTURE, ["13"])),
    ]
    return Layout("12 A pose by ControlNet (SD1.5)", columns, frames)


def face() -> Layout:
    """Dressed with a face."""
    keys = SHIRT_AND_JEANS
    columns: Columns = [
        garments_column(keys),
        (230, [OWN, NO_FILE, Lies("20", "The face: a portrait", 330, drop=30)]),
        person_column(keys, width=290),
        (240, [Lies("21", "FaceID models", 130, drop=20), Lies("22", "This face", 270)]),
        drawing_column(keys),
        picture_column(keys, 350),
    ]
    frames = [
        *(keys.garment_frame, keys.person_frame),
        *(Frame("Face", GARMENTS, ["20"]), Frame("Picture", PICTURE, ["13"])),
    ]
    return Layout("13 A face by IP-Adapter FaceID (SD1.5)", columns, frames)


def style() -> Layout:
    """Dressed in a style."""
    keys = SHIRT_AND_JEANS
    columns: Columns = [
        garments_column(keys),
        (260, [OWN, Lies("20", "Your style", 126), NO_FILE]),
        *(person_column(keys), drawing_column(keys)),
        picture_column(keys),
    ]
    frames = [keys.garment_frame, keys.person_frame, Frame("Picture", PICTURE, ["13"])]
    return Layout("14 A style LoRA (SD1.5)", columns, frames)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "01_two_garments": one_picture(f"01 Two garments {DEMO}", replace(TWO, maps="14")),
        "02_one_garment": one_picture(
            f"02 One garment, the rest from the prompt {DEMO}",
            Keys([("3", "4", "sweater")], *("6", "7", "8", "5", "9", "10", "11", "12")),
        ),
        "03_three_garments": one_picture(
            f"03 Three garments with a hat {DEMO}",
            Keys(
                [("3", "6", "hoodie"), ("4", "7", "shorts"), ("5", "8", "cap")],
                *("10", "11", "12", "9", "13", "14", "15", "16"),
            ),
        ),
        "04_with_and_without_file": two_pictures(),
        "05_dress_a_picture": before_and_after(),
        "06_weights_and_ranges": weights_and_ranges(),
        "07_regions": regions(),
        "08_wardrobe": wardrobe(),
        "09_outfit_grid": outfit_grid(),
        "10_larger": larger(),
        "11_own_checkpoint": one_picture("11 Your own SD1.5 checkpoint", SHIRT_AND_JEANS, OWN, NO_FILE),
        "12_pose": pose(),
        "13_face": face(),
        "14_style": style(),
        "15_app": replace(
            one_picture(f"15 As an app {DEMO}", replace(TWO, maps="14")),
            app=[
                ("3", "garment", "Her shirt"),
                ("4", "garment", "Her skirt or trousers"),
                ("8", "text", "Who she is, and where"),
                ("7", "strength", "How strongly they show"),
                ("11", "seed", "Seed"),
            ],
        ),
    }
)
"""By the name of the prompt in workflows/api."""
