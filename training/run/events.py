# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells while it goes: `events.jsonl` for programs, a live table or plain lines for people, tensorboard."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ...anydressing_core.safetensors_header import refusal

EVENTS = "events.jsonl"
UNSHOWN = "gradient of "
"""Readings that begin so are for programs: events and curves have them, people do not see them."""

Readings = Mapping[str, float]


class Report:
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


class Display(Protocol):
    """Where a person looks."""

    def start(self, step: int, steps: int) -> None: ...

    def step(self, step: int, readings: Readings) -> None: ...

    def work(self, what: str, done: int, total: int) -> None:
        """Progress of something else than steps, such as building a cache."""
        ...

    def note(self, name: str, value: int) -> None:
        """What stands beside the readings until it changes, such as the last checkpoint."""
        ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


def open_display(console: Console, every: float = 10.0) -> Display:
    """A live table on a terminal, plain lines elsewhere, at most one in `every` seconds."""
    return LiveTable(console) if console.is_terminal else PlainLines(console, every)


class PlainLines:
    """A line every few seconds: step, readings, time left, notes."""

    def __init__(self, console: Console, every: float) -> None:
        self._console, self._every = console, every
        self._last, self._figures = -math.inf, Figures()

    def start(self, step: int, steps: int) -> None:
        self._figures.steps = steps

    def step(self, step: int, readings: Readings) -> None:
        figures = self._figures
        figures.add(readings)
        if step == figures.steps or self._due():
            values = "  ".join(f"{name} {value}" for name, value in figures.shown().items())
            self._print(f"step {step}/{figures.steps}  {values}  {figures.left(step)}")

    def work(self, what: str, done: int, total: int) -> None:
        if done == total or self._due():
            self._print(f"{what}  {done}/{total}")

    def note(self, name: str, value: int) -> None:
        self._figures.note(name, value)

    def say(self, text: str) -> None:
        self._print(text)

    def close(self) -> None:
        pass

    def _due(self) -> bool:
        due = time.monotonic() - self._last >= self._every
        if due:
            self._last = time.monotonic()
        return due

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveTable:
    """Bars with the time that is left, and the readings under them, redrawn in place."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[left]}", style="cyan"), console=console)
        self._bars: dict[str, TaskID] = {}
        self._figures = Figures()
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4)
        self._live.start()

    def start(self, step: int, steps: int) -> None:
        self._figures.steps = steps
        self.work("training", step, steps)

    def step(self, step: int, readings: Readings) -> None:
        self._figures.add(readings)
        self._progress.update(self._bars["training"], completed=step, left=self._figures.left(step))

    def work(self, what: str, done: int, total: int) -> None:
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total, left="")
        self._progress.update(self._bars[what], completed=done, total=total)

    def note(self, name: str, value: int) -> None:
        self._figures.note(name, value)

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def _picture(self) -> Group:
        cells = [Text.assemble((name, "dim"), " ", value) for name, value in self._figures.shown().items()]
        return Group(self._progress, Columns(cells, padding=(0, 3)))


class Figures:
    """What both displays show of a run: smoothed readings, notes, and how long it will take."""

    steps = 0

    def __init__(self) -> None:
        self._smooth, self._readings, self._notes = Smooth(), dict[str, float](), dict[str, int]()

    def add(self, readings: Readings) -> None:
        self._readings = dict(self._smooth.add(readings))  # a new one: another thread may be drawing the last

    def note(self, name: str, value: int) -> None:
        self._notes = {**self._notes, name: value}

    def shown(self) -> dict[str, str]:
        """Names and values, as text."""
        readings = {name: f"{value:.4g}" for name, value in self._readings.items() if name != "s/step"}
        return readings | {name: str(value) for name, value in self._notes.items()}

    def left(self, step: int) -> str:
        """The time until the last step."""
        seconds = self._readings.get("s/step", 0.0) * (self.steps - step)
        return f"{timedelta(seconds=round(seconds))} left"


class Smooth:
    """Running means of readings, over about the last twenty."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def add(self, readings: Readings) -> Readings:
        for name, value in readings.items():
            mean = self._means.get(name, value)
            self._means[name] = mean + 0.05 * (value - mean)
        return self._means


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
