# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells while it goes: `events.jsonl` for programs, curves for TensorBoard; `display` tells people."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from typing import Any

from ...anydressing_core.refusals import reason_of, refusal
from .display import Display, Readings

EVENTS = "events.jsonl"
UNSHOWN = "gradient of "
"""Readings that begin so are for programs: events and curves have them, people do not see them."""


class RunLog:
    """All that a run tells of its steps, in files and on the display. Telling never stops a step.

    A line that a file does not take is lost, which is told once; training goes on. What else goes wrong is kept in
    `trouble`, the first of it, for the loop to end the run between two steps.
    folder: None in the processes that keep silent. curves: for tensorboard too.
    """

    def __init__(self, folder: Path | None, display: Display, *, curves: bool) -> None:
        self.trouble: Exception | None = None
        self._display, self._lost = display, False
        self._log = EventLog(folder) if folder else None
        self._curves: Tensorboard | None = None
        if folder and curves:
            with self._curves_or_none():
                self._curves = Tensorboard(folder)

    def start(self, step: int, steps: int) -> None:
        """Tell where the run begins."""
        with self._kept():
            self._display.start(step, steps)

    def event(self, event: str, **values: Any) -> None:
        """Note what happened."""
        with self._kept():
            if self._log:
                self._write(self._log, event, **values)

    def step(self, step: int, readings: Readings) -> None:
        """Note and show the readings of a step."""
        self.event("step", step=step, **{name: float(f"{value:.6g}") for name, value in readings.items()})
        if self._curves:
            with self._curves_or_none():
                self._curves.step(step, readings)
        with self._kept():
            self._display.step(step, {name: value for name, value in readings.items() if not name.startswith(UNSHOWN)})

    def say(self, text: str) -> None:
        """Say something to a person."""
        with self._kept():
            self._display.say(text)

    def note(self, name: str, value: int) -> None:
        """Show what stands beside the readings until it changes."""
        with self._kept():
            self._display.note(name, value)

    def close(self) -> None:
        """Close the files; the display stays open."""
        with self._kept():
            if self._log:
                self._log.close()
        if self._curves:
            with self._curves_or_none():
                self._curves.close()

    def _write(self, log: EventLog, event: str, **values: Any) -> None:
        try:
            log.write(event, **values)
        except OSError as error:
            if not self._lost:
                self._lost = True
                self._display.say(
                    f"{log.path} cannot be written: {reason_of(error)}. Lines are lost; training goes on."
                )

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.trouble = self.trouble or error

    @contextmanager
    def _curves_or_none(self) -> Iterator[None]:
        """Do without curves from the first error on: a writer of TensorBoard that failed once stays so."""
        try:
            yield
        except Exception as error:
            self._curves = None
            self.say(f"The curves for TensorBoard end here: {error}. Training goes on.")


class EventLog:
    """`events.jsonl`: one JSON object a line, with `event`, `time` (seconds since 1970) and what belongs to it.

    A resumed run appends. Steps that a killed run had taken after its last checkpoint are then there twice, and the
    later line counts. A last line that was cut off, by a crash or a full disk, is removed before the next one is
    written: it says nothing, and every line shall be JSON.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS
        self._file: FileIO | None = None

    def write(self, event: str, **values: Any) -> None:
        """Append one event; it is in the file, though not yet on the disk, at the return. What is not a number is null.

        Raises OSError when the file does not take it; the next one may be written all the same.
        """
        values = {name: None if _is_no_number(value) else value for name, value in values.items()}
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}).encode() + b"\n"
        try:
            self._file = self._file or _open_whole(self.path)
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._file = None


def _open_whole(path: Path) -> FileIO:
    """Open a file to append whole lines to, without what was cut off at its end."""
    file = FileIO(path, "a+")
    try:
        size = file.seek(0, os.SEEK_END)
        whole = _end_of_last_line(file, size)
        if whole < size:
            file.truncate(whole)
    except OSError:
        file.close()
        raise
    return file


def _end_of_last_line(file: FileIO, size: int, block: int = 2**16) -> int:
    """Searched from the end: the file of a long run is large, and may be opened again at every step of a full disk."""
    end = size
    while end:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


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
