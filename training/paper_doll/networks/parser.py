# SPDX-License-Identifier: GPL-3.0-or-later
"""The parser: a small network that finds person and garments in a picture of the paper-doll world, pixel by pixel.

Where a picture was sampled freely nobody knows its masks; the parser's stand in for them, and its own error on held-out
renders is printed beside whatever is measured with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....anydressing_core.pixels import signed_of
from ...base.model import BaseModel
from ...data.manifest import Manifest
from ...losses.features import ChannelNorm
from ...network_file import load_network, save_network
from ...picture_files import read_grey, read_unit
from ...progress import Progress
from ...run.noise import Draw
from ...run.task import Terms
from ..world.garments import SLOTS
from .config import PaperDollConfig
from .views import dyed, reconstructions

KIND = "parser"
PARTS = ("background", "person", *SLOTS)
BLURS = (1, 1, 1, 3)
"""Pixels of a box blur, one of which is drawn: sampled pictures are softer than painted ones."""


class Parser(nn.Module):
    """Stages that halve the picture, and a way back on which each adds what it sees. widths: channels of the stages."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(_layer(before, after, 2 if place == 0 else 1), _layer(after, after))
            for place, (before, after) in enumerate(pairwise((3, *widths)))
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, widths[0], 1) for width in widths)
        self.merge = nn.ModuleList(_layer(widths[0], widths[0]) for _ in widths)
        self.out = nn.Conv2d(widths[0], len(PARTS), 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """The logits of PARTS for pictures (B, 3, H, W) in [0, 1]: (B, parts, H, W)."""
        x, maps = signed_of(image), list[Tensor]()
        for stage in self.stages:
            x = stage(functional.avg_pool2d(x, 2, ceil_mode=True) if maps else x)
            maps.append(x)
        y = maps[-1].new_zeros(())
        for features, lateral, merge in reversed(list(zip(maps, self.laterals, self.merge, strict=True))):
            size = (features.shape[-2], features.shape[-1])
            above = functional.interpolate(y, size, mode="bilinear") if y.ndim else y
            y = merge(lateral(features) + above)
        return functional.interpolate(self.out(y), (image.shape[-2], image.shape[-1]), mode="bilinear")

    @torch.no_grad()
    def parse(self, image: Tensor) -> dict[str, Tensor]:
        """The mask of each part of one picture (3, H, W): (H, W) bool; they cover it without overlap."""
        found = self(image[None])[0].argmax(dim=0)
        return {part: found == index for index, part in enumerate(PARTS)}


class ParsingData:
    """People with the part that each pixel belongs to. base: fingerprint of the base model that they are seen through."""

    def __init__(self, manifest: Manifest, split: str, base: str) -> None:
        self._manifest, self.items = manifest, manifest.of_split(split)
        self.digest = hashlib.sha256(f"{manifest.digest} {split} parts {base}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.items)

    def name(self, item: int) -> str:
        return self.items[item].id

    def sample(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """A picture (3, H, W) in [0, 1], sometimes softened, dyed or mirrored, and its parts (H, W) long."""
        item = self.items[draw.item]
        assert item.person_mask is not None
        picture = read_unit(self._manifest.path(item.image))
        parts = torch.zeros(picture.shape[-2:], dtype=torch.long)
        parts[self._mask(item.person_mask)] = PARTS.index("person")
        for garment in item.garments:
            parts[self._mask(garment.mask)] = PARTS.index(garment.slot)
        blur = BLURS[draw.integer(len(BLURS), "blur")]
        picture = functional.avg_pool2d(picture[None], blur, 1, blur // 2, count_include_pad=False)[0]
        if draw.uniform("dyed") < 0.5:
            picture = dyed(picture, draw)
        if draw.uniform("mirror") < 0.5:
            picture, parts = picture.flip(2), parts.flip(1)
        return picture, parts

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        pictures, parts = (torch.stack(some) for some in zip(*samples, strict=True))
        return pictures.contiguous(memory_format=torch.channels_last), parts

    def _mask(self, name: str) -> Tensor:
        return read_grey(self._manifest.path(name)) > 0.5


class ParsingTask:
    """What the loop trains: the part of every pixel.

    base: half of the pictures pass through its autoencoder, as all do that are sampled from it.
    """

    def __init__(self, config: PaperDollConfig, data: ParsingData, base: BaseModel) -> None:
        torch.manual_seed(config.seed)  # for the initial weights alone
        self.data, self._parser, self._base = data, Parser(config.widths), base
        self._parser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def module(self) -> nn.Module:
        return self._parser

    def losses(self, batch: tuple[Tensor, Tensor], *, measure: bool) -> Terms:
        """Cross-entropy, and the share of pixels that are right."""
        pictures, parts = batch
        half = len(pictures) // 2
        pictures = torch.cat([reconstructions(self._base, pictures[:half]), pictures[half:]])
        logits = self._parser(pictures).float()
        right = (logits.argmax(dim=1) == parts).float().mean()
        return Terms(functional.cross_entropy(logits, parts), {"right": right.detach()})

    def preview(self, step: int, progress: Progress) -> None:
        """There is nothing to look at."""


def save_parser(path: Path, parser: Parser) -> None:
    """Write a parser, in fp16, with its shape in the metadata."""
    save_network(path, parser, KIND, {"widths": parser.widths})


def load_parser(path: Path) -> Parser:
    """Read a parser: frozen, fp32. Raises ValueError when the file is not one."""
    return load_network(path, KIND, lambda shape: Parser([int(width) for width in shape["widths"]][:8]))


def _layer(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), ChannelNorm(outside), nn.ReLU())
