# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of `anydressing train`; the defaults are the paper's, or ours where it is silent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..run.config import Base, RunConfig
from ..run.settings import Fraction, Positive, Retired, Section, setting

PRESETS = Path(__file__).parents[1] / "presets"
UNTITLED, UNKNOWN = "untitled", "unknown"  # a file that is started from may know better

Slot = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class AdapterSettings(Section):
    """What is trained, and what the file will say of itself."""

    slots: tuple[Slot, ...] = setting(
        ("upper", "lower"), "The garment kinds; each has a LoRA of its own.", unit="words of a-z, 0-9 and _"
    )
    rank: int = setting(64, "Of each LoRA (D5).", unit="rank", ge=1, le=4096)
    alpha: Annotated[float, Field(gt=0)] | None = setting(
        None, "A LoRA's update is alpha / rank times what is trained; left out, alpha is the rank.", unit="factor"
    )
    feature_tap: Literal["attn_input", "attn_output"] = setting(
        "attn_input",
        "Which tensor of a site is a garment's features: its input, or what attention makes of it (D1).",
        unit="a word",
    )
    null_token: bool = setting(True, "Whether a pixel may attend to no garment (D2).", unit="yes or no")
    garment_tokens: Literal["all", "foreground"] = setting(
        "all", "Whether the whole garment picture takes part, or the cells alone that show the garment.", unit="a word"
    )
    init: Path | None = setting(
        None,
        "A finished file to start from. Kinds that it lacks are then trained alone, and the rest of it stays (Sec. 8).",
        unit="an AnyDressing file",
    )
    title: str = setting(UNTITLED, "What ComfyUI shows as the file's title.", unit="a line of text")
    author: str = setting(UNKNOWN, "Who trained it.", unit="a line of text")

    @property
    def chosen_alpha(self) -> float:
        """alpha, or the rank where it is left out."""
        return float(self.rank) if self.alpha is None else self.alpha


class Losses(Section):
    """Eq. 15. How the paper's unsquared norms are read is decision D6: `mse` the mean of squares, `l2` the norm itself."""

    strength: float = setting(1.0, "lambda of Eq. 6 in training (D8).", unit="factor", ge=0)
    localisation: float = setting(0.01, "lambda1, the weight of L_loc (Eq. 9).", unit="weight", ge=0)
    texture: float = setting(0.001, "lambda2, the weight of L_texture (Eq. 11); 0 turns it off.", unit="weight", ge=0)
    eta: int = setting(350, "The last timestep at which L_texture acts.", unit="timestep", ge=0, le=999)
    localisation_reduction: Literal["mse", "l2"] = setting("l2", "How the norm in L_loc is read.", unit="a word")
    high_frequency_reduction: Literal["mse", "l2"] = setting(
        "l2", "How the norm in L_hf (Eq. 13) is read.", unit="a word"
    )
    texture_samples: int = setting(
        0, "At most so many people of a batch are decoded, the rest is made up for; 0 decodes all.", unit="people", ge=0
    )
    feature_network: Path | None = setting(
        None,
        "The network by which DISTS (Eq. 12) compares fabrics: VGG16 for photographs. Needed unless texture is 0.",
        unit="a .safetensors file",
    )


class Dropout(Section):
    """What a sample goes without (D9). All garments are never dropped: that branch is the frozen base model."""

    text: Fraction = setting(0.1, "How often a caption is left out.", unit="share of samples")
    one_garment: Fraction = setting(0.15, "How often one of several garments is left out.", unit="share of samples")


class TrainConfig(RunConfig):
    """A run of `anydressing train`."""

    presets: ClassVar[Path | None] = PRESETS
    retired: ClassVar[Mapping[str, Retired]] = {
        **RunConfig.retired,
        "losses.perceptual_region": Retired(("frame",), "DISTS always sees the whole frame, black outside a garment."),
        "adapter.lora_targets": Retired(
            ("q,k,v",), "LoRAs update q, k and v. A file that updates the output, too, can be used and trained on."
        ),
    }
    resumable: ClassVar[frozenset[str]] = RunConfig.resumable | {"base.checkpoint", "losses.feature_network"}

    steps: Positive = setting(100_000, "How long it is trained.", unit="steps")
    base: Base
    adapter: AdapterSettings = AdapterSettings()
    losses: Losses = Losses()
    dropout: Dropout = Dropout()
