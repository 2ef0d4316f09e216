# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be read from a prompt and done to it, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .client import Prompt
from .comfyui import CHECKOUT

OWN_GARMENTS = CHECKOUT / "workflows" / "garments"
DOLLS_GARMENTS = CHECKOUT / "demo" / "garments"
EXAMPLE = "AnyDressingExampleGarment"
RANDOM_MODELS = {
    "CheckpointLoaderSimple": {"ckpt_name": "anydressing_random_sd15.safetensors"},
    "ControlNetLoader": {"control_net_name": "anydressing_random_controlnet.safetensors"},
    "LoraLoader": {"lora_name": "anydressing_random_style_lora.safetensors"},
}
"""What stands in for an artist's own models: inputs by the type of node."""


def shipped(name: str) -> Prompt:
    """The prompt of a shipped workflow, by its name in workflows/api; nodes that are muted in the workflow, too."""
    return json.loads((CHECKOUT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def garment_pictures(prompt: Prompt) -> list[Path]:
    """Return the example garments that a prompt loads, in the order of its nodes."""
    names = [f"{node['inputs']['garment']}.png" for node in prompt.values() if node["class_type"] == EXAMPLE]
    return [folder / name for name in names for folder in (DOLLS_GARMENTS, OWN_GARMENTS) if (folder / name).is_file()]


def undressed(prompt: Prompt) -> Prompt:
    """Return the prompt without AnyDressing Apply and what maps it: what Apply fed is fed by its model."""
    prompt = {key: node for key, node in prompt.items() if node["class_type"] != "AnyDressingAttentionMaps"}
    models = {key: node["inputs"]["model"] for key, node in prompt.items() if node["class_type"] == "AnyDressingApply"}
    return {
        key: {**node, "inputs": {name: _rewired(value, models) for name, value in node["inputs"].items()}}
        for key, node in prompt.items()
        if key not in models
    }


def drawn_by(prompt: Prompt, key: str) -> Prompt:
    """Return what a node needs of a prompt, and no more."""
    links = [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
    needed = {name: node for link in links for name, node in drawn_by(prompt, link).items()}
    return needed | {key: prompt[key]}


def _rewired(value: Any, models: dict[str, Any]) -> Any:
    """Return an input with a link to a dropped node replaced by that node's own model."""
    while isinstance(value, list) and value[0] in models:
        value = models[value[0]]
    return value
