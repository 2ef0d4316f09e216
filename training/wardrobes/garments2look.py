# SPDX-License-Identifier: GPL-3.0-or-later
"""Garments2Look (arXiv 2603.14153), as it is published: looks of 3 to 12 garments from two sources, mytheresa and polyvore.

    SOURCE_outfit_v1.1_2512.json (or v1.0)    look -> {"gender", "section": train | test, "outfit": {garment: its name}, ...}
    SOURCE_image_v1.0_2512.json               garment -> {"type", "images": {"product": {"full": [file, ...]}}}
    SOURCE/looks-resized/GENDER/LOOK.png      the person; or .jpg
    SOURCE/annotations/mask-sam3-resized/GENDER/LOOK/GARMENT-0.png, -1 ...   where a garment shows
    mytheresa/images/GARMENT/FILE, polyvore/images/GENDER/TYPE/GARMENT.jpg   the garment laid flat

A garment whose id begins with U has no picture: it is cut out of the person's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...anydressing_core.refusals import refusal
from ..data.manifest import safe_relative_path
from ..text_files import read_text
from .looks import Layout, Look, Piece, Split, not_there

SOURCES = ("mytheresa", "polyvore")
SPLITS: dict[str, Split] = {"train": "train", "test": "held_out"}

KINDS = {
    "dress": r"dress(es)?|gowns?|jumpsuits?|playsuits?|overalls?|rompers?",
    "outer": r"coats?|jackets?|blazers?|parkas?|trench\w*|capes?|gilets?|outerwear",
    "lower": r"jeans|pants|trousers|shorts|skirts?|leggings|bottoms?|chinos",
    "hat": r"hats?|caps?|beanies?|berets?|helmets?|headbands?",
    "shoes": r"shoes?|boots?|loafers?|sandals?|sneakers?|espadrilles|flats|heels|mules|pumps|slippers",
    "bag": r"bags?|wallets?|backpacks?|briefcases?|clutch(es)?|pouch(es)?|totes?",
    "upper": r"tops?|shirts?|t-shirts?|tees?|blouses?|sweaters?|cardigans?|knitwear|hoodies?|sweatshirts?|polos?|vests?|tunics?"
    r"|bodysuits?|camisoles?|pullovers?|jumpers?|turtlenecks?",
}
"""Slot -> words of a garment's type or name, the first slot that fits; what fits none is jewellery and the like."""


def find(root: Path) -> list[Look]:
    """Every look whose picture is there; those of section test are held out."""
    looks = [look for source in SOURCES for look in _looks(root, source)]
    if not looks:
        wanted = {f"{source}_outfit_v1.1_2512.json": "a list of looks" for source in SOURCES}
        raise not_there(root, wanted, "name the folder that holds these files and mytheresa or polyvore, unpacked.")
    return looks


def slot_of(*names: str) -> str | None:
    """The slot of a garment by its type or, where that says nothing, by its name."""
    for name in names:
        for slot, words in KINDS.items():
            # of "black wool dress shirt" the last word tells, of "dress with belt" the first that is a garment
            if re.search(rf"\b({words})\W*$", name.lower()) or re.search(
                rf"\b({words})\b (with|in|and)\b", name.lower()
            ):
                return slot
    return None


def _looks(root: Path, source: str) -> Iterator[Look]:
    lists = [root / f"{source}_outfit_v{version}_2512.json" for version in ("1.1", "1.0")]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        return
    outfits, garments = _object(path), _object(root / f"{source}_image_v1.0_2512.json")
    for name, outfit in sorted(outfits.items()):
        people = [f"{source}/looks-resized/{outfit.get('gender')}/{name}.{suffix}" for suffix in ("png", "jpg")]
        person = next((one for one in people if (root / safe_relative_path(one)).is_file()), None)
        split = SPLITS.get(outfit.get("section", ""))
        if person is not None and split is not None:
            pieces = tuple(_pieces(root, source, name, outfit, garments))
            yield Look(name, person, pieces, caption=_caption(outfit), split=split)


def _pieces(root: Path, source: str, look: str, outfit: dict[str, Any], garments: dict[str, Any]) -> Iterator[Piece]:
    gender = outfit.get("gender")
    folder = root / safe_relative_path(f"{source}/annotations/mask-sam3-resized/{gender}/{look}")
    for garment, name in _worn(outfit).items():
        known = garments.get(garment, {})
        slot = slot_of(known.get("type", ""), name)
        masks = sorted(folder.glob(f"{garment}-*.png")) if slot and re.fullmatch(r"\w+", garment) else []
        if slot is None or not masks:
            continue
        yield Piece(slot, _picture(source, gender, garment, known), tuple(str(one.relative_to(root)) for one in masks))


def _picture(source: str, gender: object, garment: str, known: dict[str, Any]) -> str | None:
    if garment.startswith("U") or not known:
        return None
    if source == "polyvore":
        return safe_relative_path(f"{source}/images/{gender}/{known.get('type')}/{garment}.jpg")
    files = known.get("images", {}).get("product", {}).get("full", [])
    return safe_relative_path(f"{source}/images/{garment}/{files[0]}") if files else None


def _worn(outfit: dict[str, Any]) -> dict[str, str]:
    """Garment -> its name, however the list's version has it."""
    worn = outfit.get("outfit", {})
    if isinstance(worn, dict):
        return worn
    return {name: words for one in outfit.get("outfit_all", []) for name, words in one.items() if name in worn}


def _caption(outfit: dict[str, Any]) -> str | None:
    told = outfit.get("outfit_info", {}).get("outfit_description", "")
    return told.strip() or None


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise refusal(f"{path.name!r}", "cannot be read", f"{error}.", "unpack the data set again.") from error
    if not isinstance(found, dict):
        raise refusal(f"{path.name!r}", "is not a list of looks", "It is no JSON object.", "unpack the data set again.")
    return found


LAYOUT = Layout(
    "Garments2Look",
    find,
    "its card says Apache-2.0; the pictures come from shops, which the card may not speak for",
)
