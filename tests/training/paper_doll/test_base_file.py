# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll world's base model is written as one file, and loads as what was trained.

That ComfyUI reads the same from it is tested in tests/comfyui/test_demo_checkpoint.py.
"""

from __future__ import annotations

import json

import pytest
import torch
from comfyui_anydressing.anydressing_core.demo_checkpoint import DemoInfo, read_demo_checkpoint
from comfyui_anydressing.anydressing_core.sites import UNetShape
from comfyui_anydressing.anydressing_core.word_table import word_table
from comfyui_anydressing.training.base.model import load_base, plan_base
from comfyui_anydressing.training.base.names import taesd_name
from comfyui_anydressing.training.paper_doll.networks.autoencoder import Decoder, Encoder
from comfyui_anydressing.training.paper_doll.networks.base_file import TinyVae, pad_to_taesd, write_base
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = UNetShape((32, 64), (1, 1), (True, True), mid_attention=True, heads=8, cross_attention_dim=768)
MEAN, STD = 0.4, 0.6


def as_float16(network):
    """Weights that float16 can hold, so that writing them loses nothing."""
    return network.half().float().eval()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    networks = {"unet": UNet2DConditionModel(**SHAPE.to_diffusers()), "encoder": Encoder(), "decoder": Decoder()}
    return {name: as_float16(network) for name, network in networks.items()}


def write(path, trained, **changes):
    vae = TinyVae(trained["encoder"], trained["decoder"], MEAN, STD)
    settings = {"word_table_seed": 11, "title": "Paper doll", "facts": {"steps": "7"}, **changes}
    write_base(path, **{"unet": trained["unet"], "vae": vae, **settings})
    return path


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    return write(tmp_path_factory.mktemp("base") / "base.safetensors", trained)


@pytest.fixture(scope="module")
def base(file, tokenizer):
    return load_base(file, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A CLIP tokenizer that knows twenty-six letters, with CLIP's own numbers for start and end."""
    folder = tmp_path_factory.mktemp("words")
    words = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    numbers = {word: index for index, word in enumerate(words)}
    numbers |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@torch.inference_mode()
def test_the_unet_comes_back(base, trained):
    x, text = torch.randn(2, 4, 8, 6), torch.randn(2, 77, 768)
    timestep = torch.tensor([0, 700])
    expected = trained["unet"](x, timestep, encoder_hidden_states=text).sample
    assert torch.equal(base.unet(x, timestep, encoder_hidden_states=text).sample, expected)
    assert base.shape == SHAPE


@torch.inference_mode()
def test_latents_are_normalised_and_decoding_takes_that_back(base, trained):
    images = torch.rand(2, 3, 32, 24) * 2 - 1
    latents = (trained["encoder"](images / 2 + 0.5) - MEAN) / STD
    torch.testing.assert_close(base.encode_mode(images), latents, atol=1e-5, rtol=0)
    z = 3 * torch.randn(2, 4, 4, 3)  # far into the decoder's clamp
    torch.testing.assert_close(base.decode(z), trained["decoder"](z * STD + MEAN) * 2 - 1, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_text_is_the_normalised_sum_of_word_and_position(base):
    table = word_table(11)
    words = table["embeddings.token_embedding.weight"].float()
    positions = table["embeddings.position_embedding.weight"].float()
    letters = [49406, 1, 3, *[49407] * 74]  # "a b": each letter ends its word
    expected = torch.nn.functional.layer_norm(words[letters] + positions, (768,))
    torch.testing.assert_close(base.encode_text(["a b"])[0], expected, atol=1e-6, rtol=0)


def test_the_file_tells_what_it_is(file):
    info, tensors = read_demo_checkpoint(file)
    assert info == DemoInfo(SHAPE, 11, "Paper doll", "CC0-1.0", {"steps": "7"})
    kinds = {name.rpartition(".")[2] for name, tensor in tensors.items() if tensor.dtype != torch.float16}
    assert kinds == {"vae_scale", "vae_shift"}
    assert all(name.startswith(("model.diffusion_model.", "first_stage_model.")) for name in tensors)


@torch.inference_mode()
def test_a_narrow_autoencoder_computes_the_same_when_it_is_padded(trained):
    wide = AutoencoderTiny().eval()
    padded = pad_to_taesd(trained["encoder"], trained["decoder"])
    wide.load_state_dict({name: padded[taesd_name(name)] for name in wide.state_dict()})
    images, latents = torch.rand(2, 3, 32, 24), 3 * torch.randn(2, 4, 4, 3)
    torch.testing.assert_close(wide.encoder(2 * images - 1), trained["encoder"](images), atol=1e-6, rtol=0)
    torch.testing.assert_close(wide.decoder(latents) / 2 + 0.5, trained["decoder"](latents), atol=1e-6, rtol=0)
    assert next(iter(trained["encoder"].parameters())).shape[0] < 64


def test_networks_of_another_layout_are_refused(trained):
    with pytest.raises(ValueError, match="does not have TAESD's layers"):
        pad_to_taesd(Encoder((16, 32, 64, 128)), trained["decoder"])
    with pytest.raises(ValueError, match="does not have TAESD's layers"):
        pad_to_taesd(trained["encoder"], torch.nn.Sequential(*list(trained["decoder"])[1:]))


def test_values_beyond_float16_are_refused_and_nothing_is_written(trained, tmp_path):
    diverged = Encoder()
    torch.nn.init.constant_(diverged[0].bias, 1e6)
    with pytest.raises(ValueError, match="has values that float16 cannot hold"):
        write(tmp_path / "base.safetensors", {**trained, "encoder": diverged})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"word_table_seed": -1},
        {"title": "half a character \ud800"},
        {"facts": {"title": "another"}},
        {"unet": UNet2DConditionModel(**{**SHAPE.to_diffusers(), "block_out_channels": [64, 96]})},
    ],
)
def test_what_could_not_be_read_back_is_not_written(trained, tmp_path, changes):
    with pytest.raises(ValueError, match="What to do: "):
        write(tmp_path / "base.safetensors", trained, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"anydressing_base_format": "2"}, "this version reads '1'"),
        ({"unet_config": "{}"}, "Its U-Net is not described"),
        ({"unet_config": json.dumps({**SHAPE.to_diffusers(), "mid_block_type": None})}, "attention in the middle"),
        ({"unet_config": json.dumps({**SHAPE.to_diffusers(), "block_out_channels": [64, 96]})}, "are not multiples"),
        ({"word_table_seed": "-1"}, "is not a whole number"),
        ({"latent_scale": "1.0"}, "should be 0.18215"),
        ({"licence": None}, "has no entry 'licence'"),
    ],
)
def test_a_damaged_description_is_refused_by_node_and_trainer(file, tmp_path, changes, why):
    metadata = {**read_demo_checkpoint(file)[0].to_metadata(), **changes}
    path = tmp_path / "damaged.safetensors"
    save_file(load_file(file), path, {name: text for name, text in metadata.items() if text is not None})
    for read in (read_demo_checkpoint, plan_base):
        with pytest.raises(ValueError, match="What to do: ") as error:
            read(path)
        assert str(error.value).count("\n") == 2
        assert why in str(error.value)
        assert "damaged.safetensors" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "part",
    ["model.diffusion_model.input_blocks", "model.diffusion_model.out", "taesd_encoder", "taesd_decoder", "vae_scale"],
)
def test_numbers_that_are_none_are_refused_by_node_and_trainer(file, tmp_path, part, value):
    tensors = load_file(file)
    name = next(name for name in tensors if part in name)
    tensors[name].view(-1)[-1] = value
    path = tmp_path / "broken.safetensors"
    save_file(tensors, path, read_demo_checkpoint(file)[0].to_metadata())
    for read in (read_demo_checkpoint, load_base):
        with pytest.raises(ValueError, match=r"NaN or infinity|cannot be scaled") as error:
            read(path)
        assert name in str(error.value) or part == "vae_scale"
        assert str(error.value).count("\n") == 2
