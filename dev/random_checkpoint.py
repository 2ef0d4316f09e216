# SPDX-License-Identifier: GPL-3.0-or-later
"""Small SD1.5 files full of random numbers: real ComfyUI takes them for SD1.5, so all machinery runs without anyone's weights.

`python -m dev.random_checkpoint COMFYUI OUT_DIR` writes them; a file that is there already, made by the same recipe, is kept.
It runs in a process of its own, because ComfyUI's modules read the command line when they are imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .comfyui import STORE

RECIPE = "4"  # raise it whenever a number in the files would change
MODELS = STORE / "random_models"

SD15 = "checkpoints/anydressing_random_sd15.safetensors"
MINIMAL = "checkpoints/anydressing_random_min.safetensors"
CONTROLNET = "controlnet/anydressing_random_controlnet.safetensors"
STYLE_LORA = "loras/anydressing_random_style_lora.safetensors"
FILES = (SD15, MINIMAL, CONTROLNET, STYLE_LORA)

# ComfyUI knows SD1.5 by its 320 first channels, its text width of 768 and its convolutional proj_in; depth is free.
COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "legacy": False,
    "use_linear_in_transformer": False,
    "transformer_depth_middle": 1,
}
TWO_LEVELS = {"channel_mult": [1, 1], "num_res_blocks": [1, 1], "transformer_depth": [1, 1]}
ONE_LEVEL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1]}

Tensors = dict[str, Any]


def build_in_subprocess(comfyui: Path, models: Path = MODELS) -> Path:
    """Make sure that the random files lie in `models`, with a process of its own; return `models`."""
    if not all(is_current(models / name) for name in FILES):
        command = [sys.executable, "-m", "dev.random_checkpoint", str(comfyui), str(models)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    return models


def is_current(path: Path) -> bool:
    """Say whether `path` is a file of this recipe."""
    return path.is_file() and metadata_of(path).get("anydressing_random_recipe") == RECIPE


def metadata_of(path: Path) -> dict[str, str]:
    """Return a safetensors file's metadata, reading its header alone."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header.get("__metadata__", {})


def main(comfyui: str, models: str) -> None:
    """Write the files that `models` lacks."""
    for folder in ("checkpoints", "controlnet", "loras", "anydressing"):
        (Path(models) / folder).mkdir(parents=True, exist_ok=True)
    import_comfy(comfyui)
    recipes: dict[str, Callable[[], Tensors]] = {
        SD15: lambda: {**unet(TWO_LEVELS), **autoencoder(), **text_encoder()},
        MINIMAL: lambda: {**unet(ONE_LEVEL), **autoencoder()},
        CONTROLNET: lambda: controlnet(TWO_LEVELS),
        STYLE_LORA: lambda: style_lora(unet(TWO_LEVELS)),
    }
    for name, make in recipes.items():
        path = Path(models) / name
        if not is_current(path):
            print(f"Making {name} from random numbers", flush=True)
            write(path, make())


def import_comfy(comfyui: str) -> None:
    """Make `comfy` importable, on the CPU: a CUDA build of torch without a GPU fails in comfy's memory manager."""
    sys.path.insert(0, comfyui)
    sys.argv = ["random_checkpoint", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()


def unet(depth: Mapping[str, list[int]]) -> Tensors:
    """Return a U-Net of SD1.5's kind under a checkpoint's names."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    output_depth = [level for level in depth["transformer_depth"] for _ in range(2)]
    config = {**copy_lists(depth), "transformer_depth_output": output_depth}
    model = UNetModel(**COMMON, **config, out_channels=4, operations=comfy.ops.disable_weight_init)
    return {f"model.diffusion_model.{name}": tensor.half() for name, tensor in filled(model).items()}


def autoencoder() -> Tensors:
    """Return a small autoencoder (TAESD's shape) under a checkpoint's names."""
    from comfy.taesd.taesd import TAESD

    tensors = filled(TAESD(latent_channels=4))
    tensors["vae_scale"].fill_(0.18215)  # SD1.5's
    tensors["vae_shift"].zero_()
    tensors["taesd_encoder.14.weight"].mul_(LATENT_CONTRAST)
    tensors["taesd_decoder.19.weight"].mul_(PICTURE_CONTRAST)
    tensors["taesd_decoder.19.bias"].fill_(0.5)
    return {f"first_stage_model.{name}": tensor for name, tensor in tensors.items()}


def text_encoder() -> Tensors:
    """Return a whole CLIP-L: ComfyUI leaves the layers of a partial one uninitialised, and NaN comes out."""
    import torch
    from comfy.sd1_clip import SD1ClipModel

    unused = ("text_projection", "logit_scale")
    tensors = filled(SD1ClipModel(dtype=torch.float32))
    return {
        f"cond_stage_model.{name.removeprefix('clip_l.')}": tensor.half()
        for name, tensor in tensors.items()
        if not any(word in name for word in unused)
    }


def controlnet(depth: Mapping[str, list[int]]) -> Tensors:
    """Return a ControlNet for `unet(depth)`."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    operations = comfy.ops.disable_weight_init
    model = ControlNet(**COMMON, **copy_lists(depth), hint_channels=3, operations=operations)
    return {name: tensor.half() for name, tensor in filled(model).items()}


def style_lora(unet_tensors: Tensors) -> Tensors:
    """Return a LoRA of rank 4 on q and v of every attention of a U-Net."""
    import torch

    rank, tensors = 4, {}
    for name, weight in unet_tensors.items():
        if name.endswith(("to_q.weight", "to_v.weight")):
            layer = name.removeprefix("model.diffusion_model.").removesuffix(".weight").replace(".", "_")
            down = torch.randn(rank, weight.shape[1], generator=generator(f"{layer}.down"))
            up = torch.randn(weight.shape[0], rank, generator=generator(f"{layer}.up"))
            tensors[f"lora_unet_{layer}.lora_down.weight"] = (0.05 * down).half()
            tensors[f"lora_unet_{layer}.lora_up.weight"] = (0.05 * up).half()
            tensors[f"lora_unet_{layer}.alpha"] = torch.tensor(float(rank))
    return tensors


def copy_lists(depth: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Return a copy that ComfyUI may empty: its constructors pop from the lists they are given."""
    return {name: list(values) for name, values in depth.items()}


# --- random numbers that make clouds of colour, not grey noise ------------------------------------------------------

PICTURE_CONTRAST = 2.5  # 1 would be pastel
LATENT_CONTRAST = 12.0  # latents of about unit variance, as SD1.5 has them
ATTENTION_GAIN = 2.5  # attention that looks at some tokens more than at others


def filled(model: Any) -> Tensors:
    """Return the model's tensors filled with random numbers, each a function of its own name."""
    return {name: random_like(name, tensor).contiguous() for name, tensor in model.state_dict().items()}


def random_like(name: str, tensor: Any) -> Any:
    """Return random numbers in the tensor's shape, scaled so that a signal keeps its size from layer to layer."""
    import torch

    if not tensor.is_floating_point():
        return tensor
    noise = torch.randn(tensor.shape, generator=generator(name))
    if tensor.ndim < 2:
        return torch.ones_like(noise) if name.endswith("weight") else 0.02 * noise
    noise = noise / tensor[0].numel() ** 0.5
    if tensor.ndim == 4 and tensor.shape[-1] == 3:
        return smooth(noise)
    return noise * (ATTENTION_GAIN if name.endswith(("to_q.weight", "to_k.weight")) else 0.7)


def smooth(kernel: Any) -> Any:
    """Return a convolution of the same channel mixing that blurs: a few of them turn noise into clouds."""
    import torch

    blur = torch.tensor([0.25, 0.5, 0.25])
    mixing = kernel.sum((-2, -1), keepdim=True)  # -> (out, in, 1, 1)
    mixing = mixing - mixing.mean(1, keepdim=True)  # a common brightness, as ReLU makes one, does not add up
    return (blur[:, None] * blur) * mixing / mixing.std().clamp(min=1e-6) / mixing.shape[1] ** 0.5


def generator(name: str) -> Any:
    """Return a random generator that knows nothing but `name`."""
    import torch

    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def write(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file that says what it is; it appears whole or not at all."""
    from safetensors.torch import save_file

    metadata = {
        "format": "pt",
        "anydressing_random_recipe": RECIPE,
        "title": "AnyDressing test weights",
        "description": "Random numbers, trained on nothing. Pictures made with this file are abstract.",
        "licence": "CC0-1.0",
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata=metadata)
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
