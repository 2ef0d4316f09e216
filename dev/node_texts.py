# SPDX-License-Identifier: GPL-3.0-or-later
"""What ComfyUI's help panel and its languages say of our nodes, kept the same as what the nodes themselves say.

    python -m dev.node_texts

writes `locales/en/nodeDefs.json` from the nodes, and in every help page of every language, `web/docs/NODE.md` and
`web/docs/NODE/LANGUAGE.md`, the table of inputs from that language's `nodeDefs.json`. The rest of a page is written by hand.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .comfyui import CHECKOUT, find_or_fetch
from .marked import around
from .server import ComfyServer

LANGUAGES = ("zh", "ja", "ko")
"""The languages beside English; no native speaker has read them."""

PAGES, LOCALES = CHECKOUT / "web" / "docs", CHECKOUT / "locales"
BEGIN, END = "<!-- inputs: written by `python -m dev.node_texts` -->", "<!-- end of inputs -->"

Texts = Mapping[str, Any]
"""Node id -> display_name, description, inputs (name -> name, tooltip), outputs (number -> name, tooltip)."""


def texts_of(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """What our nodes say of themselves, as ComfyUI's `nodeDefs.json` spells it."""
    ours = {name: info for name, info in object_info.items() if info["category"].startswith("AnyDressing")}
    return {name: _texts_of_node(info) for name, info in sorted(ours.items())}


def texts_in(language: str) -> Texts:
    """What a language's file says."""
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def page_of(node: str, language: str) -> Path:
    """The help page of a node; English stands in for the languages that have none."""
    return PAGES / f"{node}.md" if language == "en" else PAGES / node / f"{language}.md"


def with_table(page: str, texts: Texts) -> str:
    """A help page with the table of its node's inputs anew. Raises ValueError when it has no place for it."""
    rows = [f"| **{entry['name']}** | {entry['tooltip']} |" for entry in texts["inputs"].values()]
    table = "\n".join([BEGIN, *(["", "| | |", "|---|---|", *rows, ""] if rows else []), END])
    before, after = around(page, BEGIN, END, "This help page", "the inputs")
    return before + table + after


def main() -> None:
    """Write what can be written."""
    with tempfile.TemporaryDirectory() as base, ComfyServer(find_or_fetch(), Path(base)) as server:
        texts = texts_of(server.object_info())
    english = LOCALES / "en" / "nodeDefs.json"
    english.parent.mkdir(parents=True, exist_ok=True)
    english.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for language in ("en", *LANGUAGES):
        for node in texts:
            path = page_of(node, language)
            if path.is_file():
                page = with_table(path.read_text(encoding="utf-8"), texts_in(language)[node])
                path.write_text(page, encoding="utf-8")
                print(path.relative_to(CHECKOUT))


def _texts_of_node(info: Mapping[str, Any]) -> dict[str, Any]:
    groups = [info["input"].get(group, {}) for group in ("required", "optional")]
    inputs = {name: entry[1] for group in groups for name, entry in group.items()}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, options in inputs.items()},
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


if __name__ == "__main__":
    main()
