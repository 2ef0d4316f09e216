# SPDX-License-Identifier: GPL-3.0-or-later
"""One base model, two hosts: what the trainer loads is, number for number, what ComfyUI loads from the same file."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import SD15, UNetShape
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.base.names import ldm_unet_name
from comfyui_anydressing.training.base.plan import plan_checkpoint
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

pytestmark = [pytest.mark.comfyui, pytest.mark.usefixtures("one_thread")]

EPS_TOLERANCE = 1e-4
TOLERANCE = 1e-5

KL_SIZES = {
    **{"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128},
    **{"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0},
}
"""SD1.5's autoencoder, as ComfyUI names its sizes."""


@pytest.fixture(scope="module")
def checkpoint(random_models):
    return random_models / "checkpoints" / "anydressing_random_sd15.safetensors"


@pytest.fixture(scope="module")
def base(checkpoint, comfyui_path):
    tokenizer = comfyui_path / "comfy" / "sd1_tokenizer"
    return load_base(checkpoint, tokenizer=tokenizer)


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours.float(), theirs.float(), atol=tolerance, rtol=0)


def unscaled(image):
    """An image at ComfyUI's door, (B, H, W, C) in [0, 1], from ours."""
    return (image.movedim(1, -1) + 1) / 2


@torch.inference_mode()
def test_the_noise_predicted_is_comfyuis(studio, base):
    importlib.import_module("comfy.model_management").load_models_gpu([studio.model])
    theirs = studio.model.model.diffusion_model
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 12, 8, generator=generator)
    timestep = torch.tensor([0, 700])
    text = base.encode_text(["a woman in a red coat", ""])
    dtype = next(theirs.parameters()).dtype
    expected = theirs(x.to(dtype), timestep.to(dtype), context=text.to(dtype))
    close(base.unet(x, timestep, encoder_hidden_states=text).sample, expected, EPS_TOLERANCE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a woman in a red coat and a plaid skirt",
        "It's 1920's café-style: naïve, 100% wool, don't  blink!",
        "emoji 👗 and 衣服, a lone <|endoftext|>",
        "seven words " * 20,
    ],
)
@torch.inference_mode()
def test_text_embeddings_are_comfyuis(studio, base, text):
    embedding = studio.encode(text)[0][0]
    close(base.encode_text([text]), embedding, TOLERANCE)


@torch.inference_mode()
def test_garment_latents_are_what_comfyuis_unet_is_given(studio, base):
    image = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    theirs = studio.model.model.process_latent_in(studio.vae.encode(unscaled(image)))
    close(base.encode_mode(image), theirs, TOLERANCE)


@torch.inference_mode()
def test_decoded_pictures_are_comfyuis(studio, base):
    latents = torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(2))
    theirs = studio.vae.decode(studio.model.model.process_latent_out(latents))
    close(unscaled(base.decode(latents).clamp(-1, 1)), theirs, TOLERANCE)


@torch.inference_mode()
def test_a_taesd_with_its_own_scale_and_shift_gives_comfyuis_latents(studio, checkpoint, base, load_with):
    with safe_open(checkpoint, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("first_stage_model.")]  # noqa: SIM118
        weights = {name.removeprefix("first_stage_model."): file.get_tensor(name) for name in names}
    weights |= {"vae_scale": torch.tensor(0.4), "vae_shift": torch.tensor(-0.3)}
    scaled, vae = load_with(weights), importlib.import_module("comfy.sd").VAE(sd=weights)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    theirs = studio.model.model.process_latent_in(vae.encode(unscaled(image)))
    close(scaled.encode_mode(image), theirs, TOLERANCE)
    assert (scaled.encode_mode(image) - base.encode_mode(image)).abs().max() > 0.01
    close(unscaled(scaled.decode(theirs).clamp(-1, 1)), vae.decode(vae.encode(unscaled(image))), TOLERANCE)


@torch.inference_mode()
def test_a_kl_autoencoder_gives_comfyuis_mode(studio, load_with):
    vae = narrow_kl_vae()
    base = load_with(vae.first_stage_model.state_dict())
    image = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(4)) * 2 - 1
    theirs = studio.model.model.process_latent_in(vae.encode(unscaled(image)))
    close(base.encode_mode(image), theirs, TOLERANCE)
    close(unscaled(base.decode(theirs).clamp(-1, 1)), vae.decode(theirs / 0.18215), TOLERANCE)


@pytest.fixture
def load_with(comfyui_path, tmp_path):
    """Load an autoencoder's weights from a checkpoint that has a tiny U-Net and text encoder beside them."""

    def load(vae):
        shape = UNetShape((32,), (1,), (True,), mid_attention=True, heads=8, cross_attention_dim=64)
        sizes = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 64}
        unet = UNet2DConditionModel(**shape.to_diffusers()).state_dict()
        text = CLIPTextModel(CLIPTextConfig(**sizes)).state_dict()
        tensors = {
            **{f"model.diffusion_model.{ldm_unet_name(name, shape)}": tensor for name, tensor in unet.items()},
            **{f"first_stage_model.{name}": tensor.contiguous() for name, tensor in vae.items()},
            **{f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()},
        }
        save_file(tensors, tmp_path / "small.safetensors")
        tokenizer = comfyui_path / "comfy" / "sd1_tokenizer"
        return load_base(tmp_path / "small.safetensors", tokenizer=tokenizer)

    return load


def narrow_kl_vae():
    """ComfyUI's own VAE, a quarter as wide as SD1.5's, full of random numbers."""
    sizes = {**KL_SIZES, "ch": 32}
    kl = importlib.import_module("comfy.ldm.models.autoencoder").AutoencoderKL(ddconfig=dict(sizes), embed_dim=4)
    generator, weights = torch.Generator().manual_seed(5), {}
    for name, tensor in kl.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            weights[name] = noise / tensor[0].numel() ** 0.5
        else:
            weights[name] = 0.1 * noise + name.endswith("weight")  # of a normalisation, about one
    config = {"params": {"ddconfig": sizes, "embed_dim": 4}}
    return importlib.import_module("comfy.sd").VAE(sd=weights, config=config, dtype=torch.float32)


def test_the_schedule_is_comfyuis(studio, base):
    theirs = studio.model.get_model_object("model_sampling").sigmas
    alphas = base.schedule.alphas_cumprod
    torch.testing.assert_close(((1 - alphas) / alphas).sqrt().float(), theirs, rtol=1e-5, atol=0)


def test_every_tensor_of_a_full_sd15_checkpoint_has_its_place(host):
    """The names and shapes are those of ComfyUI's own classes, built without memory."""
    ldm = importlib.import_module("comfy.ldm.modules.diffusionmodules.openaimodel")
    autoencoder = importlib.import_module("comfy.ldm.models.autoencoder")
    text = importlib.import_module("comfy.sd1_clip")
    operations = importlib.import_module("comfy.ops").disable_weight_init
    config = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2] * 4},
        **{"channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_middle": 1},
        **{"transformer_depth_output": [1] * 9 + [0] * 3, "num_heads": 8, "num_head_channels": -1},
        **{"use_spatial_transformer": True, "context_dim": 768, "use_linear_in_transformer": False, "legacy": False},
    }
    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": ldm.UNetModel(**config, operations=operations),
            "first_stage_model.": autoencoder.AutoencoderKL(ddconfig=dict(KL_SIZES), embed_dim=4),
            "cond_stage_model.": text.SDClipModel(dtype=torch.float32),
        }
    shapes = {
        prefix + name: tuple(tensor.shape)
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }
    plan = plan_checkpoint(Path("v1-5.safetensors"), shapes, {})
    assert plan.shape == SD15
    found = [len(module.keys) for module in (plan.unet, plan.vae, plan.text)]
    assert found == [686, 248, 196]
    assert set().union(*(module.keys.values() for module in (plan.unet, plan.vae, plan.text))) == {
        key for key in shapes if not key.endswith(("logit_scale", "text_projection", "text_projection.weight"))
    }
