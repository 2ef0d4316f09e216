# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C and SIGTERM as a wish to stop that long work reads between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """received: the first signal that came, None so far."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """What the process returns: 128 and the signal's number, 0 without one."""
        return 0 if self.received is None else 128 + self.received

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; the second one ends the work where it is."""
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)


@contextmanager
def catch_signals() -> Iterator[Interrupts]:
    """Catch both signals for the time of the block. Only a main thread can; elsewhere nothing is ever received."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts) for number in SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
