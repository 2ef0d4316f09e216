# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll world's autoencoder: TAESD's layout (eight-fold, four channels), narrower where it may be.

It is trained on crops, people and flat-lays alike. `pad_to_taesd` widens it to TAESD's 64 channels without changing what
it computes, which is the only width that ComfyUI knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ....anydressing_core.latents import CELL, latent_size
from ....anydressing_core.pixels import as_unit, bytes_of
from ...picture_files import read_unit
from ...progress import Progress
from ...run.noise import Draw
from ...run.task import Terms
from ...sheets import grid, of_step, save_sheet
from .config import PaperDollConfig

Widths = tuple[int, int, int, int]
ENCODER_WIDTHS: Widths = (16, 32, 64, 64)  # from full to eighth resolution
DECODER_WIDTHS: Widths = (16, 32, 64, 64)


class Block(nn.Module):
    """Three convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU(), _conv(channels, channels)
        )
        self.skip, self.fuse = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


class Clamp(nn.Module):
    """TAESD's soft bound on what is decoded."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Encoder(nn.Sequential):
    """(B, 3, H, W) in [0, 1] -> (B, 4, H / 8, W / 8)."""

    def __init__(self, widths: Widths = ENCODER_WIDTHS) -> None:
        full, half, quarter, eighth = widths
        super().__init__(
            _conv(3, full),
            Block(full),
            *(_conv(full, half, stride=2), Block(half), Block(half), Block(half)),
            *(_conv(half, quarter, stride=2), Block(quarter), Block(quarter), Block(quarter)),
            *(_conv(quarter, eighth, stride=2), Block(eighth), Block(eighth), Block(eighth)),
            _conv(eighth, 4),
        )


class Decoder(nn.Sequential):
    """(B, 4, h, w) -> (B, 3, 8 h, 8 w), about [0, 1]."""

    def __init__(self, widths: Widths = DECODER_WIDTHS) -> None:
        full, half, quarter, eighth = widths
        super().__init__(
            *(Clamp(), _conv(4, eighth), nn.ReLU()),
            *(Block(eighth), Block(eighth), Block(eighth), nn.Upsample(scale_factor=2), _conv(eighth, quarter, False)),
            *(Block(quarter), Block(quarter), Block(quarter), nn.Upsample(scale_factor=2), _conv(quarter, half, False)),
            *(Block(half), Block(half), Block(half), nn.Upsample(scale_factor=2), _conv(half, full, False)),
            *(Block(full), _conv(full, 3)),
        )


class Autoencoder(nn.Module):
    """Encoder and decoder, trained together. probe: reads a cell's mean colour off its latent, while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.probe = nn.Conv2d(4, 3, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Block):  # begin as the identity
                nn.init.zeros_(module.conv[-1].weight)  # type: ignore[arg-type]
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)  # begin with grey
        nn.init.constant_(last.bias, 0.5)


class Crops:
    """Square crops of pictures on disk, for the loop. digest: over names and sizes of the files."""

    def __init__(self, pictures: Sequence[Path], crop: int) -> None:
        self._pictures, self._crop = list(pictures), crop
        self.digest = hashlib.sha256(
            json.dumps([[path.name, path.stat().st_size] for path in self._pictures]).encode()
        ).hexdigest()

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, item: int) -> str:
        return self._pictures[item].name

    def sample(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """A crop (3, crop, crop) in [0, 1] whose corner lies on a latent cell, and noise (4, crop / 8, crop / 8)."""
        with Image.open(self._pictures[draw.item]) as picture:
            across, down = ((side - self._crop) // CELL + 1 for side in picture.size)
            left, top = CELL * draw.integer(across, "left"), CELL * draw.integer(down, "top")
            square = picture.convert("RGB").crop((left, top, left + self._crop, top + self._crop))
        noise = draw.normal((4, *latent_size((self._crop, self._crop))), "noise")
        return as_unit(np.array(square)), noise

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        crops, noise = (torch.stack(parts) for parts in zip(*samples, strict=True))
        return crops.contiguous(memory_format=torch.channels_last), noise


class AutoencoderTask:
    """What the loop trains: reconstruction, with noise on the latents so that the decoder forgives a U-Net's errors."""

    def __init__(self, config: PaperDollConfig, folder: Path, pictures: Sequence[Path]) -> None:
        torch.manual_seed(config.seed)  # for the initial weights alone
        self.module = Autoencoder()
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data = Crops(pictures, config.crop)
        self._noise, self._folder = config.latent_noise, folder
        self._shown = [read_unit(path) for path in pictures[:6]]

    def losses(self, batch: tuple[Tensor, Tensor], *, measure: bool) -> Terms:
        """L1, its gradient and its coarse average, a bound on the latents, and whether colours can be read off them.

        Without the coarse term colours drift: an error of a tenth over a whole garment weighs no more in L1 than thin
        lines do. Without the probe the second axis of hue is found thousands of steps after the first, and meanwhile
        purple is blue.
        """
        crops, noise = batch
        latents = self.module.encoder(crops)
        error = self.module.decoder(latents + self._noise * noise) - crops
        coarse = functional.avg_pool2d(error, CELL)
        read = self.module.probe(latents) - functional.avg_pool2d(crops, CELL)
        parts = {
            "l1": error.abs().mean(),
            "edges": _slopes(error),
            "hue": read.abs().mean(),
            "coarse": 2 * coarse.abs().mean() + 4 * coarse.square().mean(),
            "bound": 0.05 * (latents.abs() - 2.5).clamp(min=0).mean() + 1e-4 * latents.square().mean(),
        }
        total = parts["l1"] + 0.5 * parts["edges"] + parts["coarse"] + 0.5 * error.square().mean()
        total = total + parts["bound"] + 0.5 * parts["hue"]
        psnr = -10 * torch.log10(error.detach().square().mean())
        return Terms(total, {"psnr": psnr, "spread": latents.detach().std(), **parts})

    def preview(self, step: int, progress: Progress) -> None:
        """Pictures above, what comes back below."""
        decoded = [self.module.decoder(self.module.encoder(picture[None]))[0] for picture in self._shown]
        cells = [Image.fromarray(bytes_of(picture.permute(1, 2, 0))) for picture in (*self._shown, *decoded)]
        save_sheet(self._folder, of_step(step), grid(cells, columns=len(decoded)))


def _slopes(error: Tensor) -> Tensor:
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _conv(inside: int, outside: int, bias: bool = True, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, stride, 1, bias=bias and stride == 1)
