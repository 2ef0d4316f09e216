# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work between its batches: whoever waits is told how far it is, and may stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of how many are."""

T = TypeVar("T")


class StoppedError(Exception):
    """Long work was stopped on request. what: is being done, `done` of `total` are."""

    def __init__(self, what: str, done: int, total: int) -> None:
        super().__init__(f"Stopped at {what}, {done} of {total}.")


def untold(what: str, done: int, total: int) -> None:
    """The progress of work that nobody watches."""


def never() -> bool:
    """The wish to stop of somebody who has none."""
    return False


@dataclass(frozen=True)
class Course:
    """How long work is watched: `progress` is told, `stop` is asked between batches."""

    progress: Progress = untold
    stop: Callable[[], bool] = never

    def batches(self, what: str, things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
        """The things, so many at once. Raises StoppedError between two batches when it is to stop."""
        for start in range(0, len(things), size):
            self.go_on(what, start, len(things))
            yield things[start : start + size]
        if things:
            self.progress(what, len(things), len(things))

    def go_on(self, what: str, done: int, total: int) -> None:
        """Tell how far the work is. Raises StoppedError when it is to stop."""
        if self.stop():
            raise StoppedError(what, done, total)
        self.progress(what, done, total)


UNWATCHED = Course()
