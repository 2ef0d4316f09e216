# SPDX-License-Identifier: GPL-3.0-or-later
"""A text encoder that needs no file: every word of CLIP's vocabulary has a vector of its own, made from a seed.

It is CLIP ViT-L without its twelve layers: layer normalisation of (word + position). Words know nothing of each other;
a U-Net that was trained with them knows what each one means. The numbers come from a generator's raw bits by steps
that are exact or correctly rounded, so that they are the same on every machine.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

WORDS = 49408
POSITIONS = 77
WIDTH = 768


def word_table(seed: int) -> dict[str, Tensor]:
    """Make the text encoder's tensors, float16, under the names that they have in CLIP's text model.

    Words (49408, 768) are uniform in [-1, 1), positions (77, 768) in [-1/4, 1/4); the normalisation keeps both as they
    are. seed: 0 or greater.
    """
    generator = np.random.PCG64(seed)
    return {
        "embeddings.token_embedding.weight": _uniform(generator, WORDS),
        "embeddings.position_embedding.weight": _uniform(generator, POSITIONS) / 4,
        "final_layer_norm.weight": torch.ones(WIDTH, dtype=torch.float16),
        "final_layer_norm.bias": torch.zeros(WIDTH, dtype=torch.float16),
    }


def _uniform(generator: np.random.PCG64, rows: int) -> Tensor:
    """(rows, WIDTH) numbers in [-1, 1): sixteen bits each, rounded to float16."""
    bits = np.asarray(generator.random_raw(rows * WIDTH // 4), np.dtype("<u8"))
    return torch.tensor(np.frombuffer(bits, np.dtype("<i2"))).half().div_(1 << 15).reshape(rows, WIDTH)
