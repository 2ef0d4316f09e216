# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: dresses somebody through the real ComfyUI server and the shipped workflow, and names the picture."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from PIL import Image

from .client import ComfyClient, Event, Prompt, Result
from .comfyui import CHECKOUT, ComfyUIMissingError, find_or_fetch
from .contact_sheet import contact_sheet
from .layouts import LAYOUTS
from .prompts import garment_pictures, undressed
from .server import BASE, PACK, ComfyServer, ServerDiedError, has_accelerator, stop_politely

WORKFLOW = "01_two_garments"
PICTURE = CHECKOUT / "output" / "anydressing_demo.png"
MAPS = "AnyDressingAttentionMaps"
CAPTION = "Dressed by AnyDressing in ComfyUI: the same prompt and seed, with and without the garments."


def main() -> int:
    """Run the demo. Returns the exit status."""
    stop_politely()
    try:
        demo()
    except (ComfyUIMissingError, ServerDiedError, RuntimeError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


def demo() -> None:
    """Dress a person, make the same picture undressed, and put both beside the garments."""
    prompt: Prompt = json.loads((CHECKOUT / "workflows" / "api" / f"{WORKFLOW}.json").read_text(encoding="utf-8"))
    print("[1/4] Starting ComfyUI", flush=True)
    with demo_server() as server:
        print("[2/4] Dressing", flush=True)
        result = run(server, prompt)
        dressed, maps = (shown(result, prompt, kind) for kind in ("SaveImage", MAPS))
        print("[3/4] The same prompt, undressed", flush=True)
        plain = shown(run(server, undressed(prompt)), prompt, "SaveImage")
    print("[4/4] Putting the pictures side by side", flush=True)
    garments = [(path.stem.replace("_", " "), Image.open(path)) for path in garment_pictures(prompt)]
    (legend,) = result.outputs[node_of(prompt, MAPS)]["text"]
    pictures = [*garments, ("dressed", dressed), ("undressed", plain), ("where they went", maps)]
    sheet = contact_sheet(pictures, f"{CAPTION} Where they went: {legend}.")
    PICTURE.parent.mkdir(exist_ok=True)
    sheet.save(PICTURE)
    print(f"\nThe picture is {PICTURE.relative_to(CHECKOUT)}.")
    print(f"To open the same workflow in your browser: make ui ({LAYOUTS[WORKFLOW].name}, under Templates -> {PACK})")


def demo_server() -> ComfyServer:
    """Return the demo's server, not yet started; its folders are kept."""
    # On a CPU, PyTorch's attention is two to three times as fast as ComfyUI's own choice.
    flags = [] if has_accelerator() else ["--use-pytorch-cross-attention"]
    return ComfyServer(find_or_fetch(), BASE, flags=flags)


def run(server: ComfyClient, prompt: Prompt) -> Result:
    """Run a prompt, telling each node and each step."""
    return server.run(prompt, follow=Progress(prompt)).check()


def shown(result: Result, prompt: Prompt, kind: str) -> Image.Image:
    """The one picture that a node of this kind showed."""
    return Image.open(io.BytesIO(result.images[node_of(prompt, kind)][0])).convert("RGB")


def node_of(prompt: Prompt, kind: str) -> str:
    """The key of the one node of this kind."""
    (key,) = (key for key, node in prompt.items() if node["class_type"] == kind)
    return key


class Progress:
    """Tells the person at the terminal which node runs, and how far it is."""

    def __init__(self, prompt: Prompt):
        self.prompt = prompt

    def __call__(self, event: Event) -> None:
        data: dict[str, Any] = event["data"]
        if event["type"] == "executing" and data["node"] is not None:
            print(f"      {self.prompt[data['node']]['class_type']}", flush=True)
        elif event["type"] == "progress":
            print(f"        {data['value']} of {data['max']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
