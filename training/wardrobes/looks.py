# SPDX-License-Identifier: GPL-3.0-or-later
"""What every layout is read into: looks, each one person in her garments, as they lie below a root that is only read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...anydressing_core.refusals import refusal
from ..text_files import read_text

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Piece:
    """One garment. Paths are below the root.

    picture: the garment laid flat; None where it is seen on the person alone. masks: pictures that are white where it shows
    on her; none where the look's labels tell.
    """

    slot: str
    picture: str | None = None
    masks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """One person. labels: a map of what each pixel of her picture is, and the system of its classes (`labels.SYSTEMS`).

    caption: None where nobody wrote one. split: as the data set has it; None where it has none.
    """

    id: str
    person: str
    pieces: tuple[Piece, ...]
    labels: tuple[str, str] | None = None
    caption: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out. find: its looks below a root, in an order that does not change. licence: what it says of
    itself.
    """

    title: str
    find: Callable[[Path], Sequence[Look]]
    licence: str


def apart(looks: Sequence[Look]) -> tuple[list[Look], int]:
    """Looks of train that share neither person nor garment with held_out, those of held_out; and how many were left out."""
    held = {name for look in looks if look.split == "held_out" for name in _identities(look)}
    kept = [look for look in looks if look.split == "held_out" or not held.intersection(_identities(look))]
    return kept, len(looks) - len(kept)


def split_by_chance(looks: Sequence[Look], share: float, draw: Callable[[str], float]) -> list[Look]:
    """Give looks that have no split one: whoever is linked by a garment or a person stays together.

    share: of groups that are held out. draw: a number in [0, 1) that is always the same for the same text.
    """
    leader: dict[str, str] = {}

    def led_by(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for look in looks:
        first, *rest = _identities(look)
        for name in rest:
            low, high = sorted((led_by(first), led_by(name)))
            leader[high] = low
    return [
        replace(look, split=look.split or ("held_out" if draw(led_by(look.person)) < share else "train"))
        for look in looks
    ]


def list_of_pairs(path: Path, columns: Sequence[int]) -> list[tuple[str, ...]]:
    """The words of each line of a list of pairs. columns: how many a line may have. Raises ValueError naming the line."""
    pairs: list[tuple[str, ...]] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        words = tuple(line.split())
        if words and len(words) not in columns:
            wanted = " or ".join(map(str, columns))
            why = f"It has {len(words)} words, where {wanted} are expected: person, garment."
            raise refusal(f"Line {number} of {path.name!r}", "cannot be read", why, "copy the list again.")
        if words:
            pairs.append(words)
    return pairs


def not_there(root: Path, wanted: Mapping[str, str], remedy: str) -> ValueError:
    """What is said when a root holds nothing of a layout. wanted: names that were looked for, and what they are."""
    names = "; ".join(f"{name} ({what})" for name, what in wanted.items())
    return refusal(f"The folder {str(root)!r}", "is not laid out so", f"Looked for: {names}.", remedy)


def _identities(look: Look) -> list[str]:
    return [look.person, *(piece.picture for piece in look.pieces if piece.picture is not None)]
