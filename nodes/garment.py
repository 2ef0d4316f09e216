# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that travel between our nodes: a loaded AnyDressing file, and one encoded garment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..anydressing_core.checkpoint import Checkpoint
from ..anydressing_core.digests import ordered_digest
from ..anydressing_core.sites import AttentionSite, UNetShape

TRAINING_FREE = "training-free (no file)"


@dataclass(frozen=True, repr=False)
class AnyDressing:
    """A loaded AnyDressing file. checkpoint is None in reference mode, which takes no file."""

    name: str
    checkpoint: Checkpoint | None

    @property
    def identity(self) -> str:
        """What tells two files apart, whatever they are called."""
        return TRAINING_FREE if self.checkpoint is None else self.checkpoint.identity

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width in pixels at which garments are encoded; the paper's 768 x 576 without a file."""
        return (768, 576) if self.checkpoint is None else self.checkpoint.info.resolution

    def __repr__(self) -> str:
        return f"AnyDressing({self.name!r})"


Tokens = tuple[Tensor, ...]
"""What GarmentsNet leaves of a garment: F, (1, L_g, C), per site in the U-Net's order."""


class Level(NamedTuple):
    """A garment as reference mode meets it at one level of noise.

    sigma: noise over signal. canvas: h and w of the latent that was read. sites: those at which it joins.
    tokens: (K_g, V_g), (1, L_g, C) each, per site.
    """

    sigma: float
    canvas: tuple[int, int]
    sites: tuple[AttentionSite, ...]
    tokens: tuple[tuple[Tensor, Tensor], ...]


class Origin(NamedTuple):
    """Where an encoded garment comes from, for the wardrobe.

    picture: what was read, (H, W, 3) in 8 bits, or (H, W, 4) with the mask as alpha. called: its words. unet_digest: of the
    checkpoint. loras: whether LoRAs were in it. foreground: whether only the garment's own tokens were kept.
    """

    picture: Tensor
    called: str
    unet_digest: str
    loras: bool
    foreground: bool


class Garment(NamedTuple):
    """One encoded garment.

    A tuple holding plain tensors, so that ComfyUI's cache sees how much memory it keeps.
    slot: which LoRA encoded it. content: digest of what came out of it. tokens: F, none without a file. levels: as
    reference mode reads it, none where that is off. by_model: whether a garment model of its own read it. words: what it
    is called, the mean embedding (C_text,), or None when nobody can say where it belongs. origin: what it was read from.
    weight, start, end, region: what Garment Settings chose; start and end are fractions of the sampling, region is (H, W)
    over the picture that is made.
    """

    anydressing: AnyDressing
    unet: UNetShape
    slot: str
    content: str
    tokens: Tokens
    levels: tuple[Level, ...] = ()
    by_model: bool = False
    words: Tensor | None = None
    origin: Origin | None = None
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    region: Tensor | None = None

    @property
    def order(self) -> tuple[str, str, float, float, float, str]:
        """Garments are sorted by this before they meet, so that the order of the sockets changes no bit (D11)."""
        region = "" if self.region is None else ordered_digest(self.region)
        return (self.slot, self.content, self.weight, self.start, self.end, region)

    @property
    def effective(self) -> bool:
        """Whether the garment can show at all."""
        return self.weight != 0 and self.start < self.end

    def __repr__(self) -> str:
        return f"Garment({self.slot!r}, {self.content[:8]}, weight={self.weight:g})"
