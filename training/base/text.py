# SPDX-License-Identifier: GPL-3.0-or-later
"""The base model's text encoder: CLIP from the file, or a word table made from the seed that the file names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from ...anydressing_core.refusals import quote
from ...anydressing_core.sites import UNetShape
from ...anydressing_core.word_table import POSITIONS, WIDTH, WORDS, word_table
from .part import SD15_INSTEAD, Module, Part, filled, matched, run_of_widths


@dataclass(frozen=True)
class WordTable:
    """A CLIP without layers (on the meta device) whose tensors are made from a seed."""

    network: Any
    seed: int

    def load(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """Make the network's tensors; the result is frozen and in eval mode."""
        weights = {name: tensor.to(device, dtype) for name, tensor in word_table(self.seed).items()}
        return filled(self.network, {name: weights[bare_name(name)] for name in self.network.state_dict()})


def plan_word_table(seed: int) -> WordTable:
    """The text encoder of a demo checkpoint, see `anydressing_core.word_table`."""
    return WordTable(_empty(words=WORDS, width=WIDTH, layers=0, inner=4 * WIDTH), seed)


def plan_text(text: Part, shape: UNetShape, config: Mapping[str, Any]) -> Module:
    """Place every tensor of a CLIP text encoder.

    config: what a folder says of it. Raises ValueError for one that is not SD1.5's or does not fit the U-Net.
    """
    unused = ("position_ids", "logit_scale", "text_projection", "text_projection.weight")
    weights = {name: size for name, size in text.shapes.items() if not name.endswith(unused)}
    part = Part(text.name, text.path, weights, text.prefix)
    below = "text_model." if any(name.startswith("text_model.") for name in weights) else ""
    if f"{below}embeddings.token_embedding.weight" not in weights:
        why = "SD1.5 reads text with CLIP ViT-L; its token table is not there."
        raise text.refuse("has no CLIP text encoder that SD1.5 knows", why, SD15_INSTEAD)
    network = _clip(part, below)
    _refuse_other_text(part, network.config, shape, config)
    return matched(network, part, lambda name: below + bare_name(name))


def bare_name(name: str) -> str:
    """A tensor's name without the prefix that transformers 5 dropped from its own names."""
    return name.removeprefix("text_model.")


def _clip(text: Part, below: str) -> CLIPTextModel:
    tokens = f"{below}embeddings.token_embedding.weight"
    words, width = text.width(tokens), text.width(tokens, 1)
    inner = run_of_widths(lambda layer: f"{below}encoder.layers.{layer}.mlp.fc1.weight", text)
    if not words or not width or width % 64 or not inner:
        raise text.refuse("has a text encoder unlike SD1.5's", "It is not a CLIP with heads 64 wide.", SD15_INSTEAD)
    return _empty(words, width, len(inner), inner[0])


def _empty(words: int, width: int, layers: int, inner: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        num_attention_heads=width // 64,
        num_hidden_layers=layers,
        intermediate_size=inner,
        max_position_embeddings=POSITIONS,
        hidden_act="quick_gelu",
    )
    with torch.device("meta"):
        return CLIPTextModel(config)


def _refuse_other_text(text: Part, ours: CLIPTextConfig, shape: UNetShape, stated: Mapping[str, Any]) -> None:
    width, layers = ours.hidden_size, ours.num_hidden_layers
    if width != shape.cross_attention_dim:
        why = f"Its text encoder writes {width} numbers a token, its U-Net reads {shape.cross_attention_dim}."
        raise text.refuse("does not fit together", why, SD15_INSTEAD)
    # A configuration may say that there are fewer layers; a checkpoint has none, and then some must be missing.
    expected = stated.get("num_hidden_layers", 12 if width == 768 else layers)
    if layers != expected:
        why = f"{layers} of the {expected} layers are there."
        raise text.refuse("has an incomplete text encoder", why, "download or copy it again.")
    for name in ("hidden_act", "num_attention_heads"):
        fitting = getattr(ours, name)
        if stated.get(name, fitting) != fitting:
            why = f"text_encoder/config.json says {name} = {quote(stated[name])}; CLIP in SD1.5 has {fitting}."
            raise text.refuse("has a text encoder unlike SD1.5's", why, SD15_INSTEAD)


def with_positions(text_encoder: CLIPTextModel, device: torch.device | str) -> CLIPTextModel:
    """Give back the one buffer that no file holds: 0, 1, 2 ..."""
    for module in text_encoder.modules():
        if "position_ids" in dict(module.named_buffers(recurse=False)):
            positions = torch.arange(POSITIONS, device=device)[None]
            module.register_buffer("position_ids", positions, persistent=False)
    return text_encoder
