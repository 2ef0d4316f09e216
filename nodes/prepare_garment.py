# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Prepare Garment: from a photograph to the garment alone, cut out, cropped, on white."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.canvas import garment_canvas, lay_out
from ..anydressing_core.latents import CELL
from ..anydressing_core.pixels import as_pixels
from .cut_out import cut_out
from .inputs import canvas_size
from .notes import tell
from .pictures import garment_picture, to_image
from .types import CATEGORY, SEARCH_ALIASES

OTHER_WAYS = "connect a mask: ComfyUI's Remove Background makes one of any picture, or paint over the garment in the Mask Editor."


class AnyDressingPrepareGarment(io.ComfyNode):
    """Cut a garment out of a photograph and lay it on white."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingPrepareGarment",
            display_name="AnyDressing Prepare Garment",
            category=CATEGORY,
            description="Cuts one garment out of a photograph, crops to it and lays it on white. A plain ground, a studio's "
            "gradient or a soft shadow it finds by itself; for anything else bring a mask. Where it cannot tell it says so, "
            "and passes the whole picture on.",
            search_aliases=[*SEARCH_ALIASES, "cut out", "remove background", "crop"],
            inputs=[
                io.Image.Input("image", tooltip="A photograph of one garment, laid flat or hanging."),
                io.Int.Input("width", default=576, min=64, max=2048, step=CELL, tooltip="Of the new picture."),
                io.Int.Input("height", default=768, min=64, max=2048, step=CELL, tooltip="Of the new picture."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the garment. Then nothing is looked for. Load Image's MASK of a transparent picture is "
                    "white around it: turn invert_mask on.",
                ),
                io.Boolean.Input(
                    "invert_mask",
                    default=False,
                    optional=True,
                    tooltip="The mask is white around the garment and black on it.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The garment on white, for Garment Encode."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="White on the garment, for Garment Encode's mask, which a white garment needs.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image: Any, width: int = 576, height: int = 768, mask: Any = None, invert_mask: bool = False
    ) -> io.NodeOutput:
        size = canvas_size(width, height)
        found = garment_picture(image, mask, invert=invert_mask)
        kept, told = found.mask, found.told_by
        if kept is None:
            kept, told = _cut_out(found.picture)
        canvas = lay_out(found.picture, *size, kept)
        shown = torch.ones(1, *size) if canvas.mask is None else canvas.mask[0]
        tell(cls, told if canvas.mask is None else f"the garment is {canvas.share:.0%} of the picture, {told}.")
        seen = found.picture if kept is None else found.picture * (0.25 + 0.75 * kept) + 0.5 * (1 - kept)
        both = torch.cat([garment_canvas(seen, *size), canvas.picture], dim=-1)
        return io.NodeOutput(to_image(canvas.picture), shown, ui=ui.PreviewImage(to_image(both), cls=cls))


def _cut_out(picture: Tensor) -> tuple[Tensor | None, str]:
    """The mask (1, 1, H, W) in [0, 1] of a garment (1, 3, H, W) in [-1, 1], its edge softened, or None; and how that went."""
    found = cut_out(as_pixels(picture[0]))
    if found.mask is None:
        return (
            None,
            f"could not tell garment and ground apart: {found.doubt}. The whole picture is passed on; {OTHER_WAYS}",
        )
    mask = torch.from_numpy(found.mask).float()[None, None]
    soft = functional.avg_pool2d(mask, 3, stride=1, padding=1, count_include_pad=False)
    return soft, f"cut out of its ground; {found.doubt}" if found.doubt else "cut out of its ground"
