# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the prompts in workflows/api into the workflows that artists open, with the real frontend.

`python -m dev.export_workflows [NAME ...]` writes workflows/NAME.json for each (for all, when none is named), with the note in
workflows/notes/NAME.md beside its nodes, and NAME.jpg, which the template browser shows.
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
from .layouts import LAYOUTS, laid_out
from .prompts import OWN_GARMENTS, garment_pictures
from .random_checkpoint import build_in_subprocess
from .server import ComfyServer

WORKFLOWS = CHECKOUT / "workflows"
DOWNLOADS = {
    "v1-5-pruned-emaonly-fp16.safetensors": {
        "name": "v1-5-pruned-emaonly-fp16.safetensors",
        "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
        "v1-5-pruned-emaonly-fp16.safetensors",
        "directory": "checkpoints",
    }
}
"""What the frontend offers to download when an artist lacks it; the same file as in ComfyUI's own first workflow."""

FLAGS = ["--use-pytorch-cross-attention"]  # on a CPU two to three times as fast
NODE_PACK = "anydressing"  # our name in the Comfy Registry
NODE_PACK_VERSION = "0.1.0"


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
        ComfyServer(comfyui, Path(base), models=build_in_subprocess(comfyui), flags=FLAGS) as server,
    ):
        for picture in sorted(OWN_GARMENTS.glob("*.png")):
            server.upload_image(picture)
        with Frontend(server) as frontend:
            failed = [path.stem for path in paths if not export(path, server, frontend, version_of(comfyui))]
    return 1 if failed else 0


def export(path: Path, server: ComfyClient, frontend: Frontend, core_version: str) -> bool:
    """Write one workflow beside `api/`; say whether it comes back as the same prompt."""
    api: Prompt = json.loads(path.read_text(encoding="utf-8"))
    noted = with_note(frontend.api_to_ui(api, path.stem), path.stem)
    workflow = finished(laid_out(noted, LAYOUTS[path.stem]), path.stem, core_version)
    target = WORKFLOWS / path.name
    target.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    thumbnail(server, api).save(target.with_suffix(".jpg"), quality=85)
    lost = list(differences(api, frontend.ui_to_api(workflow)))
    print(f"{target.relative_to(CHECKOUT)}: {len(workflow['nodes'])} nodes", *lost, sep="\n  ")
    return not lost


def finished(workflow: Workflow, name: str, core_version: str) -> Workflow:
    """Return the workflow without what changes from export to export, and with each node's pack and version.

    By these the frontend tells an artist who lacks a node which pack to install.
    """
    for node in workflow["nodes"]:
        ours = node["type"].startswith("AnyDressing")
        pack = (NODE_PACK, NODE_PACK_VERSION) if ours else ("comfy-core", core_version)
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


def thumbnail(server: ComfyClient, api: Prompt) -> Image.Image:
    """Return what the template browser shows: the garments in a column, and who wears them.

    Garments alone where that takes the artist's own checkpoint, which nobody has here.
    """
    runs = not any(node["class_type"] == "CheckpointLoaderSimple" for node in api.values())
    dressed = server.run(api).check().images if runs else {}
    people = [
        Image.open(io.BytesIO(dressed[key][0])) for key in sorted(dressed) if api[key]["class_type"] == "SaveImage"
    ]
    garments = [Image.open(path) for path in garment_pictures(api)]
    tall = 576
    small = tall // max(2, len(garments))
    sheet = Image.new("RGB", (round(small * 3 / 4) + round(tall * 3 / 4) * len(people), tall), "white")
    for index, garment in enumerate(garments):
        sheet.paste(
            garment.convert("RGB").resize((round(small * 3 / 4), small), Image.Resampling.LANCZOS), (0, small * index)
        )
    for index, person in enumerate(people):
        place = (round(small * 3 / 4) + round(tall * 3 / 4) * index, 0)
        sheet.paste(person.convert("RGB").resize((round(tall * 3 / 4), tall), Image.Resampling.LANCZOS), place)
    return sheet


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
