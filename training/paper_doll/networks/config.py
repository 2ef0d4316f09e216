# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of `anydressing train-base` says of itself: which network of the paper-doll world it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ...run.config import Base, Fraction, Positive, RunConfig


class PaperDollConfig(RunConfig):
    """A run of `anydressing train-base`.

    network: what is trained. crop, latent_noise: the autoencoder's training squares, in pixels, and how far its latents
    are shaken before they are decoded. widths, kernel: of a
    recogniser's or parser's stages and a recogniser's first convolution. base: the file
    whose U-Net is trained, or through whose autoencoder a parser sees; the export of an autoencoder's run begins one, with
    U-Net levels of `widths`, of which those with `attention` attend. flat_lays: the
    share of the U-Net's samples that show a garment alone. snr_gamma: bounds the weight of timesteps with little noise.
    noise_offset: how far, as a standard deviation, the noise's mean strays in each channel. Latents have another mean than
    noise, and some of it is left at the last timestep; a U-Net that never saw it stray paints people dark who are
    sampled from noise alone.
    """

    presets: ClassVar[Path] = Path(__file__).parents[1] / "presets"

    network: Literal["autoencoder", "unet", "recogniser", "parser"]
    crop: Annotated[Positive, Field(multiple_of=8)] = 96
    latent_noise: Annotated[float, Field(ge=0)] = 0.08
    widths: tuple[Positive, ...] = (64, 128, 128)
    attention: tuple[bool, ...] = (True, True, True)
    kernel: Literal[3, 5, 7] = 3
    base: Base | None = None
    flat_lays: Fraction = 0.25
    no_text: Fraction = 0.1
    snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    noise_offset: Annotated[float, Field(ge=0)] = 0.0
    title: str = "The paper-doll world"

    @model_validator(mode="after")
    def _has_base(self) -> PaperDollConfig:
        if self.network in ("unet", "parser") and self.base is None:
            raise ValueError(f"a {self.network} is trained with a base model; name one in [base] checkpoint")
        if self.network == "autoencoder" and len(self.attention) != len(self.widths):
            raise ValueError("attention says yes or no to every level of widths")
        return self
