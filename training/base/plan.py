# SPDX-License-Identifier: GPL-3.0-or-later
"""What a base model's file or folder holds, by its header alone, and what is no base model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...anydressing_core.demo_checkpoint import DemoInfo, is_demo_checkpoint
from ...anydressing_core.refusals import quote, refusal
from ...anydressing_core.sites import UNetShape
from ..places import require_there
from .part import SD15_INSTEAD, Module, Part, checked_header, config_beside, part_below, part_in_folder, read_json
from .text import WordTable, plan_text, plan_word_table
from .unet import V_PREDICTION, plan_folder_unet, plan_ldm_unet, refuse_other_unets
from .vae import plan_folder_vae, plan_ldm_vae


@dataclass(frozen=True)
class Plan:
    """A base model whose every name and shape has been compared, and of which no tensor has been read."""

    shape: UNetShape
    unet: Module
    vae: Module
    text: Module | WordTable


def plan_base(path: str | os.PathLike[str]) -> Plan:
    """Check, from headers and configurations alone, that this is a base model. Raises ValueError with the reason."""
    path = require_there(path, "The base model")
    return _plan_folder(path) if path.is_dir() else _plan_file(path)


def _plan_file(path: Path) -> Plan:
    header = checked_header(path)
    return plan_checkpoint(path, {name: entry.shape for name, entry in header.tensors.items()}, header.metadata)


def plan_checkpoint(path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Plan:
    """Check the tensors that one checkpoint lists, under their keys in the file."""
    _refuse_other_files(path, shapes, metadata)
    unet = part_below("model.diffusion_model.", path, shapes, "U-Net")
    vae = part_below("first_stage_model.", path, shapes, "autoencoder")
    text = part_below("cond_stage_model.transformer.", path, shapes, "text encoder")
    refuse_other_unets(unet, shapes, metadata)
    info = DemoInfo.from_metadata(metadata, quote(path.name)) if is_demo_checkpoint(metadata) else None
    _refuse_missing(vae, "Garments and people are encoded by it")
    if info is None:
        _refuse_missing(text, "Captions are read by it")
    shape, network = plan_ldm_unet(unet)
    words = plan_text(text, shape, {}) if info is None else plan_word_table(info.word_table_seed)
    return Plan(shape, network, plan_ldm_vae(vae), words)


def _plan_folder(folder: Path) -> Plan:
    if not (folder / "unet" / "config.json").is_file():
        why = "A diffusers model has unet, vae, text_encoder and tokenizer folders; unet/config.json is not there."
        raise refusal(quote(folder.name), "is a folder, but not a diffusers model", why, "choose the model's folder.")
    _refuse_other_schedule(folder)
    unet = part_in_folder(folder, "unet", "U-Net")
    vae = part_in_folder(folder, "vae", "autoencoder")
    text = part_in_folder(folder, "text_encoder", "text encoder")
    shape, network = plan_folder_unet(unet)
    return Plan(shape, network, plan_folder_vae(vae), plan_text(text, shape, config_beside(text)))


def _refuse_missing(part: Part, use: str) -> None:
    if not part.shapes:
        remedy = "choose the complete checkpoint, one that ComfyUI's Load Checkpoint opens."
        raise part.refuse(f"has no {part.name} inside", f"{use}, and a base model must be complete.", remedy)


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
        raise refusal(name, "is a LoRA file", why, SD15_INSTEAD)
    if has("control_model.", "input_hint_block.", "controlnet_cond_embedding."):
        raise refusal(name, "is a ControlNet", "It steers a base model and cannot stand for it.", SD15_INSTEAD)
    if not any(key.startswith("model.diffusion_model.") for key in shapes):
        why = "No tensor begins with 'model.diffusion_model.', as the U-Net of a complete SD1.5 checkpoint does."
        remedy = "choose a complete checkpoint, one that ComfyUI's Load Checkpoint opens."
        raise refusal(name, "is not a complete checkpoint", why, remedy)


def _refuse_other_schedule(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path) if path.is_file() else {}
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise refusal(quote(folder.name), *V_PREDICTION, SD15_INSTEAD)
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
            raise refusal(quote(folder.name), "has another noise schedule than SD1.5", why, SD15_INSTEAD)
