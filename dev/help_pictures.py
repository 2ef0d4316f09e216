# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of the nodes' help pages, made by the nodes themselves on the paper doll, in the real server.

    python -m dev.help_pictures

writes `web/docs/pictures/*.jpg`. Seeds are those of the shipped workflows; nothing is chosen among several.
"""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .client import Prompt
from .comfyui import CHECKOUT
from .contact_sheet import contact_sheet
from .demo import demo_server, run
from .prompts import DOLLS_GARMENTS, OWN_GARMENTS, shipped, undressed
from .server import ComfyServer

PICTURES = CHECKOUT / "web" / "docs" / "pictures"
WIDEST = 720
MODEL, UPPER, APPLY, PROMPT, SAMPLER, DECODE, SAVE, MAPS = "1", "5", "7", "8", "11", "12", "13", "14"
DOLLS = (
    "a man with a red beard wearing a hoodie and jeans, standing in a city street at night",
    "a woman with long blond hair wearing a dress, sitting in a park",
    "a girl with brown hair wearing a sweater and shorts, jumping in a snowy forest",
)

Named = Sequence[tuple[str, Image.Image]]


def main() -> None:
    """Make all pictures."""
    with_file, without = shipped("01_two_garments"), shipped("04_with_and_without_file")
    with demo_server() as server, tempfile.TemporaryDirectory() as folder:
        result = run(server, with_file)
        dressed, maps = (image(result.images[node][0]) for node in (SAVE, MAPS))
        save("apply", [("undressed", sample(server, undressed(with_file))), ("dressed", dressed)])
        save("maps", [("dressed", dressed), (result.outputs[MAPS]["text"][0], maps)])
        both = run(server, without)
        pair = [image(both.images[node][0]) for node in (SAVE, "33")]
        read = image(both.images[UPPER][0])
        save("encode", [("the garment's picture", garment("upper_striped_polo")), ("what is read of it", read)])
        save("loader", [("without a file", pair[0]), ("with the doll's file", pair[1])])
        weights = [(f"weight {weight:g}", sample(server, with_weight(with_file, weight))) for weight in (0.3, 1.0, 2.0)]
        save("settings", weights)
        save("doll", [("", sample(server, undressed(with_prompt(with_file, prompt)))) for prompt in DOLLS])
        save("prepare", [("", prepared(server, Path(folder)))])
    own = [garment(path.stem) for path in sorted(DOLLS_GARMENTS.glob("*.png"))]
    painted = [garment(path.stem) for path in sorted(OWN_GARMENTS.glob("*.png"))]
    save("examples", [("", picture) for picture in (*own[1::3], *painted[1:])])
    save(
        "wardrobe",
        [(f"{name}_00001_", garment(f"upper_{name}")) for name in ("purple_hoodie", "striped_polo", "breton")],
    )


def sample(server: ComfyServer, prompt: Prompt) -> Image.Image:
    """What a prompt saves."""
    return image(run(server, prompt).images[SAVE][0])


def with_weight(prompt: Prompt, weight: float) -> Prompt:
    """The upper garment at another weight."""
    prompt = copy.deepcopy(prompt)
    inputs = {"garment": [UPPER, 0], "weight": weight, "start_percent": 0.0, "end_percent": 1.0}
    prompt["40"] = {"class_type": "AnyDressingGarmentSettings", "inputs": inputs}
    prompt[APPLY]["inputs"]["garments.garment_0"] = ["40", 0]
    return prompt


def with_prompt(prompt: Prompt, text: str) -> Prompt:
    """Another person."""
    prompt = copy.deepcopy(prompt)
    prompt[PROMPT]["inputs"]["text"] = text
    return prompt


def prepared(server: ComfyServer, folder: Path) -> Image.Image:
    """Before and after of Prepare Garment, on one of our garments before a studio's gradient."""
    path = folder / "photograph.png"
    photograph(garment("upper_logo_tee")).save(path)
    server.upload_image(path)
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": path.name}},
        "2": {"class_type": "AnyDressingPrepareGarment", "inputs": {"image": ["1", 0], "width": 288, "height": 384}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    return image(run(server, prompt).images["2"][0])


def photograph(picture: Image.Image) -> Image.Image:
    """A garment on white, laid on grey paper under one lamp, with its shadow."""
    pixels = np.asarray(picture.convert("RGB")).astype(np.float32)
    outlines, _ = cv2.findContours(
        (pixels.min(axis=2) < 200).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    height, width = pixels.shape[:2]
    shown = cv2.drawContours(np.zeros((height, width), np.float32), outlines, -1, 1.0, cv2.FILLED)
    light = np.linspace(225, 165, height, dtype=np.float32)[:, None] * np.linspace(1, 0.92, width, dtype=np.float32)
    shadow = cv2.GaussianBlur(np.roll(shown, (height // 50, width // 40), (0, 1)), (0, 0), width / 40)
    ground = (light * (1 - 0.35 * shadow))[..., None] * np.array([1.0, 0.985, 0.96], np.float32)
    cover = cv2.GaussianBlur(shown, (0, 0), 0.8)[..., None]
    return Image.fromarray((pixels * cover + ground * (1 - cover)).clip(0, 255).astype(np.uint8))


def garment(name: str) -> Image.Image:
    """One of the pack's garments."""
    (path,) = (path for folder in (DOLLS_GARMENTS, OWN_GARMENTS) if (path := folder / f"{name}.png").is_file())
    return Image.open(path).convert("RGB")


def image(content: bytes) -> Image.Image:
    """A picture that came from the server."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def save(name: str, pictures: Named) -> None:
    """Write one page's picture."""
    sheet = contact_sheet(pictures, "")
    sheet = sheet.crop((0, 0, sheet.width, sheet.height - 40))  # no caption: the page says what it shows
    width = min(WIDEST, sheet.width)
    PICTURES.mkdir(parents=True, exist_ok=True)
    sheet.resize((width, round(sheet.height * width / sheet.width)), Image.Resampling.LANCZOS).save(
        PICTURES / f"{name}.jpg", quality=86, optimize=True
    )
    print(f"{name}.jpg", flush=True)


if __name__ == "__main__":
    main()
