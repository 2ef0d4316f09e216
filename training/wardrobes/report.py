# SPDX-License-Identifier: GPL-3.0-or-later
"""What a conversion says when it is done: what there is, what was left out and why, and what to run next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..defaults import MOST_BAD
from .looks import Layout, Look

PAPERS_TRIPLETS = 26_114
"""What the paper made of DressCode (Sec. 7.2)."""

NAMED = 3


@dataclass(frozen=True)
class Report:
    """looks: how many there are. shared: how many were left out of train for sharing something with held_out. entries: the
    manifest's lines. dropped: by look, slots and why. bad: looks with fault, file and why. waiting: looks
    that other processes have yet to do. by_hand: lines that a hand had changed; None where no manifest was written.
    """

    layout: Layout
    looks: int
    shared: int
    entries: Sequence[dict[str, Any]]
    dropped: Sequence[Sequence[tuple[str, str]]] = ()
    bad: Sequence[tuple[Look, tuple[str, str, str]]] = ()
    waiting: int = 0
    by_hand: int | None = None

    def usable(self, *, skip_bad: bool) -> bool:
        """Whether a manifest is written: when nothing is bad, or little of it is and that may be passed over."""
        return bool(self.entries) and (not self.bad or (skip_bad and len(self.bad) <= MOST_BAD * self.looks))

    @property
    def status(self) -> int:
        """The exit status: 0 when the manifest is there or others are at work on it."""
        return 0 if self.by_hand is not None or self.waiting else 2

    def render(self) -> str:
        """The report as text."""
        if self.waiting:
            return (
                f"This process is done; {self.waiting:,} looks are with others, the last of whom writes the manifest."
            )
        return "\n".join([*self._facts(), *self._left_out(), *self._verdict()])

    def _facts(self) -> Iterator[str]:
        yield f"{self.layout.title}: {self.looks:,} looks. Licence, as stated: {self.layout.licence}."
        splits = Counter(entry["split"] for entry in self.entries)
        yield f"people     {splits['train']:,} in train, {splits['held_out']:,} in held_out"
        worn = Counter((one["slot"], one["kind"]) for entry in self.entries for one in entry["garments"])
        for slot in dict.fromkeys(slot for slot, _ in sorted(worn, key=lambda key: -worn[key])):
            kinds = [f"{worn[slot, kind]:,} {kind}" for kind in ("inshop", "crop") if worn[slot, kind]]
            yield f"{slot:10} {', '.join(kinds)}"
        triplets = sum(
            {one["kind"] for one in entry["garments"]} == {"inshop", "crop"}
            for entry in self.entries
            if entry["split"] == "train"
        )
        yield f"triplets   {triplets:,} people of train wear one laid flat and one cut out; the paper has {PAPERS_TRIPLETS:,}"
        if self.entries and all(one["kind"] == "crop" for entry in self.entries for one in entry["garments"]):
            yield "           all garments are cut out: expect weaker results with pictures from a shop"

    def _left_out(self) -> Iterator[str]:
        reasons = Counter((slot, why) for one in self.dropped for slot, why in one)
        for (slot, why), count in sorted(reasons.items(), key=lambda item: -item[1]):
            yield f"dropped    {count:,} x {slot}: {why}"
        nothing = self.looks - len(self.bad) - len({entry["image"] for entry in self.entries})
        if nothing:
            yield f"left out   {nothing:,} looks: nothing of what they wear is left"
        if self.shared:
            yield f"left out   {self.shared:,} looks of train: they share a garment or a person with held_out"
        if self.by_hand:
            yield f"kept       {self.by_hand:,} lines as a hand changed or took them out"

    def _verdict(self) -> Iterator[str]:
        for fault, count in Counter(fault for _, (fault, _, _) in self.bad).items():
            some = [f"{look.id}: {file}: {why}" for look, (kind, file, why) in self.bad if kind == fault]
            yield f"\nBAD: {count:,} looks: {fault}"
            yield from (f"  {line}" for line in some[:NAMED])
            yield from [f"  and {count - NAMED:,} more"] if count > NAMED else []
        if self.bad:
            yield "All of them are listed in left_out.jsonl."
        if self.by_hand is None:
            yield self._refused()

    def _refused(self) -> str:
        if not self.entries:
            return "Nothing can be trained on: no manifest was written."
        if len(self.bad) > MOST_BAD * self.looks:
            return (
                f"{len(self.bad):,} of {self.looks:,} looks cannot be used, more than {MOST_BAD:.0%}: no manifest was "
                "written. Copy the files again."
            )
        return "No manifest was written. Mend these, or leave them out with --skip-bad."
