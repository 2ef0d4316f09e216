# SPDX-License-Identifier: GPL-3.0-or-later
"""Who imports whom, read from the source, and drawn: docs/architecture.svg. `benchmarks.pages` writes it.

Imports inside functions count as any other, so nobody can hide one there.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

PACK = "comfyui_anydressing"
TOPS = ("anydressing_core", "nodes", "training", "dev", "benchmarks")
GROUND = "training"
"""What the few files are called that stand beside the wings of training; its command line is a room of its own."""

Arrows = Mapping[str, set[str]]
"""Who -> whom: modules by their paths below the checkout, or rooms by their names."""


def module_arrows(root: Path) -> dict[str, set[str]]:
    """Every module of ours with the modules of ours that it imports, wherever in it."""
    files = {path.relative_to(root).as_posix() for top in TOPS for path in (root / top).rglob("*.py")}
    return {file: set(_imported(file, (root / file).read_text(encoding="utf-8"), files)) for file in sorted(files)}


def room_of(file: str) -> str:
    """The room of a module: a wing of training such as `training.run`, one of its ground files' `training`, or a layer."""
    parts = Path(file).parent.parts
    if file == "training/cli.py":
        return "training.cli"
    if parts[0] != "training":
        return parts[0]
    return ".".join(parts[: 3 if parts[1:2] == ("paper_doll",) else 2])


def room_arrows(modules: Arrows) -> dict[str, set[str]]:
    """The arrows between rooms; what stays inside of one is left out."""
    arrows: dict[str, set[str]] = {room_of(file): set() for file in modules if not file.endswith("__init__.py")}
    for file, targets in modules.items():
        if room_of(file) in arrows:
            arrows[room_of(file)] |= {room_of(target) for target in targets} - {room_of(file)}
    return arrows


def circles(arrows: Arrows) -> list[str]:
    """Imports that come back to where they began, each as `a -> b -> a`."""
    found: list[str] = []
    finished: set[str] = set()

    def follow(one: str, path: list[str]) -> None:
        if one in path:
            found.append(" -> ".join([*path[path.index(one) :], one]))
        elif one not in finished:
            for other in sorted(arrows.get(one, ())):
                follow(other, [*path, one])
            finished.add(one)

    for start in sorted(arrows):
        follow(start, [])
    return found


def floors(arrows: Arrows) -> dict[str, int]:
    """How high each room lies: one above the highest that it imports."""
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max((height(other) for other in arrows.get(room, ())), default=-1)
        return heights[room]

    for room in arrows:
        height(room)
    return heights


def _imported(file: str, source: str, files: set[str]) -> Iterator[str]:
    package = list(Path(file).parent.parts)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom):
            continue
        named = (node.module or "").split(".") if node.module else []
        if node.level:
            base = [*package[: len(package) - node.level + 1], *named]
        elif named[:1] == [PACK]:
            base = named[1:]
        else:
            continue
        for name in node.names:
            places = ("/".join([*base, name.name]), "/".join(base))
            candidates = [f"{place}{end}" for place in places for end in (".py", "/__init__.py")]
            target = next((one for one in candidates if one in files), None)
            if target is not None and target != file:
                yield target


# ---- the drawing ----------------------------------------------------------------------------------------------------

WORDS = {
    "anydressing_core": "the method: tensors in, tensors out",
    "nodes": "core in ComfyUI",
    "training": "hardware, progress, pictures, sheets",
    "training.run": "any run: configuration, loop, chance",
    "training.base": "the frozen base model, from a file",
    "training.losses": "Eq. 9-15, DISTS",
    "training.data": "manifest, pictures, cache, data check",
    "training.wardrobes": "photographs and data sets in",
    "training.model": "adapter, both roles, sampling",
    "training.dressing": "what `train` trains: all of it joined",
    "training.evaluation": "benches, figures, tables, survey",
    "training.paper_doll.world": "paints people",
    "training.paper_doll.networks": "her base model, parser, judges",
    "training.paper_doll.bench": "dresses and measures her",
    "training.commands": "sample, evaluate, doctor, data",
    "training.cli": "arguments in, exit status out",
    "benchmarks": "speed, memory, evidence, this map",
    "dev": "a real ComfyUI, found and started",
}
PAPER, INK, GREY, ROOM, LINE = "#faf9f6", "#26241f", "#807c76", "#ffffff", "#b9b2a6"
BESIDE = {"nodes": 0, "benchmarks": 1, "dev": 1}
"""The rooms that stand beside the house: 0 on its left, 1 on its right."""
COLUMN, ROOM_WIDTH, ROOM_HEIGHT, FLOOR, MARGIN = 270, 244, 58, 104, 34


def draw(modules: Arrows) -> str:
    """The house as an SVG: a room for each wing, on floors, with the arrows that no other arrows imply."""
    arrows = room_arrows(modules)
    heights = floors(arrows)
    rows: dict[int, list[str]] = defaultdict(list)
    for room in sorted(arrows):
        if room not in BESIDE:
            rows[heights[room]].append(room)
    widest = max(map(len, rows.values()))
    width, height = 2 * MARGIN + (widest + 2) * COLUMN, 2 * MARGIN + (max(heights.values()) + 1) * FLOOR
    lefts = {room: MARGIN + BESIDE[room] * (widest + 1) * COLUMN for room in BESIDE}
    for rooms in rows.values():
        first = MARGIN + COLUMN + (widest - len(rooms)) * COLUMN / 2
        lefts |= {room: first + place * COLUMN for place, room in enumerate(rooms)}
    places = {room: (lefts[room], height - MARGIN - heights[room] * FLOOR - ROOM_HEIGHT) for room in arrows}
    counts = {
        room: sum(room_of(file) == room for file in modules if not file.endswith("__init__.py")) for room in arrows
    }
    lines = [_arrow(places[room], places[other]) for room in arrows for other in sorted(_direct(room, arrows))]
    boxes = [_box(room, places[room], counts[room]) for room in arrows]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    paper = f'<rect width="{width}" height="{height}" fill="{PAPER}"/>'
    return "\n".join([head, paper, *lines, *boxes, "</svg>"]) + "\n"


def _direct(room: str, arrows: Arrows) -> set[str]:
    """The rooms that a room imports and none of its other imports leads to."""

    def beyond(one: str) -> set[str]:
        return set().union(*({other} | beyond(other) for other in arrows[one]), set())

    return arrows[room] - set().union(*(beyond(other) for other in arrows[room]), set())


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x, y = start[0] + ROOM_WIDTH / 2, start[1] + ROOM_HEIGHT
    to_x, to_y = end[0] + ROOM_WIDTH / 2, end[1] - 3
    middle, bow = (y + to_y) / 2, 0.0
    if abs(x - to_x) < ROOM_WIDTH and to_y - y > FLOOR:  # around the rooms that lie between
        bow = 0.72 * ROOM_WIDTH if x >= to_x else -0.72 * ROOM_WIDTH
    path = f"M{x:g} {y:g} C{x + bow:g} {middle:g} {to_x + bow:g} {middle:g} {to_x:g} {to_y:g}"
    tip = f"M{to_x - 4:g} {to_y - 6:g} L{to_x:g} {to_y:g} L{to_x + 4:g} {to_y - 6:g}"
    return f'<path d="{path} {tip}" fill="none" stroke="{LINE}" stroke-width="1.4"/>'


def _box(room: str, place: tuple[float, float], files: int) -> str:
    (x, y), name = place, room.removeprefix("training.")
    name = "training: the ground" if room == GROUND else name
    shape = (
        f'<rect x="{x:g}" y="{y:g}" width="{ROOM_WIDTH}" height="{ROOM_HEIGHT}" rx="7" fill="{ROOM}" stroke="{LINE}"/>'
    )
    title = f'<text x="{x + 12:g}" y="{y + 24:g}" font-size="15" fill="{INK}">{escape(name)}</text>'
    count = f'<text x="{x + ROOM_WIDTH - 12:g}" y="{y + 24:g}" font-size="12" fill="{GREY}" text-anchor="end">{files}</text>'
    words = f'<text x="{x + 12:g}" y="{y + 44:g}" font-size="11.5" fill="{GREY}">{escape(WORDS.get(room, ""))}</text>'
    return shape + title + count + words
