# SPDX-License-Identifier: GPL-3.0-or-later
"""One's own photographs, as people keep them:

    people/0001.jpg        a person, whole
    people/0001.txt        her caption, if anybody wrote one
    people/0001-upper.png  a mask of where her upper garment shows, if anybody made one
    upper/0001.jpg         the same garment laid flat, if there is a picture; so lower, dress, hat, or any other kind

Whatever has no mask is found by a parser; whatever has no picture of its own is cut out of the person's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ...anydressing_core.digests import content_key
from ...anydressing_core.refusals import refusal
from ..data.manifest import LONGEST_ID
from ..text_files import read_text
from .looks import Layout, Look, Piece, not_there

PEOPLE = "people"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SEEN = ("upper", "lower", "dress", "hat")
"""What is looked for on everybody."""


def find(root: Path) -> list[Look]:
    """Everybody in `people`."""
    people = _by_stem(_pictures(root / PEOPLE))
    masks = {stem: slot for stem in people for slot in [_slot_of_mask(stem, people)] if slot is not None}
    slots = [path.name for path in sorted(root.iterdir()) if path.is_dir() and _is_slot(path.name)]
    garments = {slot: _by_stem(_pictures(root / slot)) for slot in slots}
    if not people:
        raise not_there(root, {f"{PEOPLE}/": "pictures of people"}, "put their pictures into a folder of that name.")
    lonely = [path for found in garments.values() for stem, path in found.items() if stem not in people]
    if lonely:
        named = ", ".join(str(path.relative_to(root)) for path in lonely[:3])
        why = f"{len(lonely)} such pictures, {named} among them: a garment has the name of the person who wears it."
        raise refusal("A picture of a garment", "is nobody's", why, f"name it as her picture in {PEOPLE}.")
    return [_look(root, stem, path, masks, people, garments) for stem, path in people.items() if stem not in masks]


def _look(
    root: Path,
    stem: str,
    person: Path,
    masks: dict[str, str],
    people: dict[str, Path],
    garments: dict[str, dict[str, Path]],
) -> Look:
    own = {slot: people[f"{stem}-{slot}"] for slot in {*masks.values()} if f"{stem}-{slot}" in masks}
    laid = {slot: found[stem] for slot, found in garments.items() if stem in found}
    pieces = [
        Piece(
            slot,
            str(laid[slot].relative_to(root)) if slot in laid else None,
            (str(own[slot].relative_to(root)),) if slot in own else (),
        )
        for slot in dict.fromkeys((*SEEN, *sorted(laid), *sorted(own)))
    ]
    told = person.with_suffix(".txt")
    caption = (read_text(told).strip() or None) if told.is_file() else None
    return Look(_id_of(stem), str(person.relative_to(root)), tuple(pieces), caption=caption)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other is not path:
            why = f"{other.name} and {path.name} would be the same person."
            raise refusal(f"In {str(path.parent)!r} two pictures", "have one name", why, "rename one of them.")
    return found


def _slot_of_mask(stem: str, people: dict[str, Path]) -> str | None:
    """The slot of which a picture is a mask, when it is called as a person and a slot."""
    person, dash, slot = stem.rpartition("-")
    return slot if dash and person in people and _is_slot(slot) and not slot.isdigit() else None


def _is_slot(name: str) -> bool:
    return name != PEOPLE and re.fullmatch(r"[a-z0-9_]+", name) is not None


def _id_of(stem: str) -> str:
    """An id of any file name: what cannot stand in one becomes _, and a digest keeps two such apart."""
    plain = unicodedata.normalize("NFC", stem).strip()
    kept = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in plain)[: LONGEST_ID - 9]
    return kept if kept == plain else f"{kept}-{content_key('id', stem)[:8]}"


LAYOUT = Layout("Own photographs", find, "yours to know")
