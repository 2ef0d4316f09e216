# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Garment Encode: one garment picture through GarmentsNet, once.

One node for each garment: ComfyUI's output cache then re-encodes only the garment that changed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..anydressing_core.canvas import GarmentCanvas, Window, foreground_tokens, lay_out, stretch_out, window_around
from ..anydressing_core.digests import ordered_digest
from ..anydressing_core.latents import CELL, half_size, latent_size
from ..anydressing_core.noise_levels import LEVELS
from ..anydressing_core.pixels import as_pixels, signed_of
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import AttentionSite, UNetShape
from .garment import TRAINING_FREE, AnyDressing, Garment, Level, Origin, Tokens
from .garment_model_pass import read_by_model
from .garment_pass import pass_memory
from .garments_net import garment_features
from .inputs import canvas_size, choice, line, require_anydressing, require_clip, require_model, require_vae
from .loader import known_slots
from .notes import tell
from .pictures import GarmentPicture, garment_picture, to_image
from .reference_pass import read_levels
from .types import CATEGORY, SEARCH_ALIASES, AnyDressingWire, GarmentWire
from .unet import require_file_match, require_reader_match, require_standard_context, unet_digest, unet_shape
from .words import embedded_words, empty_prompt

SIZES = ["full", "half", "custom"]
TOKEN_BUDGETS = ["as trained", "all", "foreground"]

NO_PLACES = " No clip is connected: garments are not kept to their places."


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
                    tooltip="One garment, best laid flat on white or any plain ground, 512 pixels or more. It is padded on "
                    "white, never stretched (for a garment_model stretched, on grey).",
                ),
                io.Combo.Input(
                    "slot", options=known_slots(), tooltip="What kind of garment this is; the file must know it."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the garment, which is cut out along it and laid on white. Masks come both ways round: "
                    "Load Image's MASK of a transparent picture is white around the garment (turn invert_mask on); what you "
                    "paint over the garment in the Mask Editor is white on it (leave it off). The preview shows what is "
                    "taken. A mask that hides nothing counts as none, and so does one that is black all over.",
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
                    "as trained: what the file says; without a file, foreground; of a garment_model, all.",
                ),
                io.Boolean.Input(
                    "keep_loras",
                    default=False,
                    advanced=True,
                    tooltip="Read the garment with your LoRAs in the model. Off is what files are trained with.",
                ),
                io.Boolean.Input(
                    "invert_mask",
                    default=False,
                    optional=True,
                    tooltip="The mask is white around the garment and black on it, as Load Image's MASK of a transparent "
                    "picture is.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Your checkpoint's CLIP. With it a garment that is dressed by reference keeps to the place of its "
                    "words; without it garments may mix.",
                ),
                io.String.Input(
                    "words",
                    default="",
                    optional=True,
                    tooltip="What this garment is called, as your prompt calls it, in English: striped polo shirt. Empty takes the slot's own "
                    "word. Needs clip.",
                ),
                io.Boolean.Input(
                    "reference",
                    default=False,
                    optional=True,
                    tooltip="With a file: dress by reference as well, which brings colours nearer. Without a file it always does.",
                ),
                io.Model.Input(
                    "garment_model",
                    optional=True,
                    tooltip="Without a file: another U-Net that was trained to read garments for SD1.5, MagicClothing's for one, "
                    "from Load Diffusion Model. It reads the garment in place of your checkpoint, LoRAs and all; needs clip, and "
                    "no words. Those weights are CC BY-NC-SA 4.0: not for commerce.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
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
        invert_mask: bool = False,
        clip: Any = None,
        words: str = "",
        reference: bool = False,
        garment_model: Any = None,
    ) -> io.NodeOutput:
        require_vae(vae)
        shape = _check_model(model, anydressing)
        _check_slot(slot, anydressing)
        canvas_of = _canvas_size(choice("size", size, SIZES), width, height, anydressing)
        text = _Text.of(clip, line("words", words), slot, shape)
        by_model = garment_model is not None
        if by_model:
            _check_garment_model(garment_model, shape, anydressing, text)
        found = garment_picture(image, mask, invert=invert_mask)
        canvas = lay_out(found.picture, *canvas_of, found.mask)
        counted = _counted(choice("garment_tokens", garment_tokens, TOKEN_BUDGETS), anydressing, canvas, by_model)
        _refuse_blank(canvas, found.origin, counted)
        by_reference = reference or anydressing.checkpoint is None
        placed = by_reference and not by_model
        said = _words(canvas, found, counted, by_model) + (NO_PLACES if placed and text.words is None else "")
        tell(cls, said)
        began = time.perf_counter()
        if by_model:
            canvas = stretch_out(found.picture, *canvas_of, found.mask)
            _refuse_uncounted(canvas, counted)
        progress = comfy.utils.ProgressBar(3)

        def went_on() -> None:
            progress.update(1)
            comfy.model_management.throw_exception_if_processing_interrupted()

        latent, cells = _encode_picture(vae, canvas.picture), canvas.cells
        window = window_around(cells, shape.stride) if counted == "cropped" else Window(0, 0, *cells.shape)
        went_on()
        tokens: Tokens = ()
        if anydressing.checkpoint is not None:
            part = window.of(latent)
            tokens = garment_features(model, shape, part, anydressing.checkpoint, slot, keep_loras=keep_loras)
        went_on()
        levels: tuple[Level, ...] = ()
        if by_model:
            assert text.empty is not None
            levels = (read_by_model(garment_model, model, shape, latent, text.empty),)
        elif by_reference:
            levels = read_levels(model, shape, latent, text.empty, keep_loras=keep_loras)
        progress.update(1)

        _refuse_not_finite(tokens, levels, by_model)
        if counted != "all":
            tokens = _own_tokens(shape.sites, tokens, window.of(cells))
            levels = tuple(_own_level(level, cells) for level in levels)
        origin = Origin(_kept_picture(canvas), words, unet_digest(model), keep_loras, counted != "all")
        content = ordered_digest(
            latent, *tokens[-1:], *(part for level in levels for part in level.tokens[-1]), slot, anydressing.identity
        )
        took = time.perf_counter() - began
        reader, rows = (garment_model, 1) if by_model else (model, LEVELS if by_reference else 1)
        asked = pass_memory(reader, rows, latent if levels else window.of(latent))
        tell(
            cls, f"{_measured(canvas.picture, tokens, levels)}, {took:.1f} s, read within {asked / 1e6:.0f} MB\n{said}"
        )
        named = text.words if placed else None
        garment = Garment(anydressing, shape, slot, content, tokens, levels, by_model, named, origin)
        seen = canvas.picture if counted == "all" else canvas.preview
        return io.NodeOutput(garment, ui=ui.PreviewImage(to_image(seen), cls=cls))


class _Text(NamedTuple):
    """words: what the garment is called, (C_text,). empty: the empty prompt, (1, T, C_text). None without a CLIP."""

    words: Tensor | None
    empty: Tensor | None

    @classmethod
    def of(cls, clip: Any, words: str, slot: str, shape: UNetShape) -> _Text:
        if clip is None:
            return cls(None, None)
        require_clip(clip)
        width = shape.cross_attention_dim
        return cls(embedded_words(clip, words, slot, width), empty_prompt(clip, width))


def _check_model(model: Any, anydressing: AnyDressing) -> UNetShape:
    require_model(model)
    require_anydressing(anydressing)
    shape = unet_shape(model)
    if anydressing.checkpoint is None:
        require_standard_context(shape, model)
    else:
        require_file_match(shape, anydressing.checkpoint.info.unet, anydressing.name)
    return shape


def _check_garment_model(garment_model: Any, shape: UNetShape, anydressing: AnyDressing, text: _Text) -> None:
    name = "garment_model"
    require_model(garment_model, name)
    if anydressing.checkpoint is not None:
        raise refusal(
            f"{name}:",
            f"it reads garments in place of an AnyDressing file, and {anydressing.name!r} is loaded",
            "Each of the two was trained to read garments alone.",
            f"choose {TRAINING_FREE!r} in the AnyDressing Loader, or disconnect {name}.",
        )
    require_reader_match(shape, garment_model, name)
    if text.empty is None:
        raise refusal(
            "clip:", "none is connected", f"{name} reads with the empty prompt.", "connect your checkpoint's CLIP."
        )


def _check_slot(slot: str, anydressing: AnyDressing) -> None:
    if not isinstance(slot, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        choice("slot", slot, known_slots())
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
        return canvas_size(width, height)
    return half_size(anydressing.resolution) if size == "half" else anydressing.resolution


def _counted(budget: str, anydressing: AnyDressing, canvas: GarmentCanvas, by_model: bool) -> str:
    """Which tokens take part: "all", "foreground", or with a file that was trained so "cropped"."""
    if budget != "as trained":
        return budget
    if by_model:
        return "all"
    if anydressing.checkpoint is not None:
        return anydressing.checkpoint.info.garment_tokens
    return "foreground" if canvas.cells.any() else "all"


def _refuse_blank(canvas: GarmentCanvas, origin: str, counted: str) -> None:
    if canvas.is_nearly_empty:
        by_mask = origin == "mask"
        raise refusal(
            "mask:" if by_mask else "image:",
            "next to nothing but white is left of the picture" if by_mask else "it is white all over",
            "The mask seems to be the wrong way round: it takes what is white and hides the rest."
            if by_mask
            else "There is no garment to read.",
            "switch invert_mask, or make the mask from this very picture." if by_mask else "connect another picture.",
        )
    _refuse_uncounted(canvas, counted)


def _refuse_uncounted(canvas: GarmentCanvas, counted: str) -> None:
    if counted != "all" and not canvas.cells.any():
        raise refusal(
            "image:",
            "no garment can be told from the ground",
            "Everything has the colour of the picture's border, and garment_tokens asks for the garment alone.",
            "connect a mask that is white on the garment, or set garment_tokens to all.",
        )


def _words(canvas: GarmentCanvas, found: GarmentPicture, counted: str, by_model: bool) -> str:
    """What of the picture is taken for the garment, and how that was told."""
    if canvas.masked:
        doubt = " Its border is taken and a piece within is not: if that piece is the garment, switch invert_mask."
        told = f"the garment is {canvas.share:.0%} of the picture, {found.told_by}."
        return told + doubt if found.seems_inverted else told
    if canvas.is_told_apart:
        rest = "left out" if counted != "all" else "turned grey" if by_model else "read along"
        return f"the garment is {canvas.share:.0%} of the picture; the plain ground around it is {rest}."
    return (
        f"garment and ground could not be told apart ({canvas.share:.0%} of the picture is no plain ground): all of that is "
        "read. AnyDressing Prepare Garment cuts it out of more grounds than that; ComfyUI's Remove Background of any."
    )


def _kept_picture(canvas: GarmentCanvas) -> Tensor:
    """What was read, (H, W, 3) in 8 bits, or (H, W, 4) with the mask as alpha."""
    parts = [canvas.picture] if canvas.mask is None else [canvas.picture, signed_of(canvas.mask)]
    return torch.from_numpy(as_pixels(torch.cat(parts, dim=1)[0]))


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
    if not torch.isfinite(latent).all():
        raise refusal(
            "vae:",
            "it makes NaN or infinity of the garment's picture",
            "Some VAEs overflow in half precision.",
            "start ComfyUI with --fp32-vae, or connect another VAE.",
        )
    return latent


def _parts(tokens: Tokens, levels: tuple[Level, ...]) -> list[Tensor]:
    """All that was read of a garment."""
    return [*tokens, *(part for level in levels for pair in level.tokens for part in pair)]


def _refuse_not_finite(tokens: Tokens, levels: tuple[Level, ...], by_model: bool) -> None:
    if not all(bool(torch.isfinite(part).all()) for part in _parts(tokens, levels)):
        raise refusal(
            "garment_model:" if by_model else "model:",
            "reading the garment gave NaN or infinity",
            "It overflows in the precision that it runs in, or a LoRA or the AnyDressing file is too strong.",
            f"{'weaken the LoRAs' if by_model else 'turn keep_loras off'}, start ComfyUI with --fp32-unet, or try another "
            "checkpoint or file.",
        )


def _own_tokens(sites: Sequence[AttentionSite], tokens: Tokens, cells: Tensor) -> Tokens:
    """Of each site's tokens (1, L_g, C) those that see a cell that shows the garment, (h, w) bool."""

    def kept(site: AttentionSite, part: Tensor) -> Tensor:
        return part[:, foreground_tokens(cells, site.grid(*cells.shape)).to(part.device)]

    return tuple(kept(site, part) for site, part in zip(sites, tokens, strict=bool(tokens)))


def _own_level(level: Level, cells: Tensor) -> Level:
    keys, values = (_own_tokens(level.sites, parts, cells) for parts in zip(*level.tokens, strict=True))
    return level._replace(tokens=tuple(zip(keys, values, strict=True)))


def _measured(canvas: Tensor, tokens: Tokens, levels: tuple[Level, ...]) -> str:
    """How large what was read is: of the canvas, its tokens at the finest site, and what is kept."""
    parts = _parts(tokens, levels)
    size = sum(part.numel() * part.element_size() for part in parts)
    most = max(part.shape[1] for part in parts)
    return f"{canvas.shape[-1]} x {canvas.shape[-2]}, {most} tokens, {size / 1e6:.0f} MB"
