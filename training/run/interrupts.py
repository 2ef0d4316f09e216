# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C, SIGTERM and a terminal that is closed, as a wish to stop that long work reads between its steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""What comes when a terminal is closed or a connection drops; Windows has none."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))


class Interrupts:
    """received: the first signal that came, None so far."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._asked = False

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """What the process returns: 128 and the signal's number, 0 without one."""
        return 0 if self.received is None else 128 + self.received

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; the second one ends the work where it is.

        A hangup counts once: the kernel and the shell both send one when a terminal is closed, and a system that shuts
        down sends it after SIGTERM.
        """
        self.received = self.received or signal.Signals(number)
        if number == HANGUP:
            _leave_dead_terminal()
        elif self._asked:
            raise KeyboardInterrupt
        else:
            self._asked = True


@contextmanager
def catch_signals() -> Iterator[Interrupts]:
    """Catch these signals for the time of the block. Only a main thread can; elsewhere nothing is ever received.

    A hangup that is ignored when the block begins stays ignored: so `nohup` keeps a run going.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    caught = [number for number in SIGNALS if number != HANGUP or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupts) for number in caught}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_dead_terminal() -> None:
    """Let what is still said go nowhere if the terminal is gone: every write to it would be an error."""
    for output in (1, 2):
        try:
            os.write(output, b"")  # nothing, which a living one takes
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
