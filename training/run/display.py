# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a person looks while something long goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

Readings = Mapping[str, float]

EXACT = frozenset({"rate", "memory GiB"})
"""Readings that are shown as they are: they do not stray from step to step as losses and times do."""


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
    """What both displays show of a run: readings, smoothed but for EXACT, notes, and how long it will take."""

    steps = 0

    def __init__(self) -> None:
        self._smooth, self._readings, self._notes = Smooth(), dict[str, float](), dict[str, int]()

    def add(self, readings: Readings) -> None:
        smooth = self._smooth.add(readings)  # below a new mapping: another thread may be drawing the last
        self._readings = {**smooth, **{name: value for name, value in readings.items() if name in EXACT}}

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
