# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Loader: a file in models/anydressing, or reference mode without any."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..anydressing_core.checkpoint import load_checkpoint, read_info
from ..anydressing_core.refusals import refusal
from .garment import TRAINING_FREE, AnyDressing
from .types import CATEGORY, SEARCH_ALIASES, AnyDressingWire

FOLDER = "anydressing"
OWN_FILES = Path(__file__).parents[1] / "demo" / FOLDER
"""The files that come with the pack: the paper doll's."""
COMMON_SLOTS = ("upper", "lower", "hat", "dress", "outer", "shoes", "bag")

logger = logging.getLogger(__name__)


class AnyDressingLoader(io.ComfyNode):
    """Load the weights that make garments stick: garment LoRAs and W_k', W_v'."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingLoader",
            display_name="AnyDressing Loader",
            category=CATEGORY,
            description="Loads an AnyDressing file. Without one, choose training-free: garments are then dressed by "
            "reference, with your checkpoint's own attention. No file is needed, and no download.",
            search_aliases=SEARCH_ALIASES,
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[TRAINING_FREE, *folder_paths.get_filename_list(FOLDER)],
                    extra_dict={"anydressing_slots": slots_of_files()},  # web/anydressing.js reads it
                    tooltip="A .safetensors file in models/anydressing, or training-free: no file needed, any SD1.5 "
                    "checkpoint. Connect clip to Garment Encode then, so that each garment finds its place.",
                )
            ],
            outputs=[
                AnyDressingWire.Output(
                    display_name="anydressing",
                    tooltip="The loaded file, for every Garment Encode node of this picture.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        """Load again when the file on disk is another one under the same name."""
        return file if file == TRAINING_FREE else file_on_disk(FOLDER, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        if file == TRAINING_FREE:
            logger.info("AnyDressing: no file. Garments are dressed by reference, with the checkpoint's own attention.")
            return io.NodeOutput(AnyDressing(TRAINING_FREE, None))
        path = model_path(file)
        try:
            return io.NodeOutput(AnyDressing(file, load_checkpoint(path)))
        except ValueError as error:
            raise ValueError(f"file: {error}") from error


def register_model_folder() -> None:
    """Make models/anydressing, and the pack's own files, known to ComfyUI, showing .safetensors files only."""
    default = Path(folder_paths.models_dir) / FOLDER
    with contextlib.suppress(OSError):  # a read-only models folder keeps nobody from dressing training-free
        default.mkdir(parents=True, exist_ok=True)
    folder_paths.add_model_folder_path(FOLDER, str(default), is_default=True)
    folder_paths.add_model_folder_path(FOLDER, str(OWN_FILES))  # last: a file of the same name in models/ is meant
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def model_path(name: str) -> Path:
    """Find a file by the name in the Loader's list. Raises ValueError when it is not there (any more)."""
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise refusal(
            "file:",
            f"{name!r} is not in models/anydressing",
            f"Searched: {folders}.",
            "put the file there and refresh (key R), choose another file, or choose training-free.",
        )
    return Path(path)


def file_on_disk(folder: str, name: str) -> Any:
    """What tells a file from another one under the same name in a model folder; its name when there is none."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        return name
    status = Path(path).stat()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def known_slots() -> list[str]:
    """The garment kinds to offer: the common ones, and those of every readable file in models/anydressing."""
    trained = [slot for slots in slots_of_files().values() for slot in slots]
    return list(dict.fromkeys([*COMMON_SLOTS, *trained]))


def slots_of_files() -> dict[str, list[str]]:
    """The garment kinds that every readable file in models/anydressing was trained for."""
    slots: dict[str, list[str]] = {}
    for name in folder_paths.get_filename_list(FOLDER):
        with contextlib.suppress(ValueError, OSError):  # the Loader says what is wrong with it, when it is chosen
            slots[name] = list(read_info(model_path(name)).slots)
    return slots
