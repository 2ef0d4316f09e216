# SPDX-License-Identifier: GPL-3.0-or-later
"""A small CLIP full of random numbers, in a folder as transformers saves it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from support.letters import write_letters


def write_clip(folder: Path) -> Path:
    """A CLIP of 16 numbers (seed 0) for pictures of 32 pixels, with a tokenizer that knows letters."""
    words = write_letters(folder)
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {"vocab_size": len(words), "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2}
    config = CLIPConfig(
        text_config=text, vision_config=layers | {"image_size": 32, "patch_size": 16}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder
