# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the prompts in workflows/api into the workflows that artists open, with the real frontend.

`python -m dev.export_workflows [NAME ...]` writes each (all, when none is named) as artists find it, under the name of its
layout: the workflow with the note in workflows/notes/NAME.md beside its nodes, and the picture that the template browser shows.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from .client import ComfyClient, Prompt
from .comfyui import CHECKOUT, PINNED, find_or_fetch, version_of
from .frontend import Frontend, Workflow
from .layouts import LAYOUTS, Layout, awake, laid_out
from .prompts import garment_pictures
from .random_checkpoint import build_in_subprocess
from .server import ComfyServer

WORKFLOWS = CHECKOUT / "workflows"
DOWNLOADS = {
    "v1-5-pruned-emaonly-fp16.safetensors": {
        "name": "v1-5-pruned-emaonly-fp16.safetensors",
        "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
        "v1-5-pruned-emaonly-fp16.safetensors",
        "directory": "checkpoints",
    },
    "control_v11p_sd15_openpose_fp16.safetensors": {
        "name": "control_v11p_sd15_openpose_fp16.safetensors",
        "url": "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
        "control_v11p_sd15_openpose_fp16.safetensors",
        "directory": "controlnet",
    },
}
"""What the frontend offers to download when an artist lacks it; the same files as in ComfyUI's own workflows."""

FLAGS = ["--use-pytorch-cross-attention"]  # on a CPU two to three times as fast
PACKS = {"AnyDressing": ("anydressing", "0.1.0"), "IPAdapter": ("comfyui_ipadapter_plus", "2.0.0")}
"""Names in the Comfy Registry, and versions, by how a node's type begins; all others are ComfyUI's own."""

STAND_INS = sorted(path for path in (CHECKOUT / "dev" / "stand_ins").iterdir() if path.is_dir())
"""Packs of others that workflows name."""


def main(names: list[str]) -> int:
    """Export the named workflows; return 1 when one does not come back as the prompt it was made from."""
    known = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
    for name in names:
        if name not in known:
            print(f"There is no workflow {name!r} in workflows/api. There are: {', '.join(known)}.", file=sys.stderr)
            return 2
    comfyui = find_or_fetch(PINNED)
    paths = [WORKFLOWS / "api" / f"{name}.json" for name in names or known]
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), models=build_in_subprocess(comfyui), packs=STAND_INS, flags=FLAGS) as server,
    ):
        server.upload_image(comfyui / "input" / "example.png")  # which every ComfyUI has
        with Frontend(server) as frontend:
            failed = [path.stem for path in paths if not export(path, server, frontend, version_of(comfyui))]
    return 1 if failed else 0


def export(path: Path, server: ComfyClient, frontend: Frontend, core_version: str) -> bool:
    """Write one workflow beside `api/`; say whether it comes back as the same prompt, without what is muted."""
    api: Prompt = json.loads(path.read_text(encoding="utf-8"))
    layout = LAYOUTS[path.stem]
    noted = with_note(frontend.api_to_ui(api, path.stem), path.stem)
    workflow = finished(laid_out(noted, layout), path.stem, core_version)
    target = WORKFLOWS / f"{layout.name}.json"
    target.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    thumbnail(server, awake(api, layout), layout).save(target.with_suffix(".jpg"), quality=85)
    lost = list(differences(awake(api, layout), frontend.ui_to_api(workflow)))
    print(f"{target.relative_to(CHECKOUT)}: {len(workflow['nodes'])} nodes", *lost, sep="\n  ")
    return not lost


def finished(workflow: Workflow, name: str, core_version: str) -> Workflow:
    """Return the workflow without what changes from export to export, and with each node's pack and version.

    By these the frontend tells an artist who lacks a node which pack to install.
    """
    for node in workflow["nodes"]:
        packs = (pack for start, pack in PACKS.items() if node["type"].startswith(start))
        pack = next(packs, ("comfy-core", core_version))
        node["properties"] |= dict(zip(("cnr_id", "ver"), pack, strict=True))
        node["properties"].pop("aux_id", None)
        wanted = [DOWNLOADS[value] for value in node.get("widgets_values", []) if str(value) in DOWNLOADS]
        if wanted:
            node["properties"]["models"] = wanted
    return {**workflow, "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)), "revision": 0}


def with_note(workflow: Workflow, name: str) -> Workflow:
    """Return the workflow with its note. A note is no part of the prompt."""
    note = {
        "id": workflow["last_node_id"] + 1,
        "type": "MarkdownNote",
        "pos": [0, 0],
        "size": [0, 0],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [(WORKFLOWS / "notes" / f"{name}.md").read_text(encoding="utf-8")],
    }
    return {**workflow, "nodes": [note, *workflow["nodes"]], "last_node_id": note["id"]}


def thumbnail(server: ComfyClient, api: Prompt, layout: Layout) -> Image.Image:
    """Return what the template browser shows: the garments in a column, and who wears them, from left to right.

    Garments alone where that takes the artist's own checkpoint, which nobody has here.
    """
    runs = not any(node["class_type"] == "CheckpointLoaderSimple" for node in api.values())
    shown = server.run(api).check().images if runs else {}
    keys = [lies.key for _, column in layout.columns for lies in column]
    people = [shown[key][0] for key in keys if key in shown and api[key]["class_type"] in ("SaveImage", "PreviewImage")]
    garments = garment_pictures(api)
    small = TALL // max(2, len(garments))
    column = [_in_height(Image.open(path), small) for path in garments]
    pictures = [Image.open(io.BytesIO(person)) for person in people]
    tallest = max((picture.height for picture in pictures), default=1)
    row = [_in_height(picture, TALL * picture.height // tallest) for picture in pictures]
    sheet = Image.new("RGB", (column[0].width + sum(person.width for person in row), TALL), "white")
    for index, garment in enumerate(column):
        sheet.paste(garment, (0, small * index))
    left = column[0].width
    for person in row:
        sheet.paste(person, (left, 0))
        left += person.width
    return sheet


TALL = 576  # of a thumbnail, in pixels


def _in_height(picture: Image.Image, height: int) -> Image.Image:
    width = round(picture.width * height / picture.height)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def differences(expected: Prompt, got: Prompt) -> Iterable[str]:
    """Say in words where two prompts differ, node titles aside."""
    for key in sorted({*expected, *got}):
        yield from node_differences(key, expected.get(key, {}), got.get(key, {}))


def node_differences(key: str, expected: dict[str, Any], got: dict[str, Any]) -> Iterable[str]:
    """Say in words where two nodes of a prompt differ."""
    kind = expected.get("class_type", got.get("class_type"))
    if expected.get("class_type") != got.get("class_type"):
        yield f"node {key} ({kind}): the file has {expected.get('class_type')}, the frontend {got.get('class_type')}"
    before, after = expected.get("inputs", {}), got.get("inputs", {})
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"node {key} ({kind}), {name}: the file has {before.get(name)!r}, the frontend {after.get(name)!r}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
