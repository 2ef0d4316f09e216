# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's base model, full of random numbers: one file, the same numbers in the node and in the trainer."""

from __future__ import annotations

import importlib

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import UNetShape
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.paper_doll.networks.autoencoder import Decoder, Encoder
from comfyui_anydressing.training.paper_doll.networks.base_file import TinyVae, write_base
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytestmark = [pytest.mark.comfyui, pytest.mark.usefixtures("one_thread")]

SHAPE = UNetShape((64, 128, 128), (1, 1, 1), (True, True, True), True, 8, 768)
PROMPT = "a woman with long black hair wearing a red striped sweater, on the beach"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("demo") / "paper_doll_base.safetensors"
    unet = UNet2DConditionModel(**SHAPE.to_diffusers())
    write_base(path, unet=unet, vae=TinyVae(Encoder(), Decoder(), 0.3, 0.7), word_table_seed=11, title="random")
    return path


@pytest.fixture(scope="module")
def base(file, comfyui_path):
    return load_base(file, tokenizer=comfyui_path / "comfy" / "sd1_tokenizer")


@pytest.fixture(scope="module")
def node(pack):
    return pack["AnyDressingDemoCheckpoint"]


def load_from(node, path):
    """Run the node on another file than the pack's."""
    module = importlib.import_module("comfyui_anydressing.nodes.demo_checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FILE", path)
        with torch.inference_mode():
            return node.execute().args


@pytest.fixture(scope="module")
def demo(node, file):
    return load_from(node, file)


@pytest.fixture(scope="module")
def prompts(studio, demo):
    return {name: studio.host.nodes.CLIPTextEncode().encode(demo[1], text)[0] for name, text in TEXTS.items()}


TEXTS = {"positive": PROMPT, "negative": "", "long": "seven words " * 20, "odd": "It's 1920's café-style, 100% wool 👗"}


@torch.inference_mode()
def test_the_noise_predicted_is_the_trainers(base, demo, prompts):
    importlib.import_module("comfy.model_management").load_models_gpu([demo[0]])
    x = torch.randn(2, 4, 12, 9, generator=torch.Generator().manual_seed(0))
    text, timestep = prompts["positive"][0][0].expand(2, -1, -1), torch.tensor([3, 700])
    theirs = demo[0].model.diffusion_model(x, timestep.float(), context=text)
    ours = base.unet(x, timestep, encoder_hidden_states=text).sample
    assert (ours - theirs).norm() <= 1e-5 * ours.norm()
    assert ours.std() > 0.01


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_what_the_trainer_reads(base, prompts, name):
    embedding = prompts[name][0][0]
    torch.testing.assert_close(embedding[:, :77].float(), base.encode_text([TEXTS[name]]), atol=1e-6, rtol=0)
    assert embedding.isfinite().all()
    assert prompts[name][0][1]["pooled_output"].isfinite().all()


def test_every_word_of_a_caption_counts(base):
    one, other = base.encode_text(["a red striped sweater", "a blue striped sweater"])
    assert [index for index in range(77) if not torch.equal(one[index], other[index])] == [2]


@torch.inference_mode()
def test_pictures_and_latents_are_the_trainers(base, demo):
    model, _, vae = demo
    image = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = model.model.process_latent_in(vae.encode((image.movedim(1, -1) + 1) / 2))
    torch.testing.assert_close(base.encode_mode(image), latents, atol=1e-5, rtol=0)
    decoded = vae.decode(model.model.process_latent_out(latents)).movedim(-1, 1) * 2 - 1
    torch.testing.assert_close(base.decode(latents).clamp(-1, 1), decoded, atol=1e-5, rtol=0)
    assert decoded.std() > 0.001


def test_it_is_an_sd15_to_comfyui(demo):
    unet = importlib.import_module("comfyui_anydressing.nodes.unet")
    assert unet.unet_shape(demo[0]) == SHAPE
    assert unet.family(demo[0]) == "SD15"
    assert type(demo[0].model.latent_format).__name__ == "SD15"


def test_it_samples_and_can_be_dressed(studio, demo, prompts):
    model, _, vae = demo
    chosen = {"positive": prompts["positive"], "negative": prompts["negative"]}
    plain = studio.sample(model, **chosen)
    garment_module = importlib.import_module("comfyui_anydressing.nodes.garment")
    weights = garment_module.AnyDressing("random", studio.random_checkpoint(unet=SHAPE))
    encode = studio.pack["AnyDressingGarmentEncode"]
    garment = studio.run(encode, model, vae, weights, studio.picture(), "upper")
    dressed = studio.sample(studio.dress(model, [garment]), **chosen)
    assert not torch.equal(plain, dressed)
    assert torch.equal(plain, studio.sample(model, **chosen))


def test_loras_load(studio, demo, prompts, tmp_path):
    layer, width = "input_blocks_1_1_transformer_blocks_0_attn1_to_q", 64
    lora = {
        f"lora_unet_{layer}.lora_down.weight": torch.ones(2, width),
        f"lora_unet_{layer}.lora_up.weight": torch.ones(width, 2),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 768),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(3072, 2),
    }
    tensors = load_file(save(lora, tmp_path / "lora.safetensors"))
    model, clip = importlib.import_module("comfy.sd").load_lora_for_models(*demo[:2], tensors, 1.0, 1.0)
    chosen = {"positive": prompts["positive"], "negative": prompts["negative"]}
    assert not torch.equal(studio.sample(model, **chosen), studio.sample(demo[0], **chosen))
    again = studio.host.nodes.CLIPTextEncode().encode(clip, PROMPT)[0]
    assert torch.equal(again[0][0], prompts["positive"][0][0])


def test_clip_skip_has_nothing_to_skip(studio, demo, prompts):
    clip = studio.host.nodes.CLIPSetLastLayer().set_last_layer(demo[1], -2)[0]
    assert torch.equal(studio.host.nodes.CLIPTextEncode().encode(clip, PROMPT)[0][0][0], prompts["positive"][0][0])


def test_the_text_encoder_has_no_layers_to_hold(demo):
    parameters = list(demo[1].cond_stage_model.parameters())
    assert sum(parameter.numel() for parameter in parameters) < 40e6


def save(tensors, path, metadata=None):
    save_file(tensors, path, metadata=metadata)
    return path


def refused(node, path):
    with pytest.raises(ValueError, match="What to do: ") as error:
        load_from(node, path)
    lines = str(error.value).split("\n")
    assert len(lines) == 3
    assert lines[2].endswith(".")
    return lines


def test_a_missing_file_is_an_incomplete_installation(node, tmp_path):
    what, _, do = refused(node, tmp_path / "demo" / "paper_doll_base.safetensors")
    assert what == "demo/paper_doll_base.safetensors is missing from the installation of ComfyUI-AnyDressing."
    assert do.startswith("What to do: install ComfyUI-AnyDressing again")


def test_half_a_file_is_refused(node, file, tmp_path):
    half = tmp_path / "half.safetensors"
    half.write_bytes(file.read_bytes()[:1_000_000])
    assert refused(node, half)[0] == "'half.safetensors' is incomplete."


@pytest.mark.parametrize(
    "name",
    ["model.diffusion_model.out.2.bias", "first_stage_model.taesd_decoder.19.bias", "first_stage_model.vae_scale"],
)
def test_a_file_without_one_tensor_is_refused(node, file, tmp_path, name):
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    del tensors[name]
    _, why, _ = refused(node, save(tensors, tmp_path / "less.safetensors", metadata))
    assert "has the shape None" in why


def test_another_checkpoint_is_refused(node, random_models):
    path = random_models / "checkpoints" / "anydressing_random_min.safetensors"
    assert "has no entry 'anydressing_base_format'" in refused(node, path)[1]
