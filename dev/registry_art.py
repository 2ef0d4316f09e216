# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the pack's icon and banner for the Comfy Registry, of what the pack itself comes with: `python -m dev.registry_art`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .comfyui import CHECKOUT
from .contact_sheet import INK
from .layouts import LAYOUTS
from .prompts import DOLLS_GARMENTS

DOCS = CHECKOUT / "docs"
GROUND = "#f4efe6"
ICON, BANNER = (400, 400), (1260, 540)  # the registry takes an icon of up to 400 pixels a side, and a banner of 21 : 9


def icon() -> Image.Image:
    """A polo shirt on a hanger."""
    sheet = Image.new("RGB", ICON, GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.arc((178, 28, 222, 72), 170, 450, INK, 9)
    draw.line([(200, 70), (200, 96)], INK, 9)
    draw.line([(92, 150), (200, 94), (308, 150)], INK, 9, joint="curve")
    shirt = garment("upper_striped_polo", 250)
    sheet.paste(shirt, ((ICON[0] - shirt.width) // 2, 118), shirt)
    return sheet


def banner() -> Image.Image:
    """Garments, their name, and people who wear them."""
    sheet = Image.new("RGB", BANNER, GROUND)
    left = 40
    for name in ("upper_striped_polo", "lower_pleated_skirt"):
        one = garment(name, 190)
        sheet.paste(one, (left, 330 - one.height // 2), one)
        left += one.width + 24
    draw = ImageDraw.Draw(sheet)
    draw.text((44, 40), "AnyDressing", INK, ImageFont.load_default(84))
    draw.text((48, 146), "your garments, your prompt, your SD1.5 checkpoint", INK, ImageFont.load_default(27))
    left = 560
    for stem in ("01_two_garments", "02_one_garment", "03_three_garments"):
        thumbnail = Image.open(CHECKOUT / "workflows" / f"{LAYOUTS[stem].name}.jpg")
        person = thumbnail.crop((thumbnail.width - 432, 0, thumbnail.width, 576))
        person = person.resize((225, 300), Image.Resampling.LANCZOS)
        sheet.paste(person, (left, 196))
        left += 232
    return sheet


def garment(name: str, width: int) -> Image.Image:
    """One of the doll's garments without its white ground, so many pixels wide."""
    picture = np.array(Image.open(DOLLS_GARMENTS / f"{name}.png").convert("RGB"))
    ground = (picture.min(axis=-1) > 235).astype(np.uint8)
    _, labels = cv2.connectedComponents(ground)
    alpha = cv2.GaussianBlur(np.where(labels == labels[0, 0], 0, 255).astype(np.uint8), (3, 3), 0)
    cut = Image.fromarray(np.dstack([picture, alpha]))
    cut = cut.crop(cut.getchannel("A").getbbox())
    return cut.resize((width, round(cut.height * width / cut.width)), Image.Resampling.LANCZOS)


def main(folder: Path = DOCS) -> None:
    """Write icon.png and banner.png."""
    icon().save(folder / "icon.png")
    banner().save(folder / "banner.png")


if __name__ == "__main__":
    main()
