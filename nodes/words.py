# SPDX-License-Identifier: GPL-3.0-or-later
"""A garment's words through the user's CLIP: by them a garment finds its place in the picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..anydressing_core.places import words_for
from ..anydressing_core.refusals import quote, refusal


@torch.inference_mode()
def embedded_words(clip: Any, words: str, slot: str, width: int) -> Tensor:
    """The mean embedding of a garment's words, encoded alone: (C_text,), on the CPU.

    words: "striped polo shirt"; empty for the slot's own. width: C_text of the connected model. Raises ValueError.
    """
    text = words_for(slot, words)
    chunks = _tokens(clip, text)
    encoded = _encoded(clip, text, width)[0]
    own = [place for place, name in enumerate(chunks) if name not in _frame(clip)]
    if not own:
        raise refusal(
            "words:",
            f"{quote(text)} holds no word that this CLIP knows",
            "A garment finds its place by its words.",
            "write what it is called, for example: striped polo shirt.",
        )
    return encoded[own].mean(dim=0).float().cpu()


@torch.inference_mode()
def empty_prompt(clip: Any, width: int) -> Tensor:
    """The embedding of the empty prompt, (1, T, C_text), on the CPU."""
    return _encoded(clip, "", width).float().cpu()


def _encoded(clip: Any, text: str, width: int) -> Tensor:
    encoded = clip.encode_from_tokens(clip.tokenize(text))
    if encoded.shape[-1] != width:
        raise refusal(
            "clip:",
            f"it reads text {encoded.shape[-1]} wide, the connected MODEL {width} wide",
            "This CLIP belongs to another kind of model.",
            "connect the CLIP output of your SD1.5 checkpoint.",
        )
    return encoded


def _tokens(clip: Any, text: str) -> list[Any]:
    """Every token of a text, as ComfyUI's tokenizer gives it: a number, or the vectors of an embedding."""
    (chunks,) = clip.tokenize(text).values()
    return [token if isinstance(token, int) else None for chunk in chunks for token, *_ in chunk]


def _frame(clip: Any) -> set[Any]:
    """The tokens of the empty prompt: what begins, ends and fills every text."""
    return set(_tokens(clip, ""))
