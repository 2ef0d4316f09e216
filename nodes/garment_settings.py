# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Garment Settings: how strongly, when and where one garment shows. Never encodes anything again."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .garment import Garment
from .inputs import number, require_garment
from .pictures import region_mask
from .types import CATEGORY, SEARCH_ALIASES, GarmentWire, range_inputs


class AnyDressingGarmentSettings(io.ComfyNode):
    """Give one garment its own weight, range and region."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingGarmentSettings",
            display_name="AnyDressing Garment Settings",
            category=CATEGORY,
            description="Sets how strongly, when and where one garment shows, in place of earlier settings. The "
            "garment is not encoded again.",
            search_aliases=SEARCH_ALIASES,
            inputs=[
                GarmentWire.Input("garment", tooltip="From AnyDressing Garment Encode."),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How strongly this garment shows beside the others. However small it is, the garment keeps its "
                    "places; 0 takes it off, and the others get them.",
                ),
                *range_inputs("the garment"),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White where this garment may go in the new picture; stretched to what is sampled. Ultimate SD "
                    "Upscale and detailers sample one tile or crop at a time, and it is stretched over each: leave it off there.",
                ),
            ],
            outputs=[GarmentWire.Output(display_name="garment", tooltip="The same garment with these settings.")],
        )

    @classmethod
    def execute(
        cls,
        garment: Garment,
        weight: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        region: Any = None,
    ) -> io.NodeOutput:
        require_garment("garment", garment)
        place = None if region is None else region_mask(region)
        settled = garment._replace(
            weight=number("weight", weight, 0.0, 2.0),
            start=number("start_percent", start_percent, 0.0, 1.0),
            end=number("end_percent", end_percent, 0.0, 1.0),
            region=place,
        )
        return io.NodeOutput(settled, ui=None if place is None else ui.PreviewMask(place[None], cls=cls))
