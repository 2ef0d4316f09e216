# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for cubiq's ComfyUI_IPAdapter_plus 2.0.0 where that cannot be had: its two nodes for a face have the same names,
inputs and outputs here, and hand the MODEL on as it came. A workflow with them can so be drawn, opened and queued.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension, io

FACE = io.Custom("IPADAPTER")


class FaceIdLoader(io.ComfyNode):
    """Loads the models of a face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IPAdapterUnifiedLoaderFaceID",
            display_name="IPAdapter Unified Loader FaceID",
            category="ipadapter/faceid",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("preset", options=["FACEID", "FACEID PLUS - SD1.5 only", "FACEID PLUS V2"]),
                io.Float.Input("lora_strength", default=0.6, min=0, max=1, step=0.01),
                io.Combo.Input("provider", options=["CPU", "CUDA", "ROCM", "DirectML", "OpenVINO", "CoreML"]),
                FACE.Input("ipadapter", optional=True),
            ],
            outputs=[io.Model.Output(display_name="MODEL"), FACE.Output(display_name="ipadapter")],
        )

    @classmethod
    def execute(cls, model: Any, **_: Any) -> io.NodeOutput:
        return io.NodeOutput(model, "a face")


class FaceId(io.ComfyNode):
    """Gives the picture a face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IPAdapterFaceID",
            display_name="IPAdapter FaceID",
            category="ipadapter/faceid",
            inputs=[
                io.Model.Input("model"),
                FACE.Input("ipadapter"),
                io.Image.Input("image"),
                io.Float.Input("weight", default=1.0, min=-1, max=3, step=0.05),
                io.Float.Input("weight_faceidv2", default=1.0, min=-1, max=5, step=0.05),
                io.Combo.Input("weight_type", options=["linear", "ease in", "ease out", "ease in-out"]),
                io.Combo.Input("combine_embeds", options=["concat", "add", "subtract", "average", "norm average"]),
                io.Float.Input("start_at", default=0.0, min=0, max=1, step=0.001),
                io.Float.Input("end_at", default=1.0, min=0, max=1, step=0.001),
                io.Combo.Input(
                    "embeds_scaling", options=["V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty"]
                ),
                io.Image.Input("image_negative", optional=True),
                io.Mask.Input("attn_mask", optional=True),
                io.ClipVision.Input("clip_vision", optional=True),
                io.Custom("INSIGHTFACE").Input("insightface", optional=True),
            ],
            outputs=[io.Model.Output(display_name="MODEL"), io.Image.Output(display_name="face_image")],
        )

    @classmethod
    def execute(cls, model: Any, image: Any, **_: Any) -> io.NodeOutput:
        return io.NodeOutput(model, image)


class StandIn(ComfyExtension):
    """The pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FaceIdLoader, FaceId]


async def comfy_entrypoint() -> StandIn:
    """Return the extension that lists them."""
    return StandIn()
