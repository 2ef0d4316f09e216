# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of `anydressing train-base` says of itself: which network of the paper-doll world it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ....anydressing_core.latents import CELL, MOST_SIDE
from ...defaults import MOST_BAD
from ...run.config import Base, Data, RunConfig, SampledPreview
from ...run.settings import REQUIRED, Fraction, Retired, setting

Width = Annotated[int, Field(ge=1, le=4096)]


class DollData(Data):
    """What is trained on."""

    cache: Path | None = setting(
        None,
        "Where the U-Net's latents, masks and embeddings are kept, for all runs on this data; left out, beside the manifest.",
        unit="a folder",
    )
    most_bad_items: Fraction = setting(
        MOST_BAD,
        "When the pictures of more people than this cannot be used, no U-Net is trained.",
        unit="share of people",
    )


class DollBase(Base):
    """The base model that a U-Net goes on from, and through whose autoencoder a parser looks; the others need none."""


class DollPreview(SampledPreview):
    """What a U-Net paints so far, of fixed captions; an autoencoder shows pictures before and after it, and the rest nothing."""


class PaperDollConfig(RunConfig):
    """A run of `anydressing train-base`."""

    command: ClassVar[str] = "train-base"
    presets: ClassVar[Path | None] = Path(__file__).parents[1] / "presets"
    retired: ClassVar[Mapping[str, Retired]] = {
        **RunConfig.retired,
        "data.licence": Retired(None, "Files of the paper-doll world are CC0-1.0."),
        "memory.checkpointing": Retired(None, "These networks are small and have always kept their activations."),
        "preview.people": Retired(None, "A U-Net's previews are of fixed captions."),
        "preview.strength": Retired(None, "Nobody is dressed in these previews."),
    }
    resumable: ClassVar[frozenset[str]] = RunConfig.resumable | {"base.checkpoint", "data.cache"}

    data: DollData  # pyright: ignore[reportIncompatibleVariableOverride] (frozen)
    preview: DollPreview = DollPreview()  # pyright: ignore[reportIncompatibleVariableOverride] (frozen)
    network: Literal["autoencoder", "unet", "recogniser", "parser"] = setting(
        REQUIRED, "Which network is trained.", unit="network", example="recogniser"
    )
    crop: int = setting(
        96, "Side of the autoencoder's training squares.", unit="pixels", multiple_of=CELL, ge=CELL, le=MOST_SIDE
    )
    latent_noise: float = setting(
        0.08, "How far the autoencoder's latents are shaken before they are decoded.", unit="standard deviation", ge=0
    )
    widths: tuple[Width, ...] = setting(
        (64, 128, 128),
        "How wide the stages of a recogniser or parser are, or the levels of the U-Net that an autoencoder's export begins.",
        unit="channels",
        max_length=16,
    )
    attention: tuple[bool, ...] = setting(
        (True, True, True),
        "Which levels of the U-Net that an autoencoder's export begins have attention.",
        unit="yes or no, one for each width",
        max_length=16,
    )
    kernel: Literal[3, 5, 7] = setting(3, "How large a recogniser's first convolution is.", unit="pixels")
    base: DollBase | None = None
    flat_lays: Fraction = setting(
        0.25, "How often the U-Net sees a garment alone instead of a person.", unit="share of samples"
    )
    no_text: Fraction = setting(0.1, "How often the U-Net goes without a caption.", unit="share of samples")
    snr_gamma: float = setting(
        5.0, "Bounds the weight of the U-Net's timesteps with little noise (arXiv 2303.09556).", unit="ratio", gt=0
    )
    noise_offset: float = setting(
        0.0,
        "How far the mean of the U-Net's noise strays in each channel. Latents have another mean than noise, and some of "
        "it is left at the last timestep; a U-Net that never saw it stray paints people dark.",
        unit="standard deviation",
        ge=0,
    )
    title: str = setting("The paper-doll world", "What the file is called.", unit="a line of text")

    @model_validator(mode="after")
    def _has_base(self) -> PaperDollConfig:
        if self.network in ("unet", "parser") and self.base is None:
            raise ValueError(f"a {self.network} is trained with a base model; name one in [base] checkpoint")
        if self.network == "autoencoder" and len(self.attention) != len(self.widths):
            raise ValueError("attention says yes or no to every level of widths")
        return self
