# SPDX-License-Identifier: GPL-3.0-or-later
"""DressCode-MR, as FastFit's authors publish it: a person and all that she wears laid flat.

train.jsonl  test.jsonl          {"person": "person/000000_0.jpg", "upper": ..., "lower": ..., "overall": ..., ...}
annotations/atr/000000_0.png     ATR's classes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...anydressing_core.refusals import refusal
from ..data.manifest import safe_relative_path
from ..text_files import read_text
from .looks import Layout, Look, Piece, Split, not_there

LISTS: Mapping[str, Split] = MappingProxyType({"train.jsonl": "train", "test.jsonl": "held_out"})
SLOTS = {"upper": "upper", "lower": "lower", "overall": "dress", "shoe": "shoes", "bag": "bag"}


def find(root: Path) -> list[Look]:
    """Every record of its lists; those of test are held out."""
    looks = [
        _look(name, number, line, split)
        for name, split in LISTS.items()
        if (root / name).is_file()
        for number, line in enumerate(read_text(root / name).split("\n"), 1)
        if line.strip()
    ]
    if not looks:
        wanted = dict.fromkeys(LISTS, "a list of records")
        raise not_there(root, wanted, "name the folder that holds train.jsonl and person.")
    return looks


def _look(name: str, number: int, line: str, split: Split) -> Look:
    try:
        record: dict[str, Any] = json.loads(line)
        person = safe_relative_path(record["person"])
        pieces = [Piece(slot, safe_relative_path(record[key])) for key, slot in SLOTS.items() if record.get(key)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"It should be a record with person and garments: {error}."
        raise refusal(f"Line {number} of {name!r}", "cannot be read", why, "copy the list again.") from error
    stem = Path(person).stem
    return Look(f"mr-{stem}", person, (*pieces, Piece("hat")), (f"annotations/atr/{stem}.png", "atr"), split=split)


LAYOUT = Layout("DressCode-MR", find, "as DressCode: academic use only, on request")
