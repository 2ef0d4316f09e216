# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of ours that several wings take where nobody says otherwise; the paper's are in `anydressing_core.defaults`."""

from __future__ import annotations

from typing import Literal

MOST_BAD = 0.05
"""The share of a split's people whose pictures may be bad."""

WantedPrecision = Literal["auto", "fp32", "bf16", "fp16"]
"""In what frozen weights are kept and computed. `auto` in training is bf16 where the device has it; elsewhere it is what
the file was trained in."""
