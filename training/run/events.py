# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells while it goes: `events.jsonl` for programs, curves for TensorBoard; `display` tells people."""

from __future__ import annotations

import json
import math
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...anydressing_core.refusals import refusal
from .display import Display, Readings

EVENTS = "events.jsonl"
UNSHOWN = "gradient of "
"""Readings that begin so are for programs: events and curves have them, people do not see them."""


class RunLog:
    """All that a run tells of its steps. folder: None in the processes that keep silent. curves: for tensorboard too."""

    def __init__(self, folder: Path | None, display: Display, *, curves: bool) -> None:
        self._display = display
        self._curves = Tensorboard(folder) if folder and curves else None
        self._log = EventLog(folder) if folder else None

    def event(self, event: str, **values: Any) -> None:
        """Note what happened."""
        if self._log:
            self._log.write(event, **values)

    def step(self, step: int, readings: Readings) -> None:
        """Note and show the readings of a step."""
        self.event("step", step=step, **{name: float(f"{value:.6g}") for name, value in readings.items()})
        if self._curves:
            self._curves.step(step, readings)
        self._display.step(step, {name: value for name, value in readings.items() if not name.startswith(UNSHOWN)})

    def close(self) -> None:
        """Close the files; the display stays open."""
        for writer in (self._log, self._curves):
            if writer:
                writer.close()


class EventLog:
    """`events.jsonl`: one JSON object a line, with `event`, `time` (seconds since 1970) and what belongs to it.

    A resumed run appends. Steps that a killed run had taken after its last checkpoint are then there twice, and the
    later line counts. A last line that was cut off by a crash is removed: it says nothing, and every line shall be JSON.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS
        if self.path.exists():
            written = self.path.read_bytes()
            os.truncate(self.path, written.rfind(b"\n") + 1)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Append one event; it is in the file, though not yet on the disk, at the return. What is not a number is null."""
        values = {name: None if _is_no_number(value) else value for name, value in values.items()}
        self._file.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run so far; a line that is only half written is left out."""
    events: list[dict[str, Any]] = []
    for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def require_tensorboard() -> None:
    """Raise ValueError when tensorboard is not installed."""
    if find_spec("tensorboard") is None:
        why, remedy = "It is not installed.", "pip install tensorboard, or set tensorboard = false."
        raise refusal("tensorboard = true", "cannot be followed", why, remedy)


class Tensorboard:
    """The readings as curves."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def step(self, step: int, readings: Readings) -> None:
        for name, value in readings.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
