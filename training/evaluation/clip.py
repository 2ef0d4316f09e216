# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper's CLIP scores (Sec. 5.1) of pictures, by any CLIP of transformers in a folder, and LAION's head on top of it.

    CLIP-T   cos(text, picture)                CLIP-I   cos(garment, picture)
    CLIP-I*  mean over garments of cos(garment, the part of the picture that is the garment's)
    CLIP-AS  the head's mark for the picture, 1 to 10

Scores of another CLIP are not comparable, and the paper names none: every score goes with the model's name and hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor

from ...anydressing_core.pixels import Pixels
from ...anydressing_core.refusals import quote, refusal
from ...anydressing_core.safetensors_header import read_header


@dataclass(frozen=True)
class Clip:
    """A CLIP. name: of its folder, and sha256: of its weights, which every report tells."""

    name: str
    sha256: str
    _model: Any
    _processor: Any
    _device: torch.device

    @property
    def width(self) -> int:
        """D: how many numbers an embedding has."""
        return self._model.config.projection_dim

    @torch.no_grad()
    def of_pictures(self, pictures: Sequence[Pixels]) -> Tensor:
        """Pictures (H, W, 3) bytes of any sizes -> (B, D), each of length 1, fp32 on the CPU.

        Each is fitted into a white square first: CLIP's own crop would cut off heads and feet.
        """
        squares = [_squared(picture) for picture in pictures]
        pixels = self._processor(images=squares, return_tensors="pt")["pixel_values"].to(self._device)
        found = self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)
        return functional.normalize(found.float(), dim=-1).cpu()

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, D), each of length 1, fp32 on the CPU. What is longer than CLIP reads is cut off."""
        tokens = self._processor(text=list(texts), return_tensors="pt", padding="max_length", truncation=True)
        hidden = self._model.text_model(**tokens.to(self._device)).pooler_output
        return functional.normalize(self._model.text_projection(hidden).float(), dim=-1).cpu()


@dataclass(frozen=True)
class AestheticHead:
    """LAION's: linear layers one after the other on CLIP's picture embedding. sha256: of its file."""

    sha256: str
    _layers: tuple[tuple[Tensor, Tensor], ...]

    def marks(self, embeddings: Tensor) -> Tensor:
        """(B, D) of length 1 -> (B,)."""
        for weight, bias in self._layers:
            embeddings = functional.linear(embeddings, weight, bias)
        return embeddings[:, 0]


def load_clip(folder: Path, device: torch.device) -> Clip:
    """A CLIP from a folder, as transformers saves it; safetensors only. Raises ValueError for others."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        why = "A folder with config.json, model.safetensors, and the files of tokenizer and pictures is expected."
        raise refusal(f"The CLIP {quote(str(folder))}", "is not there", why, "name such a folder with --clip.")
    try:
        model, told = cast(
            "tuple[Any, dict[str, Any]]",
            CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True),
        )
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        remedy = "use CLIP as transformers saves it."
        raise refusal(f"The CLIP {quote(str(folder))}", "cannot be loaded", f"{quote(str(error))}.", remedy) from error
    missing = sorted(told["missing_keys"])
    if missing:
        why = f"Its weights lack {missing[0]} and {len(missing) - 1} more, which would be random numbers."
        raise refusal(
            f"The CLIP {quote(str(folder))}", "is not whole", why, "use both parts, of pictures and of texts."
        )
    sha = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Clip(folder.name, sha, model.eval().requires_grad_(False).to(device), processor, device)


def load_head(path: Path, width: int) -> AestheticHead:
    """LAION's head from a safetensors file: weights and biases of linear layers, in the order of their names' numbers.

    width: of the embeddings that it is to mark. Raises ValueError for a file that is none, or one for another CLIP.
    """
    read_header(path)
    tensors = safetensors.torch.load_file(path)
    weights = sorted((name for name in tensors if name.endswith("weight")), key=_number)
    names = [(name, f"{name.removesuffix('weight')}bias") for name in weights]
    layers = tuple((tensors[one].float(), tensors[other].float()) for one, other in names if other in tensors)
    widths = [width, *(weight.shape[0] for weight, _ in layers)]
    fits = all(
        weight.ndim == 2 and weight.shape[1] == before and bias.shape == weight.shape[:1]
        for (weight, bias), before in zip(layers, widths, strict=False)
    )
    fits = fits and all(bool(part.isfinite().all()) for layer in layers for part in layer)
    if not layers or not fits or widths[-1] != 1:
        why = f"Linear layers of finite numbers, from {width}, as this CLIP gives them, to one mark are expected."
        remedy = "convert the head that belongs to this CLIP."
        raise refusal(f"The head {quote(str(path))}", "cannot mark these pictures", why, remedy)
    return AestheticHead(hashlib.sha256(path.read_bytes()).hexdigest(), layers)


def _number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def _squared(picture: Pixels) -> Image.Image:
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return Image.fromarray(square)
