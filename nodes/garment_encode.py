# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Garment Encode: one garment picture through GarmentsNet, once.

One node for each garment: ComfyUI's output cache then re-encodes only the garment that changed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.canvas import canvas_mask, foreground_cells, foreground_tokens, garment_canvas
from ..anydressing_core.digests import ordered_digest
from ..anydressing_core.latents import CELL, half_size, is_whole, latent_size
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import AttentionSite, UNetShape
from .garment import AnyDressing, Garment
from .garments_net import Tokens, garment_features
from .inputs import number
from .loader import known_slots
from .pictures import garment_picture, to_image
from .types import CATEGORY, SEARCH_ALIASES, AnyDressingWire, GarmentWire
from .unet import require_file_match, require_standard_context, unet_shape

SIZES = ["full", "half", "custom"]
TOKEN_BUDGETS = ["as trained", "all", "foreground"]

logger = logging.getLogger(__name__)


class AnyDressingGarmentEncode(io.ComfyNode):
    """Encode one garment with the user's own SD1.5 checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingGarmentEncode",
            display_name="AnyDressing Garment Encode",
            category=CATEGORY,
            description="Reads one garment picture with your own checkpoint. Use one node for each garment: changing "
            "one garment then re-reads only that one.",
            search_aliases=SEARCH_ALIASES,
            inputs=[
                io.Model.Input(
                    "model", tooltip="Your SD1.5 checkpoint. Its style LoRAs are ignored here unless keep_loras is on."
                ),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                AnyDressingWire.Input("anydressing", tooltip="From the AnyDressing Loader."),
                io.Image.Input(
                    "image",
                    tooltip="One garment, best laid flat on white, 512 pixels or more. It is padded on white, never "
                    "stretched.",
                ),
                io.Combo.Input(
                    "slot", options=known_slots(), tooltip="What kind of garment this is; the file must know it."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the garment; the rest becomes white background. LoadImage's MASK is white where "
                    "the picture is transparent: put Invert Mask between. It must have the picture's shape; an all-black mask counts as none.",
                ),
                io.Combo.Input(
                    "size",
                    options=SIZES,
                    default="full",
                    tooltip="full: as the file was trained. half: half each side, a quarter of the cost in every "
                    "sampling step, less detail. custom: width and height below.",
                ),
                io.Int.Input(
                    "width", default=576, min=64, max=2048, step=CELL, advanced=True, tooltip="Used by size = custom."
                ),
                io.Int.Input(
                    "height", default=768, min=64, max=2048, step=CELL, advanced=True, tooltip="Used by size = custom."
                ),
                io.Combo.Input(
                    "garment_tokens",
                    options=TOKEN_BUDGETS,
                    default="as trained",
                    advanced=True,
                    tooltip="all: the whole picture takes part. foreground: only the garment, which is faster. "
                    "as trained: what the file says.",
                ),
                io.Boolean.Input(
                    "keep_loras",
                    default=False,
                    advanced=True,
                    tooltip="Read the garment with your LoRAs in the model. Off is what files are trained with.",
                ),
            ],
            outputs=[
                GarmentWire.Output(
                    display_name="garment", tooltip="For AnyDressing Apply, or AnyDressing Garment Settings before it."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        anydressing: AnyDressing,
        image: Any,
        slot: str,
        size: str = "full",
        width: int = 576,
        height: int = 768,
        garment_tokens: str = "as trained",
        keep_loras: bool = False,
        mask: Any = None,
    ) -> io.NodeOutput:
        shape = _check_model(model, anydressing)
        _check_slot(slot, anydressing)
        picture = _lay_out(image, mask, _canvas_size(size, width, height, anydressing), garment_tokens, anydressing)
        progress = comfy.utils.ProgressBar(2)

        latent = _encode_picture(vae, picture.canvas)
        progress.update(1)
        comfy.model_management.throw_exception_if_processing_interrupted()
        tokens = garment_features(model, shape, latent, anydressing.checkpoint, slot, keep_loras=keep_loras)
        progress.update(1)

        if picture.cells is not None:
            tokens = _keep_foreground(shape, tokens, picture.cells)
        content = ordered_digest(latent, tokens[-1][0], slot, anydressing.identity)
        _log(slot, picture.canvas, tokens)
        garment = Garment(anydressing, shape, slot, content, tokens)
        return io.NodeOutput(garment, ui=ui.PreviewImage(to_image(picture.preview), cls=cls))


@dataclass(frozen=True)
class LaidOutPicture:
    """A garment on its canvas (1, 3, H, W) in [-1, 1]; cells (h, w) bool tell which count, None when all do."""

    canvas: Tensor
    cells: Tensor | None

    @property
    def preview(self) -> Tensor:
        """The garment as the network sees it, with what does not count greyed out."""
        if self.cells is None:
            return self.canvas
        kept = functional.interpolate(self.cells[None, None].float(), scale_factor=CELL)
        return torch.where(kept > 0, self.canvas, self.canvas * 0.25 + 0.25)


def _check_model(model: Any, anydressing: AnyDressing) -> UNetShape:
    shape = unet_shape(model)
    if anydressing.checkpoint is None:
        require_standard_context(shape, model)
    else:
        require_file_match(shape, anydressing.checkpoint.info.unet, anydressing.name)
    return shape


def _check_slot(slot: str, anydressing: AnyDressing) -> None:
    if anydressing.checkpoint is None or slot in anydressing.checkpoint.info.slots:
        return
    trained = ", ".join(anydressing.checkpoint.info.slots)
    raise refusal(
        "slot:",
        f"{anydressing.name!r} does not know the garment kind {slot!r}",
        f"It was trained for: {trained}.",
        f"choose one of {trained}, or load a file that was trained for {slot!r}.",
    )


def _canvas_size(size: str, width: int, height: int, anydressing: AnyDressing) -> tuple[int, int]:
    """Height and width of the garment's canvas in pixels."""
    if size == "custom":
        chosen = int(number("height", height, 64, 2048)), int(number("width", width, 64, 2048))
        if not is_whole(chosen):
            raise refusal(
                "width, height:",
                f"{chosen[1]} x {chosen[0]} is not a multiple of {CELL}",
                f"The VAE works on cells of {CELL} pixels.",
                f"choose multiples of {CELL}.",
            )
        return chosen
    return half_size(anydressing.resolution) if size == "half" else anydressing.resolution


def _lay_out(image: Any, mask: Any, size: tuple[int, int], budget: str, anydressing: AnyDressing) -> LaidOutPicture:
    picture, kept = garment_picture(image, mask)
    canvas = garment_canvas(picture, *size, mask=kept)
    if budget == "as trained":
        budget = "all" if anydressing.checkpoint is None else anydressing.checkpoint.info.garment_tokens
    if budget == "all":
        return LaidOutPicture(canvas, None)
    cells = foreground_cells(canvas, None if kept is None else canvas_mask(kept, *size))
    if not cells.any():
        raise refusal(
            "image:",
            "no garment can be told from the background",
            "Everything is near white, or outside the mask, and garment_tokens asks for the garment alone.",
            "connect a mask that is white on the garment, or set garment_tokens to all.",
        )
    return LaidOutPicture(canvas, cells)


def _encode_picture(vae: Any, canvas: Tensor) -> Tensor:
    latent = vae.encode(to_image(canvas))
    expected = (1, 4, *latent_size((canvas.shape[-2], canvas.shape[-1])))
    if tuple(latent.shape) != expected:
        raise refusal(
            "vae:",
            f"the latent has the shape {tuple(latent.shape)}, expected {expected}",
            "This VAE does not belong to Stable Diffusion 1.5.",
            "connect the VAE output of your SD1.5 checkpoint.",
        )
    return latent


def _keep_foreground(shape: UNetShape, tokens: Tokens, cells: Tensor) -> Tokens:
    def kept_at(site: AttentionSite) -> Tensor:
        return foreground_tokens(cells, site.grid(*cells.shape))

    return tuple(
        tuple(part[:, kept_at(site).to(part.device)] for part in parts)
        for site, parts in zip(shape.sites, tokens, strict=True)
    )


def _log(slot: str, canvas: Tensor, tokens: Tokens) -> None:
    size = sum(part.numel() * part.element_size() for parts in tokens for part in parts)
    logger.info(
        "AnyDressing: encoded %r at %d x %d (%d tokens at the finest site, %.0f MB kept)",
        slot,
        canvas.shape[-1],
        canvas.shape[-2],
        tokens[0][0].shape[1],
        size / 1e6,
    )
