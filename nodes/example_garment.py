# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Example Garment: garment pictures that come with the pack, so that the first workflows find theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from aiohttp import web
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ..anydressing_core.pixels import as_unit
from ..anydressing_core.refusals import refusal
from .types import CATEGORY, SEARCH_ALIASES

PACK = Path(__file__).parents[1]
FOLDERS = (PACK / "demo" / "garments", PACK / "workflows" / "garments")
"""The paper doll's wardrobe, and painted cloth for real checkpoints."""


class AnyDressingExampleGarment(io.ComfyNode):
    """Load one of the garments that come with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingExampleGarment",
            display_name="AnyDressing Example Garment",
            category=f"{CATEGORY}/demo",
            description="A garment that comes with the pack: of the paper doll's wardrobe, or painted cloth for your own "
            "checkpoint. For your own garments use Load Image.",
            search_aliases=[*SEARCH_ALIASES, "paper doll"],
            inputs=[
                io.Combo.Input(
                    "garment",
                    options=example_garments(),
                    tooltip="Which garment; its name begins with the slot that it belongs in.",
                )
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The garment, laid flat on white.")],
        )

    @classmethod
    def execute(cls, garment: str) -> io.NodeOutput:
        if garment not in example_garments():
            raise refusal(
                "garment:",
                f"{garment!r} does not come with ComfyUI-AnyDressing",
                f"The pack has: {', '.join(example_garments()) or 'none, its installation is incomplete'}.",
                "choose one of these, or use Load Image with a picture of your own.",
            )
        with Image.open(_path_of(garment)) as picture:
            pixels = np.array(picture.convert("RGB"))
        image = as_unit(pixels)[None].movedim(1, -1)
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def serve_example_garments() -> None:
    """Let the page show a garment before it is run, at /anydressing/example_garment/NAME."""
    server = getattr(PromptServer, "instance", None)  # none when nodes are used without a server
    if server is None:
        return

    @server.routes.get("/anydressing/example_garment/{name}")
    async def show(request: web.Request) -> web.StreamResponse:  # pyright: ignore[reportUnusedFunction]
        name = request.match_info["name"]
        if name not in example_garments():
            raise web.HTTPNotFound
        return web.FileResponse(_path_of(name))


def example_garments() -> list[str]:
    """The names of the garments that are there, the doll's first."""
    return list(_paths())


def _paths() -> dict[str, Path]:
    return {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.png"))}


def _path_of(garment: str) -> Path:
    return _paths()[garment]
