# SPDX-License-Identifier: GPL-3.0-or-later
"""What fills the cache: a base model's autoencoder and text encoder, with their fingerprints."""

from __future__ import annotations

import json
from typing import Protocol

from torch import Tensor

from ...anydressing_core.digests import tensor_digest
from ..base.model import BaseModel


class Encoders(Protocol):
    """What fills the cache. The fingerprints change with whatever changes the encodings."""

    latent_fingerprint: str
    text_fingerprint: str

    def encode_mode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to scaled latents (B, 4, h, w)."""
        ...

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts: (B, 77, C), float32."""
        ...


class BaseEncoders:
    """The encoders of a base model."""

    def __init__(self, base: BaseModel) -> None:
        vae, words = base.vae, base.tokenizer.get_vocab()
        scale = [type(vae).__name__, str(vae.config["scaling_factor"]), str(vae.config["shift_factor"])]
        self.latent_fingerprint = tensor_digest(vae.state_dict(), *scale)
        # CLIP's words stand in the order of its merges, so they tell those, too.
        self.text_fingerprint = tensor_digest(base.text_encoder.state_dict(), json.dumps(words, sort_keys=True))
        self.encode_mode, self.encode_text = base.encode_mode, base.encode_text
