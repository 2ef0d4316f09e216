# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP's scores by a small random CLIP, judged by transformers' own; LAION's head by the sum of products."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from comfyui_anydressing.training.evaluation.clip import load_clip, load_head
from PIL import Image
from support.clips import write_clip
from transformers import CLIPModel, CLIPProcessor

CPU = torch.device("cpu")
TEXTS = ["a woman in a park", "a red shirt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random CLIP of 16 numbers, with a tokenizer that knows letters."""
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(folder, CPU)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_embeddings_are_those_of_the_textbook(folder, clip):
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    picture = noise(40, 40)
    inputs = processor(text=TEXTS, images=Image.fromarray(picture), return_tensors="pt", padding="max_length")
    with torch.no_grad():
        expected = model(**inputs)
    torch.testing.assert_close(clip.of_texts(TEXTS), expected.text_embeds)
    torch.testing.assert_close(clip.of_pictures([picture]), expected.image_embeds)
    cosines = clip.of_texts(TEXTS) @ clip.of_pictures([picture]).T
    torch.testing.assert_close(cosines[:, 0], expected.logits_per_image[0] / model.logit_scale.exp().detach())


def test_a_tall_picture_loses_neither_head_nor_feet(clip):
    tall = noise(64, 24)
    headless = tall.copy()
    headless[:6] = 0  # which CLIP's own crop would not see
    assert not torch.allclose(clip.of_pictures([tall]), clip.of_pictures([headless]), atol=1e-4)


def test_a_long_text_is_cut_off(clip):
    assert clip.of_texts(["a " * 200]).shape == (1, 16)


def test_the_model_is_told_by_name_and_hash(folder, clip):
    assert clip.name == folder.name
    assert len(clip.sha256) == 64


def test_a_head_of_several_layers_is_the_sum_of_products(tmp_path):
    torch.manual_seed(0)
    first, second = torch.randn(5, 16), torch.randn(1, 5)
    biases = torch.randn(5), torch.randn(1)
    tensors = {
        "layers.10.weight": second,
        "layers.10.bias": biases[1],
        "layers.2.weight": first,
        "layers.2.bias": biases[0],
    }
    safetensors.torch.save_file(tensors, tmp_path / "head.safetensors")
    embeddings = torch.randn(3, 16)
    expected = [float(second[0] @ (first @ one + biases[0]) + biases[1]) for one in embeddings]
    marks = load_head(tmp_path / "head.safetensors", 16).marks(embeddings)
    torch.testing.assert_close(marks, torch.tensor(expected))


def test_a_head_of_one_layer_has_no_number(tmp_path):
    safetensors.torch.save_file({"weight": torch.ones(1, 16), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    assert float(load_head(tmp_path / "head.safetensors", 16).marks(torch.ones(1, 16))[0]) == 16


@pytest.mark.parametrize("width", [8, 17])
def test_a_head_for_another_clip_is_refused(tmp_path, width):
    safetensors.torch.save_file({"weight": torch.ones(1, 16), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=f"Linear layers of finite numbers, from {width}, "):
        load_head(tmp_path / "head.safetensors", width)


@pytest.mark.parametrize("broken", ["bias", "nan"])
def test_a_broken_head_is_refused(tmp_path, broken):
    bias = torch.zeros(2) if broken == "bias" else torch.tensor([float("nan")])
    safetensors.torch.save_file({"weight": torch.ones(1, 16), "bias": bias}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="cannot mark these pictures"):
        load_head(tmp_path / "head.safetensors", 16)


@pytest.mark.parametrize("broken", ["projection", "cut off", "another config"])
def test_a_clip_that_is_not_whole_never_measures_with_random_numbers(folder, tmp_path, broken):
    shutil.copytree(folder, tmp_path / "clip")
    weights = tmp_path / "clip" / "model.safetensors"
    if broken == "projection":
        tensors = safetensors.torch.load_file(weights)
        kept = {name: value for name, value in tensors.items() if "visual_projection" not in name}
        safetensors.torch.save_file(kept, weights, {"format": "pt"})
    elif broken == "cut off":
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        config = tmp_path / "clip" / "config.json"
        config.write_text(config.read_text().replace('"projection_dim": 16', '"projection_dim": 24'))
    with pytest.raises(ValueError, match=r"(?s)The CLIP .*What to do"):
        load_clip(tmp_path / "clip", CPU)


def test_a_folder_without_weights_is_told_what_belongs_there(tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_clip(tmp_path, CPU)
