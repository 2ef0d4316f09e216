# SPDX-License-Identifier: GPL-3.0-or-later
"""The base model loads offline from a file or a folder, whole or not at all; the rest is refused in plain words.

That the numbers are ComfyUI's is tested in tests/comfyui/test_base_model_parity.py.
"""

from __future__ import annotations

import json
import shutil
import socket
from types import SimpleNamespace

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import SD15, UNetShape
from comfyui_anydressing.training.base import text as base_text
from comfyui_anydressing.training.base import tokenizer as base_tokenizer
from comfyui_anydressing.training.base.model import load_base, plan_base
from comfyui_anydressing.training.base.names import ldm_unet_name, ldm_unet_tensors, ldm_vae_name, taesd_name
from comfyui_anydressing.training.base.plan import plan_checkpoint
from comfyui_anydressing.training.base.schedule import NoiseSchedule
from comfyui_anydressing.training.hardware import Hardware
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

pytestmark = pytest.mark.usefixtures("one_thread")

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
SHAPE = UNetShape((32, 64), (1, 2), (True, False), mid_attention=True, heads=8, cross_attention_dim=64)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def small():
    """A base model a thousandth of SD1.5's size, full of random numbers (seed 0)."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 2, "intermediate_size": 96}
    return SimpleNamespace(
        unet=UNet2DConditionModel(**SHAPE.to_diffusers()).eval(),
        vae=kl_vae((32, 32, 32, 64), layers=1).eval(),
        text=CLIPTextModel(CLIPTextConfig(vocab_size=600, **sizes)).eval(),
    )


def kl_vae(widths, layers):
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    types = {"down_block_types": down, "up_block_types": up}
    return AutoencoderKL(**types, block_out_channels=widths, layers_per_block=layers, scaling_factor=0.18215)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A CLIP tokenizer that knows single bytes and no merges."""
    folder = tmp_path_factory.mktemp("words") / "sd1_tokenizer"
    folder.mkdir()
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture(scope="module")
def tensors(small):
    """The small base model under an original checkpoint's keys."""
    named = {
        **{UNET + name: tensor for name, tensor in ldm_unet_tensors(small.unet).items()},
        **{VAE + ldm_vae_name(name): tensor for name, tensor in small.vae.state_dict().items()},
        **{TEXT + "text_model." + bare(name): tensor for name, tensor in small.text.state_dict().items()},
        TEXT + "text_model.embeddings.position_ids": torch.arange(77)[None],
        "model_ema.decay": torch.tensor(0.99),
        "alphas_cumprod": torch.ones(1000),
    }
    for name, tensor in named.items():
        if ".mid.attn_1." in name and tensor.ndim == 2:
            named[name] = tensor[..., None, None]  # original checkpoints hold 1 x 1 convolutions here
    return named


def bare(name):
    return name.removeprefix("text_model.")


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "small.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def saved_folder(small, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder") / "small"
    small.unet.save_pretrained(folder / "unet")
    small.vae.save_pretrained(folder / "vae")
    small.text.save_pretrained(folder / "text_encoder")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    shutil.copytree(tokenizer, folder / "tokenizer")
    return folder


@pytest.fixture
def folder(saved_folder, tmp_path):
    """A copy of the diffusers folder that a test may spoil."""
    return shutil.copytree(saved_folder, tmp_path / "small")


@pytest.fixture(scope="module")
def base(checkpoint, tokenizer):
    return load_base(checkpoint, tokenizer=tokenizer)


def probes():
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 4, 2, generator=generator), torch.randn(2, 77, 64, generator=generator)
    return x, text, torch.rand(2, 3, 32, 16, generator=generator) * 2 - 1


@torch.inference_mode()
def outputs(base):
    x, text, images = probes()
    return {
        "noise": base.unet(x, torch.tensor([0, 700]), encoder_hidden_states=text).sample,
        "latents": base.encode_mode(images),
        "images": base.decode(x),
        "text": base.encode_text(["a red coat", ""]),
    }


def assert_same(one, other):
    for name, value in outputs(one).items():
        assert torch.equal(value, outputs(other)[name]), name


# --- what loads ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_single_file_gives_the_model_it_was_made_from(base, small):
    x, text, images = probes()
    expected = {
        "noise": small.unet(x, torch.tensor([0, 700]), encoder_hidden_states=text).sample,
        "latents": small.vae.encode(images).latent_dist.mode() * 0.18215,
        "images": small.vae.decode(x / 0.18215).sample,
    }
    found = outputs(base)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    assert base.name == "small.safetensors"
    assert base.shape == SHAPE


def test_a_saved_folder_gives_the_same_model_as_the_file(base, saved_folder):
    assert_same(load_base(saved_folder), base)


def test_a_loaded_model_survives_save_pretrained(base, tokenizer, tmp_path):
    base.unet.save_pretrained(tmp_path / "unet")
    base.vae.save_pretrained(tmp_path / "vae")
    base.text_encoder.save_pretrained(tmp_path / "text_encoder")
    assert_same(load_base(tmp_path, tokenizer=tokenizer), base)


def test_a_folder_of_half_precision_files_loads(base, small, tokenizer, tmp_path):
    for name, network in (("unet", small.unet), ("vae", small.vae), ("text_encoder", small.text)):
        network.save_pretrained(tmp_path / name, variant="fp16")
    assert_same(load_base(tmp_path, tokenizer=tokenizer), base)


def test_an_autoencoder_folder_with_old_attention_names_loads(base, folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renames = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old = {}
    for name, tensor in load_file(path).items():
        for new_name, old_name in renames.items():
            name = name.replace(new_name, old_name)
        old[name] = tensor
    save_file(old, path)
    assert_same(load_base(folder), base)


@pytest.mark.parametrize("prefix", ["text_model.", ""], ids=["old file", "new file"])
@pytest.mark.parametrize("transformers", ["old", "new"])
def test_clip_names_of_old_and_new_transformers_both_load(
    base, tensors, tokenizer, tmp_path, monkeypatch, prefix, transformers
):
    renamed = {name.replace(TEXT + "text_model.", TEXT + prefix): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "file.safetensors")
    monkeypatch.setattr(base_text, "CLIPTextModel", CLIPOf[transformers])
    loaded = load_base(tmp_path / "file.safetensors", tokenizer=tokenizer)
    assert_same(loaded, base)
    has_prefix = all(name.startswith("text_model.") for name in loaded.text_encoder.state_dict())
    assert has_prefix == (transformers == "old")


class PlainCLIP(CLIPTextModel):
    """CLIP whose names have no prefix, as transformers 5 has it."""


class PrefixedCLIP(torch.nn.Module):
    """CLIP whose names begin with text_model, as transformers 4 has it."""

    def __init__(self, config):
        super().__init__()
        self.text_model, self.config = CLIPTextModel(config), config

    @property
    def device(self):
        return self.text_model.device

    def forward(self, tokens):
        return self.text_model(tokens)


CLIPOf = {"old": PrefixedCLIP, "new": PlainCLIP}


def test_a_taesd_inside_a_checkpoint_is_recognised(tensors, tokenizer, tmp_path):
    torch.manual_seed(2)
    tiny = AutoencoderTiny().eval()
    file = {name: tensor for name, tensor in tensors.items() if not name.startswith(VAE)}
    file |= {VAE + taesd_name(name): tensor for name, tensor in tiny.state_dict().items()}
    file |= {VAE + "vae_scale": torch.tensor(0.5), VAE + "vae_shift": torch.tensor(0.25)}
    save_file(file, tmp_path / "tiny.safetensors")
    base = load_base(tmp_path / "tiny.safetensors", tokenizer=tokenizer)
    x, _, images = probes()
    with torch.inference_mode():
        latents = (tiny.encode(images).latents / 0.5 + 0.25) * 0.18215  # as ComfyUI scales, then process_latent_in
        torch.testing.assert_close(base.encode_mode(images), latents, atol=1e-6, rtol=0)
        decoded = tiny.decode((x / 0.18215 - 0.25) * 0.5).sample
        torch.testing.assert_close(base.decode(x), decoded, atol=1e-5, rtol=0)

    for name, network in (("unet", base.unet), ("vae", base.vae), ("text_encoder", base.text_encoder)):
        network.save_pretrained(tmp_path / "folder" / name)
    assert_same(load_base(tmp_path / "folder", tokenizer=tokenizer), base)


def test_everything_is_frozen_and_in_eval_mode(base):
    for network in (base.unet, base.vae, base.text_encoder):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


@pytest.mark.parametrize(
    ("precision", "vae_dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float32)], ids=["bf16", "fp16"]
)
def test_the_autoencoder_avoids_float16_and_the_text_encoder_stays_exact(
    checkpoint, base, tokenizer, precision, vae_dtype
):
    half = load_base(checkpoint, Hardware(torch.device("cpu"), precision), tokenizer=tokenizer)
    dtype = half.hardware.dtype
    assert (half.unet.dtype, half.vae.dtype) == (dtype, vae_dtype)
    assert torch.equal(half.encode_text(["a hat"]), base.encode_text(["a hat"]))
    assert half.encode_mode(probes()[2]).dtype == torch.float32
    assert half.decode(torch.zeros(1, 4, 2, 2, dtype=dtype)).dtype == dtype


def test_weights_do_not_hang_on_the_file(checkpoint, tokenizer, tmp_path):
    path = shutil.copy(checkpoint, tmp_path / "file.safetensors")
    loaded = load_base(path, tokenizer=tokenizer)
    before = loaded.unet.conv_in.weight.clone()
    with path.open("r+b") as file:
        file.seek(-(path.stat().st_size - 200_000), 2)
        file.write(bytes(path.stat().st_size - 200_000))
    assert torch.equal(loaded.unet.conv_in.weight, before)


def test_the_hash_is_the_files(checkpoint, base):
    import hashlib

    assert base.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_text_is_always_77_tokens_without_a_mask(base):
    assert base.encode_text(["", "a coat " * 60]).shape == (2, 77, 64)
    alone, beside = base.encode_text(["a coat"]), base.encode_text(["a coat", "a coat " * 60])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-6, rtol=0)
    tokens = base.tokenizer("a", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = base.text_encoder(tokens).last_hidden_state
    assert torch.equal(base.encode_text(["a"]), expected)


def test_a_gradient_passes_through_decode_and_not_through_encode(base):
    latents = torch.zeros(1, 4, 2, 2, requires_grad=True)
    base.decode(latents).sum().backward()
    assert latents.grad.abs().sum() > 0
    assert not base.encode_mode(torch.zeros(1, 3, 16, 16, requires_grad=True)).requires_grad


def test_the_schedule_is_sd15s():
    alphas = NoiseSchedule.sd15().alphas_cumprod
    assert alphas.shape == (1000,)
    assert alphas[0].item() == pytest.approx(1 - 0.00085)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    torch.testing.assert_close(alphas.float(), DDPMScheduler(**betas).alphas_cumprod, rtol=1e-4, atol=0)


def test_noise_that_was_added_can_be_removed():
    schedule, timestep = NoiseSchedule.sd15(), torch.tensor([0, 350])
    clean, _, _ = probes()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    noisy = schedule.add_noise(clean, noise, timestep)
    a = schedule.alphas_cumprod[350].item()
    torch.testing.assert_close(noisy[1], a**0.5 * clean[1] + (1 - a) ** 0.5 * noise[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(schedule.remove_noise(noisy, noise, timestep), clean, atol=1e-5, rtol=0)


# --- the names of SD1.5 ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sd15():
    """The networks of SD1.5, without memory."""
    with torch.device("meta"):
        return SimpleNamespace(
            unet=UNet2DConditionModel(**SD15.to_diffusers()),
            vae=kl_vae((128, 256, 512, 512), layers=2),
            text=CLIPTextModel(CLIPTextConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072)),
        )


def sd15_shapes(sd15):
    return {
        **{UNET + ldm_unet_name(name, SD15): tuple(tensor.shape) for name, tensor in sd15.unet.state_dict().items()},
        **{VAE + ldm_vae_name(name): tuple(tensor.shape) for name, tensor in sd15.vae.state_dict().items()},
        **{TEXT + bare(name): tuple(tensor.shape) for name, tensor in sd15.text.state_dict().items()},
    }


def test_all_tensors_of_sd15_are_placed_by_their_header(sd15, tmp_path):
    plan = plan_checkpoint(tmp_path / "v1-5.safetensors", sd15_shapes(sd15), {})
    assert plan.shape == SD15
    assert [len(module.keys) for module in (plan.unet, plan.vae, plan.text)] == [686, 248, 196]
    assert all(parameter.is_meta for parameter in plan.unet.network.parameters())


def test_our_names_of_sd15_are_those_of_diffusers_own_converter(sd15):
    ours = {ldm_unet_name(name, SD15): name for name in sd15.unet.state_dict()}
    converted = single_file_utils.convert_ldm_unet_checkpoint({UNET + key: key for key in ours}, sd15.unet.config)
    assert {key: name for name, key in converted.items()} == ours

    ours = {ldm_vae_name(name): name for name in sd15.vae.state_dict()}
    numbered = {key: torch.full((1, 1, 1, 1), float(index)) for index, key in enumerate(ours)}
    converted = single_file_utils.convert_ldm_vae_checkpoint(
        {VAE + key: t for key, t in numbered.items()}, sd15.vae.config
    )
    keys = list(ours)
    assert {keys[int(tensor.flatten()[0])]: name for name, tensor in converted.items()} == ours


def test_names_that_are_famous(sd15):
    names = {key.removeprefix(UNET): shape for key, shape in sd15_shapes(sd15).items() if key.startswith(UNET)}
    assert names["input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"] == (320, 320)
    assert names["input_blocks.4.0.skip_connection.weight"] == (640, 320, 1, 1)
    assert names["input_blocks.9.0.op.weight"] == (1280, 1280, 3, 3)
    assert names["middle_block.1.transformer_blocks.0.attn2.to_k.weight"] == (1280, 768)
    assert names["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    assert names["output_blocks.8.2.conv.weight"] == (640, 640, 3, 3)
    assert names["output_blocks.11.0.in_layers.2.weight"] == (320, 640, 3, 3)


@pytest.mark.parametrize(
    "shape",
    [
        UNetShape((64, 128, 128), (1, 1, 1), (True, True, True), True, 8, 768),
        UNetShape((32, 64, 96), (2, 1, 3), (False, True, True), True, 8, 64),
        UNetShape((32, 32), (1, 1), (True, True), False, 8, 64),
        UNetShape((320,), (1,), (True,), True, 8, 64),
    ],
    ids=["paper doll", "uneven", "no middle", "one level"],
)
def test_any_shape_is_read_from_the_weights(sd15, tensors, tmp_path, shape):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**shape.to_diffusers())
    other = {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.startswith(UNET)}
    if shape.cross_attention_dim == 768:
        other = {name: size for name, size in sd15_shapes(sd15).items() if not name.startswith(UNET)}
    shapes = {UNET + ldm_unet_name(name, shape): tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    assert plan_checkpoint(tmp_path / "x.safetensors", {**shapes, **other}, {}).shape == shape


# --- what is refused -------------------------------------------------------------------------------------------------


def shapes_of(tensors, **changes):
    """The shapes of the small checkpoint; a change of None takes a tensor away."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    shapes |= changes
    return {name: shape for name, shape in shapes.items() if shape is not None}


def without(prefix):
    return lambda shapes: {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}


def wide_text(width):
    def change(shapes):
        return {
            name: (size[0], width) if "attn2.to_k" in name or "attn2.to_v" in name else size
            for name, size in shapes.items()
        }

    return change


def with_shape(name, *shape):
    return lambda shapes: {**shapes, name: shape}


REFUSALS = {
    "sdxl": (with_shape(UNET + "label_emb.0.0.weight", 1280, 2816), "is an SDXL checkpoint"),
    "sd2": (wide_text(1024), "is a Stable Diffusion 2 checkpoint"),
    "linear": (with_shape(UNET + "input_blocks.1.1.proj_in.weight", 32, 32), "is a Stable Diffusion 2 checkpoint"),
    "inpainting": (with_shape(UNET + "input_blocks.0.0.weight", 32, 9, 3, 3), "is an inpainting checkpoint"),
    "pix2pix": (with_shape(UNET + "input_blocks.0.0.weight", 32, 8, 3, 3), "is an instruct-pix2pix checkpoint"),
    "v-prediction": (with_shape("v_pred", 0), "is a v-prediction model"),
    "flux": (
        lambda shapes: {UNET + "double_blocks.0.img_attn.qkv.weight": (9216, 3072)},
        "is not an SD1.5 checkpoint",
    ),
    "lora": (
        lambda shapes: {"lora_unet_down_blocks_0.lora_down.weight": (4, 320)},
        "is a LoRA file",
    ),
    "controlnet": (lambda shapes: {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}, "is a ControlNet"),
    "vae alone": (lambda shapes: {"encoder.conv_in.weight": (128, 3, 3, 3)}, "is not a complete checkpoint"),
    "no vae": (without(VAE), "has no autoencoder inside"),
    "no clip": (without(TEXT), "has no text encoder inside"),
    "openclip": (
        lambda shapes: {**without(TEXT)(shapes), TEXT + "resblocks.0.attn.in_proj_weight": (3, 3)},
        "has no CLIP text encoder that SD1.5 knows",
    ),
    "missing": (without(UNET + "out.2.bias"), "lacks weights that an SD1.5 U-Net has"),
    "missing vae": (without(VAE + "decoder.norm_out"), "lacks weights that an SD1.5 autoencoder has"),
    "too much": (
        with_shape(UNET + "input_blocks.1.1.motion.weight", 3),
        "has weights that an SD1.5 U-Net does not have",
    ),
    "too much vae": (
        with_shape(VAE + "decoder.time_mix.weight", 3),
        "has weights that an SD1.5 autoencoder does not have",
    ),
    "misshapen": (with_shape(UNET + "out.2.weight", 8, 32, 3, 3), "has misshapen weights in its U-Net"),
    "odd width": (
        with_shape(UNET + "input_blocks.1.0.out_layers.3.weight", 36, 36, 3, 3),
        "has a U-Net unlike SD1.5's",
    ),
    "scalar width": (with_shape(UNET + "input_blocks.1.0.out_layers.3.weight"), "has a U-Net unlike SD1.5's"),
    "scalar tokens": (with_shape(TEXT + "text_model.embeddings.token_embedding.weight"), "has a text encoder unlike"),
    "scalar taesd": (
        lambda shapes: {**without(VAE)(shapes), VAE + "taesd_decoder.1.weight": (64, 4, 3, 3)},
        "has an autoencoder unlike SD1.5's",
    ),
    "other text": (wide_text(96), "does not fit together"),
    "lost layer": (without(TEXT + "text_model.encoder.layers.0."), "has a text encoder unlike SD1.5's"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_sd15_checkpoint_is_refused_by_its_header(tensors, tmp_path, case):
    change, problem = REFUSALS[case]
    with pytest.raises(ValueError, match="What to do: ") as error:
        plan_checkpoint(tmp_path / "thing.safetensors", change(shapes_of(tensors)), {})
    what, why, remedy = str(error.value).split("\n")
    assert what.startswith(f"'thing.safetensors' {problem}")
    assert why.endswith(".")
    assert remedy.endswith(".")


def test_a_text_encoder_that_lost_its_last_layer_is_refused(sd15, tmp_path):
    shapes = without(TEXT + "encoder.layers.11.")(sd15_shapes(sd15))
    with pytest.raises(ValueError, match=r"has an incomplete text encoder\.\n11 of the 12 layers are there\."):
        plan_checkpoint(tmp_path / "thing.safetensors", shapes, {})


def test_an_anydressing_file_is_refused_by_its_metadata(tensors, tmp_path):
    with pytest.raises(ValueError, match="is an AnyDressing file"):
        plan_checkpoint(tmp_path / "thing.safetensors", shapes_of(tensors), {"anydressing_format": "1"})


def test_stated_v_prediction_is_refused(tensors, tmp_path):
    with pytest.raises(ValueError, match="is a v-prediction model"):
        plan_checkpoint(tmp_path / "thing.safetensors", shapes_of(tensors), {"modelspec.prediction_type": "v"})


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_pickle_is_refused_unread(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"is not a \.safetensors file\.\n.* can run programs when they are opened\."):
        plan_base(path)


def test_renamed_pickle_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match="is a PyTorch"):
        plan_base(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.ckpt' was not found") as error:
        plan_base(tmp_path / "none.ckpt")
    assert f"Nothing is at {tmp_path / 'none.ckpt'}." in str(error.value)


def test_a_relative_path_is_told_as_given_and_as_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"The base model: 'models/none\.ckpt' was not found\.") as error:
        plan_base("models/none.ckpt")
    assert f"Nothing is at {tmp_path / 'models' / 'none.ckpt'}: paths count from the folder" in str(error.value)


def test_a_link_to_nothing_is_told(tmp_path):
    (tmp_path / "link.safetensors").symlink_to("gone.safetensors")
    with pytest.raises(ValueError, match=r"It is a link to 'gone\.safetensors', which is not there\."):
        plan_base(tmp_path / "link.safetensors")


def test_a_truncated_file_is_refused(checkpoint, tmp_path):
    path = tmp_path / "half.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:300_000])
    with pytest.raises(ValueError, match="is incomplete"):
        plan_base(path)


def test_eight_bit_floats_are_refused(tmp_path):
    save_file({UNET + "out.0.weight": torch.zeros(32).to(torch.float8_e4m3fn)}, tmp_path / "pruned.safetensors")
    with pytest.raises(ValueError, match="is stored in 8-bit floats"):
        plan_base(tmp_path / "pruned.safetensors")


@pytest.mark.parametrize("scale", [torch.tensor(float("nan")), torch.tensor(0.0), torch.ones(4)])
def test_a_taesd_with_a_broken_scale_is_refused(tensors, tokenizer, tmp_path, scale):
    file = {name: tensor for name, tensor in tensors.items() if not name.startswith(VAE)}
    file |= {VAE + taesd_name(name): tensor for name, tensor in AutoencoderTiny().state_dict().items()}
    save_file({**file, VAE + "vae_scale": scale}, tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match="has an autoencoder whose latents cannot be scaled"):
        load_base(tmp_path / "tiny.safetensors", tokenizer=tokenizer)


def spoil(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "is a v-prediction model"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}, "has another noise schedule than SD1.5"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "is a Stable Diffusion 2 model"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "is not an SD1.5 U-Net"),
        ("unet/config.json", {"in_channels": 9}, "is not an SD1.5 U-Net"),
        ("unet/config.json", {"flip_sin_to_cos": False}, "is not an SD1.5 U-Net"),
        ("text_encoder/config.json", {"hidden_act": "gelu"}, "has a text encoder unlike SD1.5's"),
        ("text_encoder/config.json", {"num_attention_heads": 2}, "has a text encoder unlike SD1.5's"),
        ("text_encoder/config.json", {"num_hidden_layers": 12}, "has an incomplete text encoder"),
        ("vae/config.json", {"scaling_factor": 0}, "has an autoencoder whose latents cannot be scaled"),
    ],
)
def test_a_folder_that_says_something_else_is_refused(folder, file, changes, problem):
    spoil(folder / file, **changes)
    with pytest.raises(ValueError, match="What to do: ") as error:
        plan_base(folder)
    assert problem in str(error.value)
    assert str(error.value).count("\n") == 2


def test_a_configuration_with_a_byte_order_mark_reads(folder):
    path = folder / "unet" / "config.json"
    plan = plan_base(folder)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert plan_base(folder).shape == plan.shape


def test_a_configuration_in_utf_16_is_named(folder):
    path = folder / "unet" / "config.json"
    path.write_bytes(path.read_text().encode("utf-16"))
    with pytest.raises(ValueError, match=r"'unet/config\.json' is saved as UTF-16(?s:.*)save it as UTF-8"):
        plan_base(folder)


def test_a_folder_with_pickle_alone_is_refused(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no U-Net that can be loaded\.\nunet/ holds no \.safetensors weights"):
        plan_base(folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder, but not a diffusers model"):
        plan_base(tmp_path)


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def test_the_tokenizer_is_found_in_the_comfyui_that_holds_the_checkpoint(checkpoint, tokenizer, base, tmp_path):
    shutil.copytree(tokenizer, tmp_path / "comfy" / "sd1_tokenizer")
    path = tmp_path / "models" / "checkpoints" / "sd15.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copy(checkpoint, path)
    assert_same(load_base(path), base)


def test_the_tokenizer_is_found_through_comfyui_path(checkpoint, tokenizer, base, tmp_path, monkeypatch):
    shutil.copytree(tokenizer, tmp_path / "comfy" / "sd1_tokenizer")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert_same(load_base(checkpoint), base)


def test_a_tokenizer_that_transformers_saved_loads(checkpoint, base, tmp_path):
    base.tokenizer.save_pretrained(tmp_path)
    assert_same(load_base(checkpoint, tokenizer=tmp_path), base)


def test_a_tokenizer_that_is_nowhere_is_asked_for(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(base_tokenizer, "tokenizer_places", lambda path: [tmp_path])
    with pytest.raises(ValueError, match=r"CLIP's tokenizer was not found\.") as error:
        load_base(checkpoint)
    assert "comfy/sd1_tokenizer" in str(error.value)
    assert str(error.value).count("\n") == 2


def test_a_named_folder_without_a_tokenizer_is_named_back(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="are not in the folder '"):
        load_base(checkpoint, tokenizer=tmp_path)
    with pytest.raises(ValueError, match=f"Nothing is at {tmp_path / 'none'}"):
        load_base(checkpoint, tokenizer=tmp_path / "none")


def test_a_tokenizer_with_more_words_than_the_text_encoder_is_refused(checkpoint, tokenizer, tmp_path):
    folder = shutil.copytree(tokenizer, tmp_path / "other")
    words = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(words | {f"word{i}": len(words) + i for i in range(100)}))
    with pytest.raises(ValueError, match="It knows 614 words, the text encoder 600"):
        load_base(checkpoint, tokenizer=folder)


def test_a_broken_tokenizer_is_refused(checkpoint, tokenizer, tmp_path):
    folder = shutil.copytree(tokenizer, tmp_path / "other")
    (folder / "vocab.json").write_text("{")
    with pytest.raises(ValueError, match="It cannot be read"):
        load_base(checkpoint, tokenizer=folder)
