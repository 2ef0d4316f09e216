# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], patience: float = 300, *, every: float = 0.005) -> None:
    """Return as soon as the condition holds; fail after `patience` seconds. every: between two looks, in seconds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience:g} s in vain"
        time.sleep(every)
