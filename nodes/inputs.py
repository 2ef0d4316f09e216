# SPDX-License-Identifier: GPL-3.0-or-later
"""What ComfyUI lets through unchecked: numbers from linked nodes and from outside the editor."""

from __future__ import annotations

import math

from ..anydressing_core.refusals import refusal


def number(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float in [low, high]. ComfyUI lets NaN through, and checks no range on linked values."""
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or not low <= value <= high:  # pyright: ignore[reportOperatorIssue]
        raise refusal(
            f"{name}:",
            f"must be a number from {low:g} to {high:g}, got {value!r}",
            "The value came from a linked node or from outside the editor.",
            f"set {name} to a number from {low:g} to {high:g}.",
        )
    return float(value)  # pyright: ignore[reportArgumentType]
