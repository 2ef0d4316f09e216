# SPDX-License-Identifier: GPL-3.0-or-later
"""Captions by a vision-language model of transformers in a folder, as the paper has them made (Sec. 5.1)."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from ...anydressing_core.refusals import quote, refusal
from ..data.manifest import plain_caption
from ..data.pictures import BadPictureError, Source, upright

LONGEST = 60
"""New tokens of a caption: CLIP reads 75, and another model's tokens are not its own."""


class Captioner:
    """Says what a picture shows. digest: of the weights and of what it is asked."""

    def __init__(self, model: Any, processor: Any, weights: str, device: torch.device, prompt: str | None) -> None:
        self._model, self._processor = model.eval().requires_grad_(False).to(device), processor
        self._device, self._prompt, self._one_at_a_time = device, prompt, threading.Lock()
        self.digest = hashlib.sha256(f"{weights} {prompt}".encode()).hexdigest()

    @torch.no_grad()
    def caption(self, person: Source) -> str:
        """One line of visible text; the likeliest words, without chance. Raises BadPictureError."""
        asked: dict[str, Any] = {"images": upright(person), "return_tensors": "pt"}
        if self._prompt is not None:
            asked["text"] = self._prompt
        with self._one_at_a_time:
            tokens = self._model.generate(
                **self._processor(**asked).to(self._device), max_new_tokens=LONGEST, do_sample=False
            )
        said = self._processor.batch_decode(tokens, skip_special_tokens=True)[0]
        try:
            return plain_caption(said)
        except ValueError as error:
            raise BadPictureError(person.name, f"the model says nothing of it that is a caption: {error}") from error


def load_captioner(folder: Path, device: torch.device, prompt: str | None = None) -> Captioner:
    """A model that makes text of a picture, BLIP for one, from a folder; safetensors only. Raises ValueError for others.

    prompt: what the caption begins with or what is asked, as the model has it.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        why = "A folder with config.json, the processor's files and *.safetensors is expected."
        remedy = "download such a model; docs/data.md names one."
        raise refusal(f"The captioner {quote(str(folder))}", "is not there", why, remedy)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        remedy = "use a model that makes text of a picture, as transformers saves it."
        raise refusal(
            f"The captioner {quote(str(folder))}", "cannot be loaded", f"{quote(str(error))}.", remedy
        ) from error
    digest = hashlib.sha256()
    for path in weights:
        digest.update(path.read_bytes())
    return Captioner(model, processor, digest.hexdigest(), device, prompt)
