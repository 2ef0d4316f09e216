# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: dresses somebody through the real ComfyUI server and the shipped workflow, and names the picture."""

from __future__ import annotations

import io
import sys
from typing import Any

from PIL import Image

from .client import ComfyClient, Event, Prompt, Result
from .comfyui import CHECKOUT, ComfyUIMissingError, find_or_fetch
from .contact_sheet import contact_sheet
from .layouts import LAYOUTS
from .prompts import drawn_by, garment_pictures, shipped, undressed
from .server import BASE, PACK, ComfyServer, ServerDiedError, has_accelerator, stop_politely

WORKFLOW = "01_two_garments"
SHOWN = "04_with_and_without_file"
PICTURE = CHECKOUT / "output" / "anydressing_demo.png"
MAPS = "AnyDressingAttentionMaps"
CAPTION = "Dressed by AnyDressing in ComfyUI: the same prompt and seed, with a trained file, without any, and without the garments."


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
    """Dress a person with a file and without, make the same picture undressed, and put all beside the garments."""
    prompt = shipped(SHOWN)
    maps = node_of(prompt, MAPS)
    without, with_file = (key for key, node in prompt.items() if node["class_type"] == "SaveImage")
    print("[1/4] Starting ComfyUI", flush=True)
    with demo_server() as server:
        print("[2/4] Dressing, without a file and with the doll's", flush=True)
        result = run(server, prompt)
        print("[3/4] The same prompt, undressed", flush=True)
        plain = run(server, drawn_by(undressed(prompt), without))
    print("[4/4] Putting the pictures side by side", flush=True)
    garments = [(path.stem.replace("_", " "), Image.open(path)) for path in garment_pictures(prompt)]
    pictures = [
        *garments,
        ("dressed, with a trained file", shown(result, with_file)),
        ("dressed, without any file", shown(result, without)),
        ("undressed", shown(plain, without)),
        ("where they went", shown(result, maps)),
    ]
    (legend,) = result.outputs[maps]["text"]
    sheet = contact_sheet(pictures, f"{CAPTION} Where they went: {legend}.")
    PICTURE.parent.mkdir(exist_ok=True)
    sheet.save(PICTURE)
    print(f"\nThe picture is {PICTURE.relative_to(CHECKOUT)}.")
    print(f"To open the same in your browser: make ui ({LAYOUTS[SHOWN].name}, under Templates -> {PACK})")


def demo_server() -> ComfyServer:
    """Return the demo's server, not yet started; its folders are kept."""
    # On a CPU, PyTorch's attention is two to three times as fast as ComfyUI's own choice.
    flags = [] if has_accelerator() else ["--use-pytorch-cross-attention"]
    return ComfyServer(find_or_fetch(), BASE, flags=flags)


def run(server: ComfyClient, prompt: Prompt) -> Result:
    """Run a prompt, telling each node and each step."""
    return server.run(prompt, follow=Progress(prompt)).check()


def shown(result: Result, key: str) -> Image.Image:
    """The one picture that a node showed."""
    return Image.open(io.BytesIO(result.images[key][0])).convert("RGB")


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
