# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Demo Checkpoint: the paper-doll world's base model, from a file inside the pack.

It is an SD1.5 to everything in ComfyUI, only narrower than the ones that Load Checkpoint knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy.taesd.taesd import TAESD
from comfy_api.latest import io
from torch import Tensor

from ..anydressing_core.demo_checkpoint import UNET_PREFIX, VAE_PREFIX, DemoInfo, read_demo_checkpoint
from ..anydressing_core.refusals import quote, refusal
from ..anydressing_core.sites import UNetShape
from ..anydressing_core.word_table import WIDTH, word_table
from .types import CATEGORY, SEARCH_ALIASES

FILE = Path(__file__).parents[1] / "demo" / "paper_doll_base.safetensors"


class AnyDressingDemoCheckpoint(io.ComfyNode):
    """Load the paper doll's base model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingDemoCheckpoint",
            display_name="AnyDressing Demo Checkpoint",
            category=f"{CATEGORY}/demo",
            description="A small base model that comes with AnyDressing: it draws paper dolls, so that you can try "
            "everything without a download. For real pictures use Load Checkpoint and an SD1.5 checkpoint.",
            search_aliases=[*SEARCH_ALIASES, "paper doll"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The paper doll's U-Net."),
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode. It knows the words of paper dolls."),
                io.Vae.Output(display_name="vae", tooltip="The paper doll's VAE."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        if not FILE.is_file():
            raise refusal(
                f"{FILE.parent.name}/{FILE.name}",
                "is missing from the installation of ComfyUI-AnyDressing",
                "The demo checkpoint is a file that comes with the pack; without it there is nothing to load.",
                "install ComfyUI-AnyDressing again, or use Load Checkpoint with an SD1.5 checkpoint.",
            )
        info, tensors = read_demo_checkpoint(FILE)
        vae = _below(VAE_PREFIX, tensors)
        _refuse_other_tensors(vae, TAESD().state_dict())
        config = comfy.supported_models.SD15(ldm_config(info.unet))
        model = _load_model(config, _below(UNET_PREFIX, tensors))
        return io.NodeOutput(model, _load_clip(config, info), comfy.sd.VAE(sd=vae))


def ldm_config(shape: UNetShape) -> dict[str, Any]:
    """ComfyUI's configuration of a U-Net, as it would have detected it."""
    depths = [int(attends) for attends in shape.attention]
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": shape.block_channels[0],
        "num_res_blocks": list(shape.layers),
        "channel_mult": [width // shape.block_channels[0] for width in shape.block_channels],
        "transformer_depth": [depth for depth, count in zip(depths, shape.layers, strict=True) for _ in range(count)],
        "transformer_depth_output": [
            depth for depth, count in zip(depths, shape.layers, strict=True) for _ in range(count + 1)
        ],
        "transformer_depth_middle": int(shape.mid_attention),
        "context_dim": shape.cross_attention_dim,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "use_checkpoint": False,
        "adm_in_channels": None,
        "legacy": False,
    }


def _load_model(config: Any, tensors: dict[str, Tensor]) -> Any:
    """Do what comfy.sd does for a checkpoint whose kind it has detected."""
    management = comfy.model_management
    device, offload_device = management.get_torch_device(), management.unet_offload_device()
    dtypes = list(config.supported_inference_dtypes)
    parameters = comfy.utils.calculate_parameters(tensors)
    dtype = management.unet_dtype(model_params=parameters, supported_dtypes=dtypes, weight_dtype=torch.float16)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, dtypes))
    model = config.get_model({}, device=offload_device)
    _refuse_other_tensors(tensors, model.diffusion_model.state_dict())
    # Looked up here: ComfyUI replaces the class when it manages memory dynamically.
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload_device)
    model.load_model_weights(tensors, assign=patcher.is_dynamic())
    return patcher


def _load_clip(config: Any, info: DemoInfo) -> Any:
    tensors = {
        f"clip_l.transformer.text_model.{name}": tensor for name, tensor in word_table(info.word_table_seed).items()
    }
    # SD1.5 does not read the projected text, but it must be a number.
    tensors["clip_l.transformer.text_projection.weight"] = torch.eye(WIDTH, dtype=torch.float16)
    return comfy.sd.CLIP(
        config.clip_target(),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(tensors),
        state_dict=tensors,
        model_options={"clip_l_model_config": {"num_hidden_layers": 0}},
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _refuse_other_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """ComfyUI would go on with whatever lies in memory where a tensor is missing."""
    sizes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (found, wanted)]
    for name in sorted({**sizes[0], **sizes[1]}):
        if sizes[0].get(name) != sizes[1].get(name):
            raise refusal(
                FILE.name,
                "does not hold the demo checkpoint",
                f"{quote(name)} has the shape {sizes[0].get(name)}; it should be {sizes[1].get(name)}.",
                "install ComfyUI-AnyDressing again.",
            )
