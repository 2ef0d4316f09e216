# SPDX-License-Identifier: GPL-3.0-or-later
"""DressCode, as its authors publish it (aimagelab/dress-code): a person and one garment laid flat, in three categories.

    upper_body | lower_body | dresses
        images/000001_0.jpg      the person
        images/000001_1.jpg      the garment
        label_maps/000001_4.png  ATR's classes
        train_pairs.txt  test_pairs_paired.txt  test_pairs_unpaired.txt

The other garment of a person is seen on her alone: upper_body gives upper laid flat and lower cut out, lower_body the other way
round (Sec. 7.2). Lists of pairs at the root have a third column, the category's number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from .looks import Layout, Look, Piece, Split, list_of_pairs, not_there

CATEGORIES: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "upper_body": ("upper", ("lower", "hat")),
        "lower_body": ("lower", ("upper", "hat")),
        "dresses": ("dress", ("hat",)),
    }
)
"""Category -> the slot of its garments, and those of what else may be seen, in the order of the root's numbers."""

LISTS: Mapping[str, Split] = MappingProxyType({"train_pairs.txt": "train", "test_pairs_paired.txt": "held_out"})


def find(root: Path) -> list[Look]:
    """Every person of its lists. Test pairs are held out; the unpaired ones name the same people in others' garments."""
    listed: dict[tuple[str, str], Split] = {(category, person): split for category, person, split in _listed(root)}
    if not listed:
        wanted = {f"{category}/train_pairs.txt": "a list of pairs" for category in CATEGORIES}
        raise not_there(root, wanted, "name the folder that holds upper_body, lower_body and dresses.")
    return [_look(category, person, split) for (category, person), split in sorted(listed.items())]


def _listed(root: Path) -> Iterator[tuple[str, str, Split]]:
    for name, split in LISTS.items():
        for category in CATEGORIES:
            for person, *_ in _pairs(root / category / name, (2, 3)):
                yield category, person, split
        for person, _, number in _pairs(root / name, (3,)):
            yield list(CATEGORIES)[int(number)], person, split


def _pairs(path: Path, columns: Sequence[int]) -> list[tuple[str, ...]]:
    return list_of_pairs(path, columns) if path.is_file() else []


def _look(category: str, person: str, split: Split) -> Look:
    number, suffix = person.rpartition("_")[0], Path(person).suffix
    slot, seen = CATEGORIES[category]
    return Look(
        f"{category}-{number}",
        f"{category}/images/{person}",
        (Piece(slot, f"{category}/images/{number}_1{suffix}"), *map(Piece, seen)),
        (f"{category}/label_maps/{number}_4.png", "atr"),
        split=split,
    )


LAYOUT = Layout(
    "DressCode",
    find,
    "academic use only, on request; weights that are trained on it come under the same terms",
)
