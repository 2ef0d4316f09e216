# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a data set, and the report that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...anydressing_core.word_table import POSITIONS
from ..defaults import MOST_BAD

Level = Literal["problem", "warning"]

MOST_TOKENS = POSITIONS - 2  # without CLIP's first and last
MOST_OVERLAP = 0.05  # of the smaller mask
MASK_AREA = (0.01, 0.6)  # of the picture
MOST_GREY = 0.02  # of a mask; smooth outlines have less
MOST_CROPPED = 0.1  # of a picture
MOST_ENLARGED = 2.0

EXAMPLES = 3


@dataclass(frozen=True)
class FindingKind:
    """A sort of finding. what: completes a list's heading. remedy: what to do about it."""

    level: Level
    what: str
    remedy: str


KINDS = {
    "unreadable": FindingKind(
        "problem",
        "files that are missing, damaged or no pictures",
        "copy or export them again, as PNG or JPEG, or take these people out of the manifest.",
    ),
    "link": FindingKind(
        "problem", "files behind a link that leads out of the data folder or nowhere", "copy them there."
    ),
    "mask size": FindingKind(
        "problem",
        "masks of another size than their picture",
        "export both together: a mask lies on the upright picture, pixel on pixel.",
    ),
    "label map": FindingKind(
        "problem",
        "maps of labels in place of masks",
        "make one mask in black and white for each garment out of them.",
    ),
    "empty mask": FindingKind(
        "problem",
        "empty masks",
        "paint white where the garment shows, or leave the garment out of the manifest.",
    ),
    "cut off": FindingKind(
        "problem",
        "garments that are no longer seen once the picture is cropped",
        "train at a resolution shaped like the pictures, or leave these garments out of the manifest.",
    ),
    "blank": FindingKind(
        "problem",
        "garment pictures on which no garment is seen",
        "name the right pictures; a garment differs from the ground that it lies on.",
    ),
    "leak": FindingKind(
        "warning",
        "people of held_out who are in train, too",
        "keep each in one split; what is measured on held_out is worth nothing otherwise.",
    ),
    "shared garment": FindingKind(
        "warning",
        "garments of held_out that are in train, too",
        "give all wearers of a garment the same split, or held_out measures memory instead of skill.",
    ),
    "duplicate": FindingKind(
        "warning",
        "people whose picture another one of their split has",
        "keep one of each, unless they are to count twice; all garments of a picture stand in one line.",
    ),
    "same picture": FindingKind(
        "warning",
        "garment pictures that are a person's picture",
        "name the picture of the garment laid flat; from the person herself only copying is learned.",
    ),
    "ground": FindingKind(
        "warning",
        "garment pictures whose garment cannot be told from the ground",
        "use pictures on white or on any plain ground, or make the ground transparent; else the ground is learned along.",
    ),
    "no in-shop": FindingKind(
        "warning",
        "no garment with a picture of its own",
        "add pictures of garments laid flat. Cut-outs already lie as they are worn: expect weaker results with pictures"
        " from a shop.",
    ),
    "overlap": FindingKind(
        "warning",
        f"pairs of masks of one person that share more than {MOST_OVERLAP:.0%} of the smaller one",
        "let every mask show only what is seen of its garment, not what another garment covers.",
    ),
    "small mask": FindingKind(
        "warning",
        f"masks that cover less than {MASK_AREA[0]:.0%} of the picture",
        "look whether they are complete; of so little, little is learned.",
    ),
    "large mask": FindingKind(
        "warning",
        f"masks that cover more than {MASK_AREA[1]:.0%} of the picture",
        "look whether they show the whole person, or the background instead of the garment.",
    ),
    "grey mask": FindingKind(
        "warning",
        f"masks that are grey in more than {MOST_GREY:.0%} of their pixels",
        "export them in black and white; brighter than the middle counts as garment. Labels of a segmentation must be"
        " split into one mask a garment.",
    ),
    "small picture": FindingKind(
        "warning",
        "pictures that must be enlarged more than twice",
        "use larger ones or a smaller resolution; blur would be learned.",
    ),
    "cropped": FindingKind(
        "warning",
        f"people of whom more than {MOST_CROPPED:.0%} is cropped to fit the resolution",
        "choose a resolution shaped like the pictures, or crop them yourself to where the person is.",
    ),
    "long caption": FindingKind(
        "warning", f"captions longer than {MOST_TOKENS} tokens", "shorten them; what comes after these is not read."
    ),
    "other letters": FindingKind(
        "warning",
        "captions that are mostly in other letters than English has",
        "write them in English; SD1.5's text encoder hardly knows another language.",
    ),
    "parentheses": FindingKind(
        "warning",
        "captions with parentheses",
        "take them out: ComfyUI reads them as emphasis, training as plain text.",
    ),
}
"""All sorts of findings, in the order of a report: those of `pictures.Fault` first."""


@dataclass(frozen=True)
class Note:
    """Something found on one person. text: which file, and why."""

    kind: str
    person: str
    text: str


@dataclass(frozen=True)
class DataReport:
    """facts: what there is, by name. people, bad: how many there are and have problems, by split."""

    facts: Sequence[tuple[str, str]]
    notes: Sequence[Note]
    people: Counter[str]
    bad: Counter[str]

    @property
    def status(self) -> int:
        """The exit status: 1 when more than `MOST_BAD` of the people of a split have problems, or all."""
        return int(any(self.bad[split] > MOST_BAD * count for split, count in self.people.items()))

    def render(self) -> str:
        """The report as text: facts, findings with a few examples each, and a verdict."""
        width = 2 + max(len(name) for name, _ in self.facts)
        lines = [f"{name:{width}}{value}" for name, value in self.facts]
        for name, kind in KINDS.items():
            notes = [note for note in self.notes if note.kind == name]
            if notes:
                lines += ["", f"{kind.level.upper()}: {len(notes)} x {kind.what}"]
                lines += [f"  {note.person}: {note.text}" for note in notes[:EXAMPLES]]
                lines += [f"  and {len(notes) - EXAMPLES} more"] if len(notes) > EXAMPLES else []
                lines += [f"  What to do: {kind.remedy}"]
        return "\n".join([*lines, "", self._verdict()])

    def _verdict(self) -> str:
        if not self.notes:
            return "Nothing is wrong with this data."
        if not self.bad.total():
            return "All of it can be trained on; see the warnings above."
        bad, everyone = self.bad.total(), self.people.total()
        judged = "too many: " if self.status else ""
        return f"{bad} of {everyone} people have problems; {judged}{MOST_BAD:.0%} of a split may."
