# SPDX-License-Identifier: GPL-3.0-or-later
"""The frozen base model that is dressed: one SD1.5 `.safetensors` file or a diffusers folder, opened offline.

Nothing is assumed of the U-Net's size: its shape is read from the weights' own shapes, so SD1.5, the paper-doll base
and the tests' small models come the same way. The header is checked and every name and shape is compared before a
tensor is read; whatever does not fit is refused with three lines: what, why, what to do. Nothing here reads a pickle or
asks the network.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..anydressing_core.safetensors_header import Header, quote, read_header, refusal
from ..anydressing_core.sites import SD15, UNetShape

LATENT_SCALE = 0.18215
"""By what SD1.5 multiplies its autoencoder's latents; ComfyUI does so in `process_latent_in`."""

TEXT_TOKENS = 77
HEADS = 8  # attention heads of every SD1.5 U-Net; the one number that weights cannot tell

Vae = AutoencoderKL | AutoencoderTiny


@dataclass(frozen=True)
class NoiseSchedule:
    """SD1.5's: 1000 timesteps, betas scaled-linear from 0.00085 to 0.012, a U-Net that predicts the noise (epsilon).

    alphas_cumprod: (1000,), the a_t of Eq. 10, double precision, on the CPU; timestep counts 0..999.
    """

    alphas_cumprod: Tensor

    @classmethod
    def sd15(cls) -> NoiseSchedule:
        """Compute SD1.5's schedule."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        return cls((1 - betas).cumprod(0))

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t of clean latents (B, 4, h, w) at timestep (B,)."""
        signal, spread = self._weights(timestep, latents)
        return signal * latents + spread * noise

    def remove_noise(self, noisy: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The one-step estimate of the clean latents from z_t and the predicted noise (Eq. 10)."""
        signal, spread = self._weights(timestep, noisy)
        return (noisy - spread * noise) / signal

    def _weights(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod[timestep.cpu()].reshape(-1, 1, 1, 1)
        return alphas.sqrt().to(like), (1 - alphas).sqrt().to(like)


@dataclass(frozen=True)
class BaseModel:
    """A base model, frozen and in eval mode.

    name: the file's or the folder's. sha256: of the file; of a folder's weight files, one after the other.
    """

    name: str
    sha256: str
    shape: UNetShape
    unet: UNet2DConditionModel
    vae: Vae
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed prompts as ComfyUI's CLIPTextEncode does: (B, 77, C), float32. What exceeds 75 tokens is cut off.

        ComfyUI reads parentheses in a prompt as emphasis; here they are plain text.
        """
        # The tokenizer's own limit may say 8192. No attention mask: SD1.5 attends to the padding, too.
        encoded = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
        )
        return self.text_encoder(encoded["input_ids"].to(self.text_encoder.device)).last_hidden_state.float()

    @torch.no_grad()
    def encode_mode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1], sides divisible by 8: the distribution's mode, scaled, (B, 4, h, w).

        The result is what ComfyUI's U-Net is given: VAE Encode, then `process_latent_in`. It has the images' dtype.
        """
        assert images.shape[-2] % 8 == images.shape[-1] % 8 == 0
        # Without gradients: under gradient checkpointing diffusers' tiny encoder forgets its scaling to [0, 1].
        encoded: Any = self.vae.encode(images.to(self.vae.device, self.vae.dtype))
        latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
        scale, shift = _latent_scale_and_shift(self.vae)
        return ((latents - shift) * scale).to(images.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, 4, h, w) to images (B, 3, H, W) in [-1, 1], in the latents' dtype.

        Values may overshoot: they are not clamped, so that the texture losses' gradient passes. Clamp for pictures.
        """
        scale, shift = _latent_scale_and_shift(self.vae)
        plain: Any = latents.to(self.vae.device, self.vae.dtype) / scale + shift
        decoded: Any = self.vae.decode(plain)
        return decoded.sample.to(latents.dtype)


def load_base(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    tokenizer: str | os.PathLike[str] | None = None,
) -> BaseModel:
    """Load a base model from one SD1.5 `.safetensors` file or from a diffusers folder.

    dtype: the U-Net's and the autoencoder's; the autoencoder takes float32 instead of float16, in which it overflows.
    The text encoder computes in float32 always, as ComfyUI's does. tokenizer: a folder with CLIP's vocab.json and
    merges.txt; None looks in the places of `tokenizer_places`. Raises ValueError for everything that is not a base
    model AnyDressing can train on.
    """
    plan = plan_base(path)
    words = _load_tokenizer(Path(path), tokenizer, plan)
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    return BaseModel(
        name=Path(path).name,
        sha256=_sha256(plan),
        shape=plan.shape,
        unet=_filled(plan.unet, device, dtype),
        vae=_with_latent_scale(_filled(plan.vae, device, vae_dtype), plan),
        text_encoder=_with_positions(_filled(plan.text, device, torch.float32), device),
        tokenizer=words,
        schedule=NoiseSchedule.sd15(),
    )


# --- what a file or folder holds, by its header alone ----------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One network's weights inside a file.

    name: how messages call it. shapes: the shape by the tensor's name, without the file's prefix for this network.
    prefix: joined before a name it gives the tensor's key in the file.
    """

    name: str
    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    prefix: str = ""

    def width(self, name: str, axis: int = 0) -> int:
        """The length of a tensor along an axis; 0 where there is none, or one that no network has."""
        shape = self.shapes.get(name, ())
        return shape[axis] if axis < len(shape) and shape[axis] < 1 << 16 else 0

    def refuse(self, problem: str, why: str, remedy: str = "choose another checkpoint.") -> ValueError:
        """The error that refuses the file this part comes from; in a folder every network has its own."""
        name = self.path.name if self.prefix else f"{self.path.parent.name}/{self.path.name}"
        return refusal(quote(name), problem, why, remedy)


@dataclass(frozen=True)
class Module:
    """A network without memory (on the meta device), and the key in the file of every tensor it wants."""

    network: Any
    part: Part
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """A base model whose every name and shape has been compared, and of which no tensor has been read."""

    shape: UNetShape
    unet: Module
    vae: Module
    text: Module


def plan_base(path: str | os.PathLike[str]) -> Plan:
    """Check, from headers and configurations alone, that this is a base model. Raises ValueError with the reason."""
    return _plan_folder(Path(path)) if Path(path).is_dir() else _plan_file(Path(path))


def _plan_file(path: Path) -> Plan:
    header = _checked_header(path)
    return plan_checkpoint(path, {name: entry.shape for name, entry in header.tensors.items()}, header.metadata)


def plan_checkpoint(path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Plan:
    """Check the tensors that one checkpoint lists, under their keys in the file."""
    _refuse_other_files(path, shapes, metadata)
    unet, vae, text = (
        Part(name, path, _below(prefix, shapes), prefix)
        for name, prefix in (
            ("U-Net", "model.diffusion_model."),
            ("autoencoder", "first_stage_model."),
            ("text encoder", "cond_stage_model.transformer."),
        )
    )
    _refuse_other_unets(unet, shapes, metadata)
    for part, use in ((vae, "Garments and people are encoded by it"), (text, "Captions are read by it")):
        if not part.shapes:
            remedy = "choose the complete checkpoint, one that ComfyUI's Load Checkpoint opens."
            raise part.refuse(f"has no {part.name} inside", f"{use}, and a base model must be complete.", remedy)
    shape = _shape_of_ldm(unet)
    return Plan(
        shape,
        _matched(_unet(shape, unet), unet, lambda name: ldm_unet_name(name, shape)),
        _plan_ldm_vae(vae),
        _plan_text(text, shape, {}),
    )


def _plan_folder(folder: Path) -> Plan:
    if not (folder / "unet" / "config.json").is_file():
        why = "A diffusers model has unet, vae, text_encoder and tokenizer folders; unet/config.json is not there."
        raise refusal(quote(folder.name), "is a folder, but not a diffusers model", why, "choose the model's folder.")
    _refuse_other_schedule(folder)
    unet, vae, text = (
        _folder_part(folder, part, name)
        for part, name in (("unet", "U-Net"), ("vae", "autoencoder"), ("text_encoder", "text encoder"))
    )
    shape = _shape_of_folder(unet)
    return Plan(
        shape,
        _matched(_unet(shape, unet), unet, lambda name: name),
        _plan_folder_vae(vae),
        _plan_text(text, shape, _config(text)),
    )


def _checked_header(path: Path) -> Header:
    if path.exists() and path.suffix.lower() != ".safetensors":
        why = "Checkpoints of other kinds (.ckpt, .pt, .bin) can run programs when they are opened."
        remedy = "use the .safetensors version of this model; most model pages offer one."
        raise refusal(quote(path.name), "is not a .safetensors file", why, remedy)
    try:
        return read_header(path)
    except ValueError as error:
        if "unknown dtype 'F8_" not in str(error):
            raise
        why = "Training needs the weights as they were, not rounded to eight bits."
        remedy = "use the 16-bit or 32-bit version of this model."
        raise refusal(quote(path.name), "is stored in 8-bit floats", why, remedy) from error


def _below(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _folder_part(folder: Path, subfolder: str, name: str) -> Part:
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in ("", ".fp16"):
            path = folder / subfolder / f"{stem}{variant}.safetensors"
            if path.is_file():
                return Part(name, path, {key: entry.shape for key, entry in _checked_header(path).tensors.items()})
    why = f"{subfolder}/ holds no .safetensors weights; .bin files can run programs when they are opened."
    remedy = "download the model with its safetensors files, or save it again with save_pretrained."
    raise refusal(quote(folder.name), f"has no {name} that can be loaded", why, remedy)


def _config(part: Part) -> dict[str, Any]:
    return _json(part.path.with_name("config.json"))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = "It is missing or is not readable JSON."
        raise refusal(quote(f"{path.parent.name}/{path.name}"), "cannot be read", why, "copy it again.") from error
    return content if isinstance(content, dict) else {}


# --- what is not a base model ----------------------------------------------------------------------------------------

_SD15_INSTEAD = "choose an SD1.5 checkpoint."


def _refuse_other_files(path: Path, shapes: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    def has(*marks: str) -> bool:
        return any(mark in key for key in shapes for mark in marks)

    name = quote(path.name)
    if "anydressing_format" in metadata:
        why = "It holds what is added to a base model, not the base model."
        remedy = "choose an SD1.5 checkpoint as the base; this file can be given to --init."
        raise refusal(name, "is an AnyDressing file", why, remedy)
    if has(".lora_down.", ".lora_up.", "lora_A.", "lora_B.", ".hada_w1", ".lokr_w1"):
        why = "It holds small changes to a base model, not the base model."
        raise refusal(name, "is a LoRA file", why, _SD15_INSTEAD)
    if has("control_model.", "input_hint_block.", "controlnet_cond_embedding."):
        raise refusal(name, "is a ControlNet", "It steers a base model and cannot stand for it.", _SD15_INSTEAD)
    if not any(key.startswith("model.diffusion_model.") for key in shapes):
        why = "No tensor begins with 'model.diffusion_model.', as the U-Net of a complete SD1.5 checkpoint does."
        remedy = "choose a complete checkpoint, one that ComfyUI's Load Checkpoint opens."
        raise refusal(name, "is not a complete checkpoint", why, remedy)


def _refuse_other_unets(unet: Part, shapes: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    first = unet.shapes.get("input_blocks.0.0.weight", ())
    if len(first) != 4:
        why = "Its U-Net is missing or is no U-Net at all (Flux, SD3 and others have none)."
        raise unet.refuse("is not an SD1.5 checkpoint", why, _SD15_INSTEAD)
    if "label_emb.0.0.weight" in unet.shapes:
        why = "Its U-Net takes a size or class embedding, which SD1.5 does not have."
        raise unet.refuse("is an SDXL checkpoint or one of its kind", why, _SD15_INSTEAD)
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in unet.shapes.items())
    if linear or _text_width(unet) == 1024:
        why = f"Its U-Net reads text {_text_width(unet)} wide through other layers; SD1.5's is 768 wide."
        raise unet.refuse("is a Stable Diffusion 2 checkpoint or one of its kind", why, _SD15_INSTEAD)
    if first[1] != 4:
        kind = {9: "an inpainting", 8: "an instruct-pix2pix"}.get(first[1], "an unusual")
        why = f"Its U-Net takes {first[1]} channels; training noises the 4 channels of a picture's latents."
        remedy = "train on the plain checkpoint of the same family."
        raise unet.refuse(f"is {kind} checkpoint", why, remedy)
    if "v_pred" in shapes or metadata.get("modelspec.prediction_type", "").startswith("v"):
        raise unet.refuse(*_V_PREDICTION, _SD15_INSTEAD)


_V_PREDICTION = ("is a v-prediction model", "Its U-Net predicts velocity; AnyDressing trains one that predicts noise.")


def _refuse_other_schedule(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    config = _json(path) if path.is_file() else {}
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise refusal(quote(folder.name), *_V_PREDICTION, _SD15_INSTEAD)
    ours = {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": False,
    }
    for name, value in ours.items():
        if config.get(name, value) != value:
            why = f"scheduler_config.json says {name} = {quote(config[name])}; SD1.5 has {value}."
            raise refusal(quote(folder.name), "has another noise schedule than SD1.5", why, _SD15_INSTEAD)


# --- U-Net -----------------------------------------------------------------------------------------------------------


def _unet(shape: UNetShape, part: Part) -> UNet2DConditionModel:
    if any(channels % 32 for channels in shape.block_channels):
        why = f"Its widths are {shape.block_channels}; every width must be a multiple of 32, for group normalisation."
        raise part.refuse("has a U-Net unlike SD1.5's", why)
    with torch.device("meta"):
        return UNet2DConditionModel(**shape.to_diffusers())


def _text_width(unet: Part) -> int:
    return next((unet.width(name, 1) for name in unet.shapes if name.endswith("attn2.to_k.weight")), 0)


def _shape_of_ldm(unet: Part) -> UNetShape:
    """Read the shape from an ldm U-Net's tensors; that nothing else is there is for `_matched` to say."""
    levels: list[list[tuple[int, bool]]] = [[]]  # per level, per layer: width, whether it attends
    for index in range(1, 1 + len(unet.shapes)):
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in unet.shapes:
            levels.append([])
        elif f"{block}.0.out_layers.3.weight" in unet.shapes:
            width = unet.width(f"{block}.0.out_layers.3.weight")
            levels[-1].append((width, f"{block}.1.proj_in.weight" in unet.shapes))
        else:
            break
    try:
        if not all(len(set(level)) == 1 for level in levels):
            raise ValueError("The layers of one resolution differ, or there are none.")
        shape = UNetShape(
            block_channels=tuple(level[0][0] for level in levels),
            layers=tuple(len(level) for level in levels),
            attention=tuple(level[0][1] for level in levels),
            mid_attention="middle_block.1.proj_in.weight" in unet.shapes,
            heads=HEADS,
            cross_attention_dim=_text_width(unet),
        )
        return UNetShape.from_diffusers(shape.to_diffusers())  # which knows what is out of bounds
    except ValueError as error:
        raise unet.refuse("has a U-Net unlike SD1.5's", str(error), _SD15_INSTEAD) from error


# Said by the shape itself, in more than one spelling, or (sample_size) of no effect on the result.
_SHAPE_SETTINGS = set(SD15.to_diffusers()) - {"in_channels", "out_channels"} | {
    "num_attention_heads",
    "transformer_layers_per_block",
    "sample_size",
}


def _shape_of_folder(unet: Part) -> UNetShape:
    config = _config(unet)
    if config.get("cross_attention_dim") == 1024:
        why = "Its U-Net reads text 1024 wide; SD1.5's is 768 wide."
        raise unet.refuse("is a Stable Diffusion 2 model or one of its kind", why, _SD15_INSTEAD)
    try:
        shape = UNetShape.from_diffusers(config)
    except ValueError as error:
        raise unet.refuse("is not an SD1.5 U-Net", str(error), _SD15_INSTEAD) from error
    for name, value in _unet(shape, unet).config.items():
        stated = config.get(name, value)
        if name not in _SHAPE_SETTINGS and not name.startswith("_") and (stated or None) != (value or None):
            why = f"unet/config.json says {name} = {quote(stated)}; SD1.5 has {value}, and ComfyUI knows only that."
            raise unet.refuse("is not an SD1.5 U-Net", why, _SD15_INSTEAD)
    return shape


_UNET_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_unet_name(name: str, shape: UNetShape) -> str:
    """The name in an original checkpoint of a tensor of diffusers' U-Net. Inside an attention both agree."""
    layer, kind, inner = _split_unet_name(name)
    if kind == "resnets":
        module, _, tensor = inner.partition(".")
        inner = f"{_RESNET_NAMES[module]}.{tensor}"
    elif kind == "downsamplers":
        inner = inner.replace("conv", "op")
    if layer in _UNET_NAMES:
        return f"{_UNET_NAMES[layer]}.{inner}"
    stage, level, _, index = layer.split(".")
    return f"{_ldm_unet_block(stage, int(level), kind, int(index), shape)}.{inner}"


def _split_unet_name(name: str) -> tuple[str, str, str]:
    """Split a name into the layer, its kind and the rest."""
    match = re.match(r"(?:\w+_blocks\.\d+|mid_block)\.(\w+)\.\d+(?=\.)", name)
    if match:
        return match.group(), match.group(1), name[match.end() + 1 :]
    layer, _, tensor = name.rpartition(".")
    return layer, "", tensor


def _ldm_unet_block(stage: str, level: int, kind: str, index: int, shape: UNetShape) -> str:
    if stage == "down_blocks":
        # input_blocks.0 is the first convolution; a level is its layers, then the downsampling convolution
        position = 1 + sum(layers + 1 for layers in shape.layers[:level])
        if kind == "downsamplers":
            return f"input_blocks.{position + shape.layers[level]}.0"
        return f"input_blocks.{position + index}.{int(kind == 'attentions')}"
    layers, attention = shape.layers[::-1], shape.attention[::-1]
    position = sum(count + 1 for count in layers[:level])
    if kind == "upsamplers":  # it shares the level's last block
        return f"output_blocks.{position + layers[level]}.{1 + attention[level]}"
    return f"output_blocks.{position + index}.{int(kind == 'attentions')}"


# --- autoencoder -----------------------------------------------------------------------------------------------------


def _plan_ldm_vae(vae: Part) -> Module:
    if "taesd_decoder.1.weight" in vae.shapes:
        weights = {name: shape for name, shape in vae.shapes.items() if name not in _TAESD_SCALE}
        for name in set(vae.shapes) - set(weights):
            if math.prod(vae.shapes[name]) != 1:
                why = f"{quote(vae.prefix + name)} must be one number."
                raise vae.refuse("has an autoencoder whose latents cannot be scaled", why)
        part = Part(vae.name, vae.path, weights, vae.prefix)
        return _matched(_tiny_vae(part, "taesd_encoder.0.weight"), part, taesd_name)
    return _matched(*_kl_vae(vae, "encoder.down.{}.block.{}.conv2.weight"), ldm_vae_name)


def _plan_folder_vae(vae: Part) -> Module:
    config = _config(vae)
    tiny = "encoder.layers.0.weight" in vae.shapes
    if tiny:
        module = _matched(_tiny_vae(vae, "encoder.layers.0.weight"), vae, lambda name: name)
    else:
        # Folders saved by old diffusers, SD1.5's own among them, call the attention's layers otherwise.
        old = "encoder.mid_block.attentions.0.query.weight" in vae.shapes
        network, part = _kl_vae(vae, "encoder.down_blocks.{}.resnets.{}.conv2.weight")
        module = _matched(network, part, _old_attention_name if old else lambda name: name)
    scale = config.get("scaling_factor", 1.0 if tiny else LATENT_SCALE)
    shift = config.get("shift_factor") or 0.0
    _register_latent_scale(module.network, scale, shift, vae)
    return module


def _tiny_vae(vae: Part, first: str) -> AutoencoderTiny:
    width = vae.width(first)
    if not width:
        raise vae.refuse("has an autoencoder unlike SD1.5's", f"{quote(vae.prefix + first)} is missing or misshapen.")
    widths = (width,) * 4
    with torch.device("meta"):
        return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)


def _kl_vae(vae: Part, conv: str) -> tuple[AutoencoderKL, Part]:
    """Build the autoencoder that the shapes tell of; conv: the name of a level's and layer's second convolution."""
    levels = [_run(lambda layer, level=level: conv.format(level, layer), vae) for level in range(5)]
    widths = [level[-1] for level in levels if level]
    layers = {len(level) for level in levels if level}
    if len(widths) != 4 or len(layers) != 1 or any(width % 32 for width in widths):
        why = "SD1.5's has four resolutions with equally many layers, or it is a TAESD."
        raise vae.refuse("has an autoencoder unlike SD1.5's", why)
    config: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": widths,
        "layers_per_block": layers.pop(),
        "latent_channels": 4,
        "scaling_factor": LATENT_SCALE,
    }
    with torch.device("meta"):
        network = AutoencoderKL(**config)
    weights = {name: shape for name, shape in vae.shapes.items() if not name.startswith(("loss.", "model_ema."))}
    return network, Part(vae.name, vae.path, weights, vae.prefix)


def _run(name: Callable[[int], str], part: Part) -> list[int]:
    """The widths of layers 0, 1, 2 ... as far as the part has them."""
    widths: list[int] = []
    while width := part.width(name(len(widths))):
        widths.append(width)
    return widths


_VAE_NAMES = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.", lambda match: f".up.{3 - int(match[1])}.block."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f".up.{3 - int(match[1])}.upsample."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda match: f".mid.block_{1 + int(match[1])}."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)


def ldm_vae_name(name: str) -> str:
    """The name in an original checkpoint of a tensor of diffusers' AutoencoderKL."""
    for pattern, replacement in _VAE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def taesd_name(name: str) -> str:
    """The name in a checkpoint with a TAESD of a tensor of diffusers' AutoencoderTiny."""
    network, _, index, rest = name.split(".", 3)
    # In TAESD's decoder the clamp counts as a layer.
    return f"taesd_{network}.{int(index) + (network == 'decoder')}.{rest}"


_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def _old_attention_name(name: str) -> str:
    match = re.search(r"(?<=\.attentions\.0\.)(to_q|to_k|to_v|to_out\.0)", name)
    return name[: match.start()] + _OLD_ATTENTION[match.group()] + name[match.end() :] if match else name


_TAESD_SCALE = {"vae_scale": 1.0, "vae_shift": 0.0}  # what ComfyUI takes where a file does not say


def _with_latent_scale(vae: Vae, plan: Plan) -> Vae:
    """Give a checkpoint's TAESD the scale and shift that ComfyUI gives its latents."""
    part = plan.vae.part
    if isinstance(vae, AutoencoderTiny) and part.prefix:
        with safe_open(part.path, framework="pt") as file:
            # ComfyUI: encoded / vae_scale + vae_shift, then times 0.18215. Ours: (encoded - shift) * scale.
            present = set(file.keys())
            scale, shift = (
                file.get_tensor(part.prefix + name).item() if part.prefix + name in present else default
                for name, default in _TAESD_SCALE.items()
            )
        _register_latent_scale(vae, LATENT_SCALE / scale if scale else math.inf, -shift * scale, part)
    return vae


def _register_latent_scale(vae: Vae, scale: Any, shift: Any, part: Part) -> None:
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (scale, shift))
    if not numbers or scale <= 0:
        why = f"Its latents' scale is {quote(scale)} and their shift {quote(shift)}."
        raise part.refuse("has an autoencoder whose latents cannot be scaled", why)
    vae.register_to_config(scaling_factor=float(scale), shift_factor=float(shift))


def _latent_scale_and_shift(vae: Vae) -> tuple[float, float]:
    return vae.config["scaling_factor"], vae.config["shift_factor"] or 0.0


# --- text encoder and tokenizer --------------------------------------------------------------------------------------


def _plan_text(text: Part, shape: UNetShape, config: Mapping[str, Any]) -> Module:
    unused = ("position_ids", "logit_scale", "text_projection", "text_projection.weight")
    weights = {name: size for name, size in text.shapes.items() if not name.endswith(unused)}
    part = Part(text.name, text.path, weights, text.prefix)
    below = "text_model." if any(name.startswith("text_model.") for name in weights) else ""
    if f"{below}embeddings.token_embedding.weight" not in weights:
        why = "SD1.5 reads text with CLIP ViT-L; its token table is not there."
        raise text.refuse("has no CLIP text encoder that SD1.5 knows", why, _SD15_INSTEAD)
    network = _clip(part, below)
    _refuse_other_text(part, network.config, shape, config)

    def name_in_file(name: str) -> str:
        return below + name.removeprefix("text_model.")  # transformers 5 dropped the prefix from its own names

    return _matched(network, part, name_in_file)


def _clip(text: Part, below: str) -> CLIPTextModel:
    tokens = f"{below}embeddings.token_embedding.weight"
    words, width = text.width(tokens), text.width(tokens, 1)
    inner = _run(lambda layer: f"{below}encoder.layers.{layer}.mlp.fc1.weight", text)
    if not words or not width or width % 64 or not inner:
        raise text.refuse("has a text encoder unlike SD1.5's", "It is not a CLIP with heads 64 wide.", _SD15_INSTEAD)
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        num_attention_heads=width // 64,
        num_hidden_layers=len(inner),
        intermediate_size=inner[0],
        max_position_embeddings=TEXT_TOKENS,
        hidden_act="quick_gelu",
    )
    with torch.device("meta"):
        return CLIPTextModel(config)


def _refuse_other_text(text: Part, ours: CLIPTextConfig, shape: UNetShape, stated: Mapping[str, Any]) -> None:
    width, layers = ours.hidden_size, ours.num_hidden_layers
    if width != shape.cross_attention_dim:
        why = f"Its text encoder writes {width} numbers a token, its U-Net reads {shape.cross_attention_dim}."
        raise text.refuse("does not fit together", why, _SD15_INSTEAD)
    # A configuration may say that there are fewer layers; a checkpoint has none, and then some must be missing.
    expected = stated.get("num_hidden_layers", 12 if width == 768 else layers)
    if layers != expected:
        why = f"{layers} of the {expected} layers are there."
        raise text.refuse("has an incomplete text encoder", why, "download or copy it again.")
    for name in ("hidden_act", "num_attention_heads"):
        fitting = getattr(ours, name)
        if stated.get(name, fitting) != fitting:
            why = f"text_encoder/config.json says {name} = {quote(stated[name])}; CLIP in SD1.5 has {fitting}."
            raise text.refuse("has a text encoder unlike SD1.5's", why, _SD15_INSTEAD)


def _with_positions(text_encoder: CLIPTextModel, device: torch.device | str) -> CLIPTextModel:
    """Give back the one buffer that no file holds: 0, 1, 2 ..."""
    for module in text_encoder.modules():
        if "position_ids" in dict(module.named_buffers(recurse=False)):
            positions = torch.arange(TEXT_TOKENS, device=device)[None]
            module.register_buffer("position_ids", positions, persistent=False)
    return text_encoder


def tokenizer_places(path: Path) -> Iterator[Path]:
    """Yield the folders where CLIP's tokenizer may lie, best first; `path` is the base model's."""
    yield path / "tokenizer"
    yield path.parent / "tokenizer"
    pack = Path(__file__).absolute().parents[1]
    around = [*path.absolute().parents, *path.resolve().parents, *pack.parents, *pack.resolve().parents]
    named = os.environ.get("COMFYUI_PATH")
    fetched = sorted((pack / ".comfyui").glob("[0-9]*"), reverse=True)  # by `make setup`
    for comfyui in (*([Path(named).expanduser()] if named else []), *around, Path.home() / "comfy/ComfyUI", *fetched):
        yield comfyui / "comfy" / "sd1_tokenizer"


def _is_tokenizer(folder: Path) -> bool:
    # transformers 5 saves both files as one
    files = [(folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "merges.txt")]
    return files[0] or all(files[1:])


def _load_tokenizer(path: Path, given: str | os.PathLike[str] | None, plan: Plan) -> CLIPTokenizer:
    places = [Path(given)] if given is not None else tokenizer_places(path)
    folder = next((place for place in places if _is_tokenizer(place)), None)
    if folder is None:
        searched = f"the folder {quote(str(given))}" if given is not None else "any of the usual places"
        raise refusal(
            "CLIP's tokenizer",
            "was not found",
            f"Its two files, vocab.json and merges.txt, are not in {searched}, and nothing is downloaded.",
            "name the folder that holds them; every ComfyUI has one, comfy/sd1_tokenizer."
            " Or set COMFYUI_PATH to your ComfyUI.",
        )
    problem = f"in {quote(str(folder))} does not fit this base model"
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # tokenizers, written in Rust, raises bare Exceptions
        raise refusal(
            "CLIP's tokenizer", problem, f"It cannot be read: {quote(str(error))}", "copy it again."
        ) from error
    known = plan.text.network.config.vocab_size
    if len(tokenizer) > known:
        why = f"It knows {len(tokenizer):,} words, the text encoder {known:,}."
        raise refusal("CLIP's tokenizer", problem, why, "name the folder of the tokenizer made for it.")
    return tokenizer


# --- from names to weights -------------------------------------------------------------------------------------------


def _matched(network: Any, part: Part, name_in_file: Callable[[str], str]) -> Module:
    """Find every tensor of the network in the part; raise ValueError for what is missing, left over or misshapen."""
    wanted = {name: (name_in_file(name), tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
    keys = {name: part.prefix + key for name, (key, _) in wanted.items()}
    again = "download it again; if that changes nothing, choose another checkpoint."
    for key, shape in wanted.values():
        found = part.shapes.get(key)
        if found is None:
            why = f"{quote(part.prefix + key)} is missing."
            raise part.refuse(f"lacks weights that an SD1.5 {part.name} has", why, again)
        if _plain(found) != _plain(shape):
            why = f"{quote(part.prefix + key)} has the shape {found}; {shape} fits the rest."
            raise part.refuse(f"has misshapen weights in its {part.name}", why, again)
    foreign = sorted(set(part.shapes) - {key for key, _ in wanted.values()})
    if foreign:
        why = f"{quote(part.prefix + foreign[0])} has no place there; {len(foreign)} tensors are too many."
        raise part.refuse(f"has weights that an SD1.5 {part.name} does not have", why, _SD15_INSTEAD)
    return Module(network, part, keys)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the trailing ones with which a 1 x 1 convolution differs from a matrix."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _filled(module: Module, device: torch.device | str, dtype: torch.dtype) -> Any:
    """Read the network's tensors, one at a time; the result is frozen and in eval mode."""
    network, weights = module.network, {}
    with safe_open(module.part.path, framework="pt") as file:
        for name, target in network.state_dict().items():
            tensor = file.get_tensor(module.keys[name]).reshape(target.shape)
            # A copy always: what safetensors returns lies in the file, which may change while we train.
            weights[name] = tensor.to(device, dtype, copy=True)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def _sha256(plan: Plan) -> str:
    digest = hashlib.sha256()
    for path in dict.fromkeys(module.part.path for module in (plan.unet, plan.vae, plan.text)):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
