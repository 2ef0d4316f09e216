# SPDX-License-Identifier: GPL-3.0-or-later
"""Human parsing: which pixels of a person's picture are which garment, by any segmentation model of transformers in a folder."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from ...anydressing_core.refusals import quote, refusal
from ..data.parsing import Mask
from ..data.pictures import Source, upright

WORDS = {
    "upper": r"upper\b.*|top|shirt|t-shirt|blouse|sweater|coat|jacket|outer\w*|vest|cardigan|polo|hoodie",
    "lower": r"lower\b.*|pants|trousers|skirt|shorts|jeans|leggings",
    "dress": r"dress|jumpsuits?|overall|one-?piece",
    "hat": r"hat|cap|headwear|head ?gear",
    "shoes": r"(left|right)?[- ]?shoes?",
    "bag": r"bag|handbag",
}
"""Slot -> names of classes, as parsers call them."""


class SegmentationParser:
    """A model of transformers that gives every pixel a class, SegFormer for one. classes: slot -> numbers of its classes."""

    def __init__(self, model: Any, processor: Any, digest: str, device: torch.device) -> None:
        self._model, self._processor, self.digest = model.eval().requires_grad_(False).to(device), processor, digest
        self._device, self._one_at_a_time = device, threading.Lock()
        self.classes = classes_of(model.config.id2label)

    def parse(self, person: Source) -> Mapping[str, Mask]:
        picture = upright(person)
        found = self._classes(picture)
        return {slot: np.isin(found, numbers) for slot, numbers in self.classes.items()}

    @torch.no_grad()
    def _classes(self, picture: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
        pixels = self._processor(images=picture, return_tensors="pt")["pixel_values"].to(self._device)
        with self._one_at_a_time:
            logits = self._model(pixel_values=pixels).logits.float()
        size = (picture.height, picture.width)
        return functional.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(dim=0).cpu().numpy()


def load_parser(folder: Path, device: torch.device) -> SegmentationParser:
    """A parser from a folder: config.json, preprocessor_config.json and model.safetensors. Raises ValueError for others."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        why = "A folder with config.json, preprocessor_config.json and model.safetensors is expected."
        remedy = "download such a model; docs/data.md names two and their licences."
        raise refusal(f"The parser {str(folder)!r}", "is not there", why, remedy)
    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
        model = AutoModelForSemanticSegmentation.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        remedy = "use a model for semantic segmentation, as transformers saves it."
        raise refusal(f"The parser {str(folder)!r}", "cannot be loaded", f"{quote(str(error))}.", remedy) from error
    parser = SegmentationParser(model, processor, hashlib.sha256(weights.read_bytes()).hexdigest(), device)
    if not parser.classes:
        named = ", ".join(list(model.config.id2label.values())[:8])
        why = f"Its classes are called {named}."
        raise refusal(f"The parser {str(folder)!r}", "knows no garment", why, "use one that was trained on clothes.")
    return parser


def classes_of(names: Mapping[int, str]) -> dict[str, list[int]]:
    """Slot -> the numbers of the classes that are called so."""
    found = {
        slot: [int(number) for number, name in names.items() if re.fullmatch(words, name.lower().replace("_", " "))]
        for slot, words in WORDS.items()
    }
    return {slot: numbers for slot, numbers in found.items() if numbers}
