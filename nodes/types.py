# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of wires that our nodes add to ComfyUI."""

from __future__ import annotations

from comfy_api.latest import io

AnyDressingWire = io.Custom("ANYDRESSING")
"""A loaded AnyDressing file: garment.AnyDressing."""

GarmentWire = io.Custom("ANYDRESSING_GARMENT")
"""One encoded garment: garment.Garment."""

CATEGORY = "AnyDressing"
SEARCH_ALIASES = ["anydressing", "garment", "clothes", "outfit", "dress", "dressing", "try-on", "vton"]
