# SPDX-License-Identifier: GPL-3.0-or-later
"""The word table is the same on every machine and for ever: a base model was trained on these very numbers."""

from __future__ import annotations

import hashlib

import pytest
import torch
from comfyui_anydressing.anydressing_core.word_table import POSITIONS, WIDTH, WORDS, word_table

TOKENS, PLACES = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"


@pytest.fixture(scope="module")
def table():
    return word_table(11)


def test_its_bits_are_frozen(table):
    sums = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16] for name, tensor in table.items()}
    assert sums == {
        TOKENS: "de9017f3fba1d16b",
        PLACES: "cb4f6ee4d364ff1d",
        "final_layer_norm.weight": "617a513390b245d8",
        "final_layer_norm.bias": "80422bc3d307b4a2",
    }
    assert table[TOKENS][:2, :3].tolist() == [
        [-0.40380859375, 0.267578125, -0.04638671875],
        [-0.17138671875, 0.5146484375, -0.03350830078125],
    ]


def test_it_has_clips_shapes_in_float16(table):
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in table.items()}
    assert shapes[TOKENS] == (torch.float16, (WORDS, WIDTH)) == (torch.float16, (49408, 768))
    assert shapes[PLACES] == (torch.float16, (POSITIONS, WIDTH)) == (torch.float16, (77, 768))


def test_words_outweigh_positions_and_both_are_centred(table):
    for name, size in ((TOKENS, 1.0), (PLACES, 0.25)):
        numbers = table[name].float()
        assert numbers.std().item() == pytest.approx(size / 3**0.5, rel=0.01)
        assert numbers.mean().abs() < 0.005 * size
        assert numbers.abs().max() <= size


def test_no_two_words_are_alike(table):
    """Nearest of 2000 words: independent vectors in 768 dimensions are almost at right angles."""
    words = torch.nn.functional.normalize(table[TOKENS][:: WORDS // 2000].float(), dim=1)
    likeness = words @ words.T - torch.eye(len(words))
    assert likeness.abs().max() < 0.25
    assert len({row.numpy().tobytes() for row in table[TOKENS]}) == WORDS


def test_another_seed_makes_another_table(table):
    other = word_table(12)[PLACES]
    assert not torch.equal(other, table[PLACES])
