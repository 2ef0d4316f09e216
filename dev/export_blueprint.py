# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the subgraph blueprint "Dress" of a workflow, with the real frontend: `python -m dev.export_blueprint`.

Loader, both Garment Encodes and Apply become one node, which artists find among their nodes, under Subgraph Blueprints.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from .comfyui import CHECKOUT, PINNED, find_or_fetch
from .export_workflows import FLAGS, PACKS, WORKFLOWS
from .frontend import Frontend, Workflow
from .layouts import LAYOUTS
from .server import ComfyServer

OF = "11_own_checkpoint"
BLUEPRINT = CHECKOUT / "subgraphs" / "Dress.json"
WITHIN = {
    "2": ("AnyDressing file", (0, 0)),
    "5": ("Read the first garment", (320, 0)),
    "6": ("Read the second garment", (320, 640)),
    "7": ("Dress", (660, 0)),
}
"""The nodes of the workflow that become one: what they are called there, and where they lie."""

SOCKETS = ("model", "clip", "vae", "first garment", "second garment")
WIDGETS = (("2", "file"), ("5", "slot"), ("5", "words"), ("6", "slot"), ("6", "words"), ("7", "strength"))
"""What can be set from outside."""

WORDS = {"5": "breton shirt", "6": "jeans"}

CONVERT = """ids => {
    const nodes = app.graph._nodes.filter(n => ids.includes(String(n.id)))
    const {subgraph, node} = app.graph.convertToSubgraph(new Set(nodes))
    return JSON.stringify({subgraph: subgraph.asSerialisable(), node: node.serialize()})
}"""


def blueprint(frontend: Frontend) -> Workflow:
    """The blueprint, as ComfyUI serves it to its page."""
    workflow = json.loads((WORKFLOWS / f"{LAYOUTS[OF].name}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "AnyDressingGarmentEncode":
            place = node["widgets_values"].index(WORDS[str(node["id"])])
            node["widgets_values"][place] = ""  # what a garment is called is the artist's to say
    frontend.open(workflow)
    made = json.loads(frontend.page.evaluate(CONVERT, list(WITHIN)))
    subgraph, node = made["subgraph"], made["node"]
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, "AnyDressing Dress"))
    subgraph |= {"id": key, "name": BLUEPRINT.stem, "category": "AnyDressing", "groups": []}
    subgraph["description"] = "Dresses the person that a MODEL will generate in two garments."
    _named(subgraph, node)
    node |= {"id": 1, "type": key, "title": BLUEPRINT.stem, "pos": [0, 0], "order": 0}
    node["properties"] = {"proxyWidgets": [list(widget) for widget in WIDGETS]}
    for socket in node["inputs"]:
        socket["link"] = None
    for socket in node["outputs"]:
        socket["links"] = []
    empty: dict[str, Any] = {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "version": 0.4,
    }
    return {**empty, "definitions": {"subgraphs": [subgraph]}, "extra": {}}


def _named(subgraph: dict[str, Any], node: dict[str, Any]) -> None:
    """Give sockets and inner nodes names that say what they hold, and ids that are the same at every export."""
    left: list[str] = list(SOCKETS)
    for outside, inside in zip(node["inputs"], subgraph["inputs"], strict=True):
        name = next(name for name in left if inside["type"] == ("IMAGE" if "garment" in name else name.upper()))
        left.remove(name)
        outside["label"] = inside["label"] = name
        inside["id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"AnyDressing Dress {name}"))
    for inside in subgraph["outputs"]:
        inside["id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, "AnyDressing Dress, dressed"))
        inside["linkIds"] = list(dict.fromkeys(inside["linkIds"]))
    for inner in subgraph["nodes"]:
        inner["title"], inner["pos"] = WITHIN[str(inner["id"])]
        inner["flags"] = {}
        inner["properties"] |= dict(zip(("cnr_id", "ver"), PACKS["AnyDressing"], strict=True))
        inner["properties"].pop("aux_id", None)


def main(out: Path = BLUEPRINT) -> int:
    """Write the blueprint."""
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(find_or_fetch(PINNED), Path(base), flags=FLAGS) as server,
        Frontend(server) as frontend,
    ):
        made = blueprint(frontend)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
