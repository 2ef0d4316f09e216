# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node says when it cannot go on: what and which input, why, what to do.

Plain ValueError: ComfyUI prints a custom class with its module, and a custom node's module is a file path.
"""

from __future__ import annotations

import math


def problem(what: str, why: str, do: str) -> ValueError:
    """Make the three-line error that an artist reads in ComfyUI's error panel. `what` starts with the input's name."""
    return ValueError(f"{what}\n{why}\nWhat to do: {do}")


def number(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float in [low, high]. ComfyUI lets NaN through, and checks no range on linked values."""
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or not low <= value <= high:  # pyright: ignore[reportOperatorIssue]
        raise problem(
            f"{name}: must be a number from {low:g} to {high:g}, got {value!r}.",
            "The value came from a linked node or from outside the editor.",
            f"set {name} to a number from {low:g} to {high:g}.",
        )
    return float(value)  # pyright: ignore[reportArgumentType]
