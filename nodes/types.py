# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of wires that our nodes add to ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_api.latest import io

LOCALES = Path(__file__).parents[1] / "locales"

AnyDressingWire = io.Custom("ANYDRESSING")
"""A loaded AnyDressing file: garment.AnyDressing."""

GarmentWire = io.Custom("ANYDRESSING_GARMENT")
"""One encoded garment: garment.Garment."""

CATEGORY = "AnyDressing"


def range_inputs(what: str, *, advanced: bool = False) -> list[io.Float.Input]:
    """The two inputs that say when in the sampling something acts, named as ComfyUI's own ControlNet nodes name them."""
    ends = (("start_percent", 0.0, "starts"), ("end_percent", 1.0, "stops"))
    return [
        io.Float.Input(
            name,
            default=default,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=advanced,
            tooltip=f"When in the sampling {what} {verb}: 0 is the beginning, 1 the end.",
        )
        for name, default, verb in ends
    ]


SEARCH_ALIASES = [
    *("anydressing", "garment", "clothes", "clothing", "outfit", "dress", "dressing", "wardrobe", "fashion", "shirt"),
    *("try-on", "virtual try-on", "vton"),
    *(word for path in sorted(LOCALES.glob("*/search.json")) for word in json.loads(path.read_text(encoding="utf-8"))),
]
"""What people call it who look for us; theirs stand in locales/LANGUAGE/search.json."""
