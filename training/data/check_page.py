# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of `data check`: one HTML file with thumbnails, masks outlined, and a filter for each finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...anydressing_core.heat_maps import COLOURS
from ...anydressing_core.latents import Size
from ..pages import page
from ..picture_files import embedded_jpeg
from .check_sheet import draw_person, evenly
from .findings import KINDS, Note
from .opening import OpenedPerson, by

MOST_FOUND, MOST_CLEAN = 400, 100
"""People with findings, and others, whom a page shows; more would be slow to open."""

THUMBNAIL = 240


def check_page(
    manifest: Path,
    resolution: Size,
    people: Sequence[OpenedPerson],
    notes: Sequence[Note],
    facts: Sequence[tuple[str, str]],
) -> tuple[str, int]:
    """The page, and how many people it shows."""
    found = {note.person for note in notes}
    marked = [person for person in people if person.item.id in found]
    clean = [person for person in people if person.item.id not in found]
    shown = {id(one) for one in (*evenly(marked, MOST_FOUND), *evenly(clean, MOST_CLEAN))}
    cards = [_card(person, resolution, notes) for person in people if id(person) in shown]
    counts = Counter(note.kind for note in notes)
    findings = [
        {"kind": name, "level": kind.level, "what": kind.what, "remedy": kind.remedy, "count": counts[name]}
        for name, kind in KINDS.items()
        if counts[name]
    ]
    everybody = (
        "everybody" if len(cards) == len(people) else f"at most {MOST_FOUND} with findings and {MOST_CLEAN} others"
    )
    html = page(
        "check.html",
        title=f"{manifest.parent.name}/{manifest.name}",
        drawn=len(cards),
        total=len(people),
        which=everybody,
        resolution=by(resolution),
        facts=facts,
        findings=findings,
        cards=cards,
    )
    return html, len(cards)


def _card(person: OpenedPerson, resolution: Size, notes: Sequence[Note]) -> dict[str, object]:
    own = [note for note in notes if note.person == person.item.id]
    return {
        "id": person.item.id,
        "split": person.item.split,
        "caption": person.item.caption,
        "kinds": sorted({note.kind for note in own}),
        "notes": [{"kind": note.kind, "level": KINDS[note.kind].level, "text": note.text} for note in own],
        "slots": [
            {"name": one.worn.slot if one.worn.image else f"{one.worn.slot} (cut out)", "colour": _css(place)}
            for place, one in enumerate(person.garments)
        ],
        "picture": _thumbnail(person, resolution) if person.usable else None,
    }


def _thumbnail(person: OpenedPerson, resolution: Size) -> str:
    drawn = draw_person(person, resolution)
    size = (round(drawn.width * THUMBNAIL / drawn.height), THUMBNAIL)
    return embedded_jpeg(drawn.resize(size, Image.Resampling.LANCZOS), quality=80)


def _css(place: int) -> str:
    red, green, blue = COLOURS[place % len(COLOURS)]
    return f"rgb({red}, {green}, {blue})"
