# SPDX-License-Identifier: GPL-3.0-or-later
"""From a run of `anydressing train-base` to a file: a recogniser, a parser, or the base model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ....anydressing_core.demo_checkpoint import is_demo_checkpoint
from ....anydressing_core.safetensors_header import read_header
from ....anydressing_core.sites import UNetShape
from ....anydressing_core.word_table import WIDTH
from ...base.model import load_base
from ...base.unet import HEADS
from ...data.manifest import read_manifest
from ...network_file import is_network
from ...picture_files import read_unit
from ...places import replaces
from ...run.config import parse_config
from ...run.folder import CONFIG, RunFolder
from .autoencoder import Autoencoder
from .base_file import TinyVae, with_other_unet, write_base
from .config import PaperDollConfig
from .parser import Parser, save_parser
from .recogniser import Recogniser, save_recogniser

logger = logging.getLogger(__name__)

WORD_TABLE_SEED = 0
MEASURED = 200  # people whose latents tell mean and deviation

Network = TypeVar("Network", bound=nn.Module)


def export_network(run: RunFolder, out: Path, step: int | None = None) -> str:
    """Write what a run trained, and return what was written in one line.

    An autoencoder's run begins a base model: its file holds a U-Net of random numbers, to be trained. step: of a
    checkpoint, the newest when None. A file of the same kind is replaced, and that is told. Raises ValueError when the run
    has no checkpoint, and for a file of another kind in the way.
    """
    config = parse_config(run.config, str(run.path / CONFIG), PaperDollConfig)
    step, trained = run.trained(step)
    kind = config.network if config.network in ("recogniser", "parser") else "base model"
    if replaces(out, lambda path: _is_kind(path, kind), f"a {kind} of the paper-doll world"):
        logger.warning("%s held another %s and is replaced.", out, kind)
    if step == 0:
        logger.warning("This is step 0: the file holds the network as it began, untrained.")
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"steps": str(step), "training_config_hash": config.digest, "dataset": "paper-doll"}
    if config.network == "recogniser":
        recogniser = _filled(Recogniser(config.widths, config.kernel), trained)
        save_recogniser(out, recogniser)
        return f"a recogniser with {_count(recogniser):,} parameters"
    if config.network == "parser":
        parser = _filled(Parser(config.widths), trained)
        save_parser(out, parser)
        return f"a parser with {_count(parser):,} parameters"
    if config.network == "autoencoder":
        _begin_base(config, _filled(Autoencoder(), trained), out, facts)
        return f"an autoencoder, and a U-Net of random numbers, {'-'.join(map(str, config.widths))}"
    assert config.base is not None
    base = load_base(config.base.checkpoint, tokenizer=config.base.tokenizer)
    unet = _filled(base.unet, trained)
    with_other_unet(config.base.checkpoint, out, unet, title=config.title, facts=facts)
    return f"a base model with {_count(unet):,} parameters in its U-Net"


def _is_kind(path: Path, kind: str) -> bool:
    return is_demo_checkpoint(read_header(path).metadata) if kind == "base model" else is_network(path, kind)


def _begin_base(config: PaperDollConfig, autoencoder: Autoencoder, out: Path, facts: dict[str, str]) -> None:
    vae = TinyVae(autoencoder.encoder, autoencoder.decoder, *_statistics(config, autoencoder))
    shape = UNetShape(config.widths, (1,) * len(config.widths), config.attention, True, HEADS, WIDTH)
    torch.manual_seed(config.seed)
    write_base(
        out,
        unet=UNet2DConditionModel(**shape.to_diffusers()),
        vae=vae,
        word_table_seed=WORD_TABLE_SEED,
        title=config.title,
        facts=facts,
    )


@torch.no_grad()
def _statistics(config: PaperDollConfig, autoencoder: Autoencoder) -> tuple[float, float]:
    """Mean and deviation of people's latents, over all channels together."""
    manifest = read_manifest(config.data.manifest)
    people = manifest.of_split("train")[:MEASURED]
    latents = torch.cat([autoencoder.encoder(read_unit(manifest.path(item.image))[None]) for item in people])
    return float(latents.mean()), float(latents.std())


def _filled(network: Network, tensors: dict[str, Tensor]) -> Network:
    network.load_state_dict(tensors)
    return network.eval()


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
