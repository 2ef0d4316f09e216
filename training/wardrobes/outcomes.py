# SPDX-License-Identifier: GPL-3.0-or-later
"""What was made, a line each, written down as soon as it is: work that was killed goes on from there.

    OUT/outcomes/rank-0.jsonl     {"key": ..., "entry": {...} | null, "dropped": [[slot, why], ...], "bad": [fault, file, why]}

Each process of several has a file of its own and reads all of them, so that looks are shared out by their places alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...anydressing_core.atomic_write import write_atomically
from ..text_files import read_text

FOLDER = "outcomes"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file that a person may have edited; none where there is no file."""
    return [json.loads(line) for line in read_text(path).split("\n") if line.strip()] if path.exists() else []


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, all of them or none."""
    write_atomically(path, "".join(map(_line, lines)).encode())


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


class LineLog:
    """A file of JSON lines that one process adds to; a last line that was cut off is none."""

    def __init__(self, path: Path) -> None:
        self._path, self._begun = path, False

    def read(self) -> list[dict[str, Any]]:
        """All whole lines."""
        return [json.loads(line) for line in self._whole().decode("utf-8").split("\n") if line]

    def add(self, *entries: Mapping[str, Any]) -> None:
        """Add lines; after the return they survive a power cut."""
        if not self._begun:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._whole() != self._path.read_bytes():
                write_atomically(self._path, self._whole())
            self._begun = True
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, entries)))
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> bytes:
        content = self._path.read_bytes() if self._path.exists() else b""
        return content[: content.rfind(b"\n") + 1]


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
        self._own = LineLog(out / FOLDER / f"rank-{rank}.jsonl")
        self._folder = out / FOLDER

    def read(self) -> dict[str, Outcome]:
        """All that is there, by key."""
        found = [line for path in sorted(self._folder.glob("rank-*.jsonl")) for line in LineLog(path).read()]
        return {line["key"]: _outcome(line) for line in found}

    def add(self, outcomes: list[Outcome]) -> None:
        """Write down what is done."""
        self._own.add(*(asdict(one) for one in outcomes))


def _outcome(line: dict[str, Any]) -> Outcome:
    dropped = tuple((slot, why) for slot, why in line["dropped"])
    bad = None if line["bad"] is None else (line["bad"][0], line["bad"][1], line["bad"][2])
    return Outcome(line["key"], line["entry"], dropped, bad, line["made"])
