# SPDX-License-Identifier: GPL-3.0-or-later
"""What was made of each look, a line each, written when its masks are: a conversion that was killed goes on from there.

    OUT/outcomes/rank-0.jsonl     {"key": ..., "entry": {...} | null, "dropped": [[slot, why], ...], "bad": [fault, file, why]}

Each process of several has a file of its own and reads all of them, so that looks are shared out by their places alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...anydressing_core.atomic_write import write_atomically

FOLDER = "outcomes"


@dataclass(frozen=True)
class Outcome:
    """key: what the look was made of. entry: its line of the manifest, None where there is none. bad: fault, file and why.

    made: the masks that were written, and the sha256 of each.
    """

    key: str
    entry: dict[str, Any] | None
    dropped: tuple[tuple[str, str], ...] = ()
    bad: tuple[str, str, str] | None = None
    made: Mapping[str, str] | None = None


class Outcomes:
    """The outcomes below a folder, of all processes; this one adds its own."""

    def __init__(self, out: Path, rank: int) -> None:
        self._own = out / FOLDER / f"rank-{rank}.jsonl"
        self._own.parent.mkdir(parents=True, exist_ok=True)
        self._begin_on_a_line()

    def read(self) -> dict[str, Outcome]:
        """All that is there, by key; a line that somebody is just writing is none yet."""
        return {one.key: one for path in sorted(self._own.parent.glob("rank-*.jsonl")) for one in _whole_lines(path)}

    def add(self, outcomes: list[Outcome]) -> None:
        """Write down what is done; after the return it survives a kill."""
        with self._own.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in outcomes))
            file.flush()
            os.fsync(file.fileno())

    def _begin_on_a_line(self) -> None:
        content = self._own.read_bytes() if self._own.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_atomically(self._own, whole)


def _whole_lines(path: Path) -> Iterator[Outcome]:
    content = path.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].decode("utf-8").split("\n"):
        if line:
            told = json.loads(line)
            dropped = tuple((slot, why) for slot, why in told["dropped"])
            bad = None if told["bad"] is None else tuple(told["bad"])
            yield Outcome(told["key"], told["entry"], dropped, bad, told["made"])
