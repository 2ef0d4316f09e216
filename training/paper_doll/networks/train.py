# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what `anydressing train-base` trains."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ...base.model import BaseModel, load_base
from ...data.cache import CachePlan, build_cache
from ...data.encoders import BaseEncoders
from ...data.manifest import Manifest, read_manifest
from ...hardware import Hardware
from ...run.start import Workplace
from ...run.task import Task
from ..world.garments import SLOTS
from .autoencoder import AutoencoderTask
from .base_unet import BaseData, BaseTask, flat_lay_caption
from .config import PaperDollConfig
from .parser import ParsingData, ParsingTask
from .recogniser import KINDS
from .recognition import RecognitionData, RecognitionTask


def make_task(config: PaperDollConfig, place: Workplace) -> Task:
    """The task of a configuration, on the workplace's device."""
    manifest = read_manifest(config.data.manifest)
    if config.network == "recogniser":
        return RecognitionTask(config, RecognitionData(manifest, "train"))
    if config.network == "parser":
        base = _frozen_base(config, place)
        return ParsingTask(config, ParsingData(manifest, "train", base.sha256), base)
    if config.network == "unet":
        return _base_task(config, manifest, place)
    return AutoencoderTask(config, place.run.path, _pictures(manifest))


def _pictures(manifest: Manifest) -> list[Path]:
    """What the autoencoder sees: everybody twice, every flat-lay once."""
    items = manifest.of_split("train")
    people = [manifest.path(item.image) for item in items]
    flat_lays = [manifest.path(garment.image) for item in items for garment in item.garments if garment.image]
    return [*people, *people, *flat_lays]


def _base_task(config: PaperDollConfig, manifest: Manifest, place: Workplace) -> BaseTask:
    base = _frozen_base(config, place)
    wanted = CachePlan(config.data.resolution, SLOTS, most_bad=config.data.most_bad_items, edges=False)
    folder = config.data.cache or manifest.folder / "cache"
    cached = build_cache(manifest, BaseEncoders(base), folder, wanted, course=place.course)
    labels = {item.id: item.labels or {} for item in manifest.items}
    kinds = [
        [labels[person.id]["garments"][garment.slot]["kind"] for garment in person.garments] for person in cached.people
    ]
    flat_lays = base.encode_text([flat_lay_caption(kind) for kind in KINDS]).cpu()
    return BaseTask(config, base, BaseData(config, cached, kinds, flat_lays), place.run.path)


def _frozen_base(config: PaperDollConfig, place: Workplace) -> BaseModel:
    """The base model in fp32, its autoencoder as an adapter's run has it: then all read the same cache."""
    assert config.base is not None
    hardware = Hardware(place.hardware.device, "fp32")
    base = load_base(config.base.checkpoint, hardware, tokenizer=config.base.tokenizer)
    nn.Module.to(base.vae, dtype=place.hardware.dtype)
    return base
