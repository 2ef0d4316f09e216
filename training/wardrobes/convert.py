# SPDX-License-Identifier: GPL-3.0-or-later
"""From looks to a manifest: masks of where each garment shows, cut-outs of those that have no picture, and a sheet to look at.

    OUT/manifest.jsonl   sheet.png   masks/   left_out.jsonl   outcomes/

Pictures stay below the root. The same command goes on where it was stopped or killed; with more looks it makes only the new
ones, and looks that could not be used are tried again. What a hand changed since, a line of the manifest or a mask, stays as the hand left it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.digests import content_key
from ...anydressing_core.latents import Size
from ...anydressing_core.places import words_for
from ...anydressing_core.refusals import refusal
from ..data.check_sheet import MOST_DRAWN, draw_check_sheet, evenly
from ..data.manifest import MANIFEST, Manifest, file_stem, plain_caption, read_manifest
from ..data.opening import open_all
from ..data.parsing import Parser
from ..data.pictures import READ_AT_ONCE, BadPictureError
from ..picture_files import png_bytes
from ..progress import UNWATCHED, Course
from .looks import Layout, Look, apart, split_by_chance
from .masks import Shown, masks_of, needs_parser
from .outcomes import FOLDER, Outcome, Outcomes, read_lines, write_lines
from .report import Report

VERSION = 1
"""To be raised whenever this module makes other masks or lines of the same look."""

Mix = Literal["as-is", "paper"]
"""What is trained on where several garments have pictures: all of them, or one a line and the others cut out (Sec. 7.2)."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is converted. root: where the pictures are, only read. held_out: the share, where the layout has no split.

    captions: by id, over what the looks say. skip_bad: whether looks that cannot be used are passed over; more than
    `MOST_BAD` of them never are. resolution: of the sheet. rank, ranks: which of how many processes this is. parser: of what
    looks do not say.
    """

    layout: Layout
    root: Path
    out: Path
    resolution: Size
    mix: Mix = "as-is"
    held_out: float = 0.05
    captions: Mapping[str, str] | None = None
    skip_bad: bool = False
    rank: int = 0
    ranks: int = 1
    parser: Parser | None = None


def convert(plan: Plan, course: Course = UNWATCHED) -> Report:
    """Make what is missing of this process' share; whoever finds everything made writes the manifest.

    Raises ValueError for a root that is not laid out so, and for an OUT inside it; StoppedError, OSError.
    """
    if plan.out.resolve().is_relative_to(plan.root.resolve()):
        why = "What is made would be taken for what it is made of."
        raise refusal(f"The folder {str(plan.out)!r}", "lies in the data set", why, "name a folder outside of it.")
    found = split_by_chance(plan.layout.find(plan.root), plan.held_out, _draw)
    looks, shared = apart(found)
    outcomes = Outcomes(plan.out, plan.rank)
    there, keys = outcomes.read(), [_key(look, plan) for look in looks]
    written = {f"{name} {sha}" for one in there.values() for name, sha in (one.made or {}).items()}
    (plan.out / "masks").mkdir(parents=True, exist_ok=True)
    own = [
        (look, key)
        for place, (look, key) in enumerate(zip(looks, keys, strict=True))
        if place % plan.ranks == plan.rank and (key not in there or there[key].bad)
    ]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for some in course.batches(f"masks of {plan.layout.title}", own, READ_AT_ONCE):
            outcomes.add(list(pool.map(lambda one: _made(plan, one[0], one[1], written), some)))
    there = outcomes.read()
    missing = [key for key in keys if key not in there]
    if missing:
        return Report(plan.layout, len(looks), shared, [], waiting=len(missing))
    return _finish(plan, looks, shared, [there[key] for key in keys])


WEARING = "a person wearing "


def caption_of(words: Collection[str]) -> str:
    """What is said of somebody of whom only the garments are known. words: what each is called."""
    named = [word if word.endswith("s") else f"a {word}" for word in dict.fromkeys(words)]
    return WEARING + " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)


def is_template(caption: str) -> bool:
    """Whether `caption_of` says so, of whatever garments."""
    told = caption.removeprefix(WEARING).replace(" and ", ", ").split(", ")
    words = [word.removeprefix("a ") for word in told]
    return all(re.fullmatch(r"\w+", word) for word in words) and caption == caption_of(words)


def one_laid_flat(entry: Entry) -> list[Entry]:
    """The paper's triplets of somebody all of whose garments have pictures: a line for each, the others cut out (Sec. 7.2)."""
    flat = [place for place, garment in enumerate(entry["garments"]) if garment["image"] is not None]
    if len(entry["garments"]) < 2 or len(flat) < 2:
        return [entry]
    return [
        {
            **entry,
            "id": f"{entry['id']}-{Path(entry['garments'][kept]['mask']).stem.rpartition('_')[2]}",
            "garments": [
                one if place == kept else {**one, "image": None, "kind": "crop"}
                for place, one in enumerate(entry["garments"])
            ],
        }
        for kept in flat
    ]


# --- one look --------------------------------------------------------------------------------------------------------


def _key(look: Look, plan: Plan) -> str:
    """What a look is made of: its files, by size and time of the last change, and whoever parses it."""
    parsed_by = plan.parser.digest if plan.parser is not None and needs_parser(look) else ""
    names = [look.person, *(name for piece in look.pieces for name in (piece.picture, *piece.masks) if name)]
    names += [] if look.labels is None else [look.labels[0]]
    files = [_stamp(plan.root / name) for name in names]
    return content_key("look", VERSION, json.dumps(asdict(look), sort_keys=True), parsed_by, *files)


def _stamp(path: Path) -> str:
    try:
        told = path.stat()
    except OSError:
        return "not there"
    return f"{told.st_size} {told.st_mtime_ns}"


def _made(plan: Plan, look: Look, key: str, written: Collection[str]) -> Outcome:
    """Write a look's masks; then its line can be written."""
    try:
        shown = masks_of(look, plan.root, plan.parser)
    except BadPictureError as error:
        return Outcome(key, None, bad=(error.fault, error.file, error.why))
    dropped = tuple((one.piece.slot, one.dropped) for one in shown if one.dropped is not None and one.is_missed)
    made: dict[str, str] = {}
    garments: list[Entry] = []
    count = Counter[str]()
    for one in (one for one in shown if one.dropped is None):
        count[one.piece.slot] += 1
        which = count[one.piece.slot] if count[one.piece.slot] > 1 else ""
        name = f"masks/{file_stem(look.id)}_{one.piece.slot}{which}.png"
        made[name] = _write_mask(plan.out / name, name, one, written)
        kind = "crop" if one.piece.picture is None else "inshop"
        garments.append({"slot": one.piece.slot, "image": one.piece.picture, "kind": kind, "mask": name})
    if not garments:
        return Outcome(key, None, dropped)
    words = [one.word or words_for(one.piece.slot) for one in shown if one.dropped is None]
    caption = look.caption or caption_of(words)
    entry = {"id": look.id, "image": look.person, "caption": plain_caption(caption), "split": look.split}
    return Outcome(key, entry | {"garments": garments}, dropped, made=made)


def _write_mask(path: Path, name: str, shown: Shown, written: Collection[str]) -> str:
    """Write a mask, unless a hand changed the one that is there; the sha256 of what was made."""
    content = png_bytes(Image.fromarray(np.where(shown.mask, np.uint8(255), np.uint8(0))))
    sha = hashlib.sha256(content).hexdigest()
    there = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    if there is None or f"{name} {there}" in written:
        write_atomically(path, content)
    return sha


def _draw(text: str) -> float:
    return int(content_key("held out", text)[:8], 16) / 16**8


# --- all of them -----------------------------------------------------------------------------------------------------


def _finish(plan: Plan, looks: Sequence[Look], shared: int, outcomes: Sequence[Outcome]) -> Report:
    bad = [(look, one.bad) for look, one in zip(looks, outcomes, strict=True) if one.bad is not None]
    write_lines(plan.out / "left_out.jsonl", [{"id": look.id, "file": b[1], "why": b[2]} for look, b in bad])
    entries = [entry for one in outcomes if one.entry is not None for entry in _entries(plan, one.entry)]
    report = Report(plan.layout, len(looks), shared, entries, [one.dropped for one in outcomes], bad)
    if not report.usable(skip_bad=plan.skip_bad):
        return report
    by_hand = _write_manifest(plan.out, entries)
    _draw_sheet(plan)
    return replace(report, by_hand=by_hand)


def _entries(plan: Plan, entry: Entry) -> list[Entry]:
    caption = (plan.captions or {}).get(entry["id"])
    entry = entry if caption is None else {**entry, "caption": plain_caption(caption)}
    return one_laid_flat(entry) if plan.mix == "paper" else [entry]


def _write_manifest(out: Path, entries: Sequence[Entry]) -> int:
    """Write the manifest; lines that a hand changed or took out since the last time stay so. Returns how many those are."""
    path, ours = out / MANIFEST, out / FOLDER / MANIFEST
    before, now = ({line["id"]: line for line in read_lines(one)} for one in (ours, path))
    by_hand = {name for name, entry in before.items() if path.exists() and now.get(name) != entry}
    by_hand |= now.keys() - before.keys()
    fresh = {entry["id"]: entry for entry in entries}
    lines = [
        now[name] if name in by_hand else entry for name, entry in fresh.items() if name not in by_hand - now.keys()
    ]
    lines += [entry for name, entry in now.items() if name in by_hand - fresh.keys()]
    write_lines(path, lines)
    write_lines(ours, entries)
    return len(by_hand)


def _draw_sheet(plan: Plan) -> None:
    whole = read_manifest(plan.out / MANIFEST, plan.root)
    some = Manifest(whole.folder, evenly(whole.items, MOST_DRAWN), whole.digest, whole.root)
    people = [one for one in open_all(some, plan.resolution, UNWATCHED) if one.usable]
    notes = [note for one in people for note in one.notes]
    sheet = draw_check_sheet(plan.out / MANIFEST, plan.resolution, people, notes)
    write_atomically(plan.out / "sheet.png", png_bytes(sheet))
