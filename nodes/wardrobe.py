# SPDX-License-Identifier: GPL-3.0-or-later
"""The wardrobe: AnyDressing Save Garment and Load Garment keep what was read of a garment for another day."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from aiohttp import web
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..anydressing_core.garment_file import GarmentFile, GarmentInfo, load_garment, read_picture, save_garment
from ..anydressing_core.refusals import refusal
from .garment import TRAINING_FREE, AnyDressing, Garment, Level, Origin
from .garment_encode import AnyDressingGarmentEncode
from .inputs import line, require_anydressing, require_garment, require_model
from .loader import file_on_disk
from .notes import tell
from .types import CATEGORY, SEARCH_ALIASES, AnyDressingWire, GarmentWire
from .unet import unet_digest, unet_shape

FOLDER = "anydressing_wardrobe"
SUFFIX = ".safetensors"


class AnyDressingSaveGarment(io.ComfyNode):
    """Write an encoded garment into the wardrobe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingSaveGarment",
            display_name="AnyDressing Save Garment",
            category=f"{CATEGORY}/wardrobe",
            description=f"Keeps a garment that was read, with its picture, in output/{FOLDER}: Load Garment takes it from "
            "there and nothing is read again. It fits the checkpoint, and the AnyDressing file, that it was read with.",
            search_aliases=[*SEARCH_ALIASES, "wardrobe", "save garment"],
            inputs=[
                GarmentWire.Input("garment", tooltip="From AnyDressing Garment Encode."),
                io.String.Input(
                    "filename_prefix", default="garment", tooltip="How its file's name begins; a number follows."
                ),
                io.String.Input(
                    "licence",
                    default="",
                    optional=True,
                    tooltip="Of the garment's picture, should you pass the file on: it holds the picture.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, garment: Garment, filename_prefix: str = "garment", licence: str = "") -> io.NodeOutput:
        require_garment("garment", garment)
        content = _content(garment, line("licence", licence).strip())
        path = _new_path(line("filename_prefix", filename_prefix))
        try:
            size = save_garment(path, content)
        except ValueError as error:
            raise ValueError(f"garment: {error}") from error
        name = path.relative_to(Path(folder_paths.get_output_directory()))
        tell(cls, f"{name} holds the {garment.slot} garment, {size / 1e6:.0f} MB.")
        image = _as_image(content.picture[..., :3])
        return io.NodeOutput(ui=ui.PreviewImage(image, cls=cls))


class AnyDressingLoadGarment(io.ComfyNode):
    """Take a garment out of the wardrobe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingLoadGarment",
            display_name="AnyDressing Load Garment",
            category=f"{CATEGORY}/wardrobe",
            description="Takes a garment out of the wardrobe, as Save Garment kept it. With another checkpoint it can be read "
            "again from its own picture.",
            search_aliases=[*SEARCH_ALIASES, "wardrobe", "load garment"],
            inputs=[
                io.Combo.Input(
                    "garment",
                    options=garment_names(),
                    tooltip=f"A file in output/{FOLDER} or models/{FOLDER}. Press R when you have saved one.",
                ),
                io.Model.Input("model", tooltip="Your SD1.5 checkpoint: the one that the garment was read with."),
                AnyDressingWire.Input(
                    "anydressing", tooltip="The AnyDressing Loader, on the file that it was read with."
                ),
                io.Boolean.Input(
                    "read_again",
                    default=False,
                    optional=True,
                    tooltip="When it was read with another checkpoint or file: read its picture again with these. Needs vae.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The checkpoint's VAE, to read again."),
                io.Clip.Input("clip", optional=True, tooltip="The checkpoint's CLIP, to read again by reference."),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                GarmentWire.Output(
                    display_name="garment", tooltip="For AnyDressing Apply, or Garment Settings before it."
                ),
                io.Image.Output(display_name="image", tooltip="The picture that was read."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, garment: str, **others: Any) -> Any:
        """Load again when the file on disk is another one under the same name."""
        return file_on_disk(FOLDER, garment)

    @classmethod
    def execute(
        cls,
        garment: str,
        model: Any,
        anydressing: AnyDressing,
        read_again: bool = False,
        vae: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        require_model(model)
        require_anydressing(anydressing)
        try:
            found = load_garment(_path_of(garment))
        except ValueError as error:
            raise ValueError(f"garment: {error}") from error
        why = _why_unfit(found.info, model, anydressing)
        image = _as_image(found.picture[..., :3])
        shown = ui.PreviewImage(image, cls=cls)
        if not why:
            tell(
                cls, f"{found.info.slot}{f', {found.info.called}' if found.info.called else ''}: nothing is read again."
            )
            return io.NodeOutput(_garment(found, anydressing), image, ui=shown)
        if not read_again or found.info.by_model:
            raise refusal("garment:", f"{garment!r} does not fit: {why}", _WHY, _remedy(found.info))
        tell(cls, f"read again: {why}.")
        return io.NodeOutput(_read_again(found, model, anydressing, vae, clip), image, ui=shown)


_WHY = "What one checkpoint has read of a garment means nothing to another."


def _remedy(info: GarmentInfo) -> str:
    if info.by_model:
        return "connect what it was read with, or give its picture to Garment Encode, with the garment_model."
    return "connect what it was read with, or turn read_again on: then its own picture is read with these."


def register_wardrobe() -> None:
    """Make the wardrobe known to ComfyUI, and let the page show a garment at /anydressing/wardrobe/NAME."""
    for folder in (_folder(), Path(folder_paths.models_dir) / FOLDER):
        folder_paths.add_model_folder_path(FOLDER, str(folder))
    folder_paths.folder_names_and_paths[FOLDER][1].add(SUFFIX)
    server = getattr(PromptServer, "instance", None)  # none when nodes are used without a server
    if server is None:
        return

    @server.routes.get("/anydressing/wardrobe/{name:.*}")
    async def show(request: web.Request) -> web.Response:  # pyright: ignore[reportUnusedFunction]
        name = request.match_info["name"]
        try:
            picture = read_picture(_path_of(name))
        except (ValueError, OSError) as error:
            raise web.HTTPNotFound from error
        content = BytesIO()
        Image.fromarray(picture[..., :3].numpy()).save(content, "PNG")
        return web.Response(body=content.getvalue(), content_type="image/png")


def garment_names() -> list[str]:
    """The garments that are there."""
    return folder_paths.get_filename_list(FOLDER)


def _folder() -> Path:
    return Path(folder_paths.get_output_directory()) / FOLDER


def _path_of(name: str) -> Path:
    path = folder_paths.get_full_path(FOLDER, name) if name in garment_names() else None
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise refusal(
            "It", f"is not in the wardrobe: {name!r}", f"Searched: {folders}.", "choose one from the list, or press R."
        )
    return Path(path)


def _new_path(prefix: str) -> Path:
    """Where a garment is saved: ComfyUI's own rule for names, which lets no prefix leave the folder."""
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(_folder()))
    return Path(folder) / f"{name}_{counter:05}_{SUFFIX}"


def _content(garment: Garment, licence: str) -> GarmentFile:
    """What a file keeps of a garment. Raises ValueError for one that no checkpoint can be told from."""
    origin = garment.origin
    if origin is None or not origin.unet_digest:
        raise refusal(
            "garment:",
            "it was read with a merged MODEL",
            "Nobody could tell later whether another MODEL is the same mixture.",
            "save the merged checkpoint, load it, and read the garment with it.",
        )
    with_file = garment.anydressing.checkpoint is not None
    info = GarmentInfo(
        content=garment.content,
        unet=garment.unet,
        unet_digest=origin.unet_digest,
        slot=garment.slot,
        called=" ".join(origin.called.split()),
        file=garment.anydressing.identity if with_file else "",
        file_name=garment.anydressing.name if with_file else "",
        licence=licence,
        by_model=garment.by_model,
        loras=origin.loras,
        foreground=origin.foreground,
        levels=tuple((level.sigma, *level.canvas) for level in garment.levels),
    )
    trained = (
        dict(zip((site.key for site in garment.unet.sites), garment.tokens, strict=with_file)) if with_file else {}
    )
    levels = [
        {site.key: pair for site, pair in zip(level.sites, level.tokens, strict=True)} for level in garment.levels
    ]
    return GarmentFile(info, origin.picture, garment.words, trained, levels)


def _garment(file: GarmentFile, anydressing: AnyDressing) -> Garment:
    """The garment again."""
    info, home = file.info, comfy.model_management.intermediate_device()
    levels: list[Level] = []
    for (sigma, height, width), tokens in zip(info.levels, file.levels, strict=True):
        sites = tuple(site for site in info.unet.sites if site.key in tokens)
        pairs = tuple((tokens[site.key][0].to(home), tokens[site.key][1].to(home)) for site in sites)
        levels.append(Level(sigma, (height, width), sites, pairs))
    tokens = tuple(file.trained[site.key].to(home) for site in info.unet.sites) if info.file else ()
    origin = Origin(file.picture, info.called, info.unet_digest, info.loras, info.foreground)
    return Garment(
        anydressing, info.unet, info.slot, info.content, tokens, tuple(levels), info.by_model, file.words, origin
    )


def _why_unfit(info: GarmentInfo, model: Any, anydressing: AnyDressing) -> str:
    """Why a garment cannot be worn with this checkpoint and file; nothing when it can."""
    file = "" if anydressing.checkpoint is None else anydressing.identity
    if info.file != file:
        made_for = f"the file {info.file_name!r}" if info.file else TRAINING_FREE
        return f"it was read for {made_for}, and {anydressing.name} is loaded"
    if unet_shape(model) != info.unet:
        return "it was read with a checkpoint of another kind"
    if unet_digest(model) != info.unet_digest:
        return "it was read with another checkpoint"
    return ""


def _as_image(picture: Tensor) -> Tensor:
    """A picture in 8 bits, (H, W, 3 or 4), as an IMAGE in [0, 1]."""
    return picture[None].float() / 255


def _counted(foreground: bool, anydressing: AnyDressing) -> str:
    """Which tokens take part of a garment that is read again; a file that reads its own tokens in their window goes on so."""
    if not foreground:
        return "all"
    file = anydressing.checkpoint
    return "as trained" if file is not None and file.info.garment_tokens == "cropped" else "foreground"


@torch.inference_mode()
def _read_again(file: GarmentFile, model: Any, anydressing: AnyDressing, vae: Any, clip: Any) -> Garment:
    """Read a garment's own picture as it was read before, with another checkpoint or file."""
    info, picture = file.info, file.picture
    node = AnyDressingGarmentEncode
    out = node.execute(
        model,
        vae,
        anydressing,
        _as_image(picture),
        info.slot,
        size="custom",
        height=picture.shape[0],
        width=picture.shape[1],
        garment_tokens=_counted(info.foreground, anydressing),
        keep_loras=info.loras,
        clip=clip,
        words=info.called if clip is not None else "",
        reference=bool(info.levels),
    )
    return out.args[0]
