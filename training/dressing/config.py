# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of `anydressing train`; the defaults are the paper's, or ours where it is silent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ...anydressing_core.defaults import ETA, LAMBDA1, LAMBDA2, STRENGTH
from ..data.manifest import Slot
from ..defaults import MOST_BAD
from ..run.config import Base, Data, Memory, RunConfig, SampledPreview
from ..run.settings import MOST_AT_ONCE, AtOnce, Fraction, Line, Positive, Retired, Section, setting

PRESETS = Path(__file__).parents[1] / "presets"
UNTITLED, UNKNOWN = "untitled", "unknown"  # a file that is started from may know better


class DressingData(Data):
    """What is trained on, and what the file will say of it."""

    root: Path | None = setting(
        None,
        "Where pictures are looked for that do not lie beside the manifest; nothing is written there.",
        unit="a folder",
    )
    cache: Path | None = setting(
        None,
        "Where latents, masks and embeddings are kept, for all runs on this data; left out, beside the manifest.",
        unit="a folder",
    )
    most_bad_items: Fraction = setting(
        MOST_BAD,
        "When the pictures of more people than this cannot be used, nothing is trained.",
        unit="share of people",
    )
    crop_jitter: Fraction = setting(
        0.0,
        "How much garments that are cut out of their person are turned, sheared and hidden in part; 0 leaves them alone.",
        unit="share of the most",
    )
    licence: Line = setting("not stated", "The licence of the data, which the file will carry.", unit="a line of text")


class DressingMemory(Memory):
    """What fits the run onto a smaller card, at the cost of time."""

    checkpointing: bool = setting(
        False, "Whether activations are computed again in the backward pass instead of kept.", unit="yes or no"
    )


class DressingPreview(SampledPreview):
    """Pictures that are sampled while training, as `anydressing sample` makes them."""

    people: AtOnce = setting(4, "How many people are shown, held-out ones where the data has some.", unit="people")
    strength: float = setting(STRENGTH, "How strongly garments act: lambda of Eq. 6.", unit="factor", ge=0)


class AdapterSettings(Section):
    """What is trained, and what the file will say of itself."""

    slots: tuple[Annotated[Slot, Field(max_length=64)], ...] = setting(
        ("upper", "lower"),
        "The garment kinds; each has a LoRA of its own.",
        unit="garment kinds",
        min_length=1,
        max_length=32,
    )
    rank: int = setting(64, "How many directions of change each LoRA has.", unit="rank", ge=1, le=4096)
    alpha: Annotated[float, Field(gt=0)] | None = setting(
        None, "A LoRA's update is alpha / rank times what is trained; left out, alpha is the rank.", unit="factor"
    )
    gfe: bool = setting(
        True,
        "Whether each garment has a pass and a LoRA of its own (Sec. 4.1). Without, a run is Base of Table 3, for comparison alone.",
        unit="yes or no",
    )
    feature_tap: Literal["attn_input", "attn_output"] = setting(
        "attn_input",
        "Which tensor of an attention layer is a garment's features: its input, or what attention makes of it.",
        unit="tensor",
    )
    null_token: bool = setting(
        True, "Whether a pixel may attend to no garment, by a key of its own with a zero value.", unit="yes or no"
    )
    garment_tokens: Literal["all", "foreground", "cropped"] = setting(
        "cropped",
        "Whether the whole garment picture takes part, or only those of its cells that show the garment: all of them where it is "
        "not told from its ground. What is left out costs nothing; cropped: nor does reading what lies around the garment.",
        unit="cells",
    )
    init: Path | None = setting(
        None,
        "A finished file to start from. Kinds that it lacks are then trained alone, and the rest of it stays (Sec. 8).",
        unit="an AnyDressing file",
    )
    title: Line = setting(UNTITLED, "What ComfyUI shows as the file's title.", unit="a line of text")
    author: Line = setting(UNKNOWN, "Who trained it.", unit="a line of text")

    @field_validator("slots")
    @classmethod
    def _each_once(cls, slots: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(slots)) < len(slots):
            raise ValueError("it names a garment kind twice")
        return slots

    @property
    def chosen_alpha(self) -> float:
        """alpha, or the rank where it is left out."""
        return float(self.rank) if self.alpha is None else self.alpha


class Losses(Section):
    """L = L_LDM + lambda1 L_loc + lambda2 L_texture (Eq. 15).

    The paper prints the norms of L_loc and L_hf unsquared. `mse` reads them as the mean of squares, `l2` as the norm itself.
    """

    strength: float = setting(1.0, "How strongly garments act in training: lambda of Eq. 6.", unit="factor", ge=0)
    localisation: float = setting(
        LAMBDA1,
        "The weight of L_loc (Eq. 9), which teaches attention where each garment is: lambda1.",
        unit="weight",
        ge=0,
    )
    texture: float = setting(
        LAMBDA2,
        "The weight of L_texture (Eq. 11), which compares fabrics in decoded pictures: lambda2. 0 turns it off.",
        unit="weight",
        ge=0,
    )
    eta: int = setting(
        ETA,
        "The last timestep at which L_texture acts; later ones are too noisy.",
        unit="timestep",
        ge=0,
        le=999,
    )
    localisation_reduction: Literal["mse", "l2"] = setting("l2", "How the norm in L_loc is read.", unit="norm")
    high_frequency_reduction: Literal["mse", "l2"] = setting(
        "l2", "How the norm in L_hf (Eq. 13) is read.", unit="norm"
    )
    texture_samples: int = setting(
        0,
        "L_texture decodes at most so many people of a batch, drawn by chance, and weighs them for the rest; 0 decodes all.",
        unit="people",
        ge=0,
        le=MOST_AT_ONCE,
    )
    feature_network: Path | None = setting(
        None,
        "The network by which DISTS (Eq. 12) compares fabrics: VGG16 for photographs. Needed unless texture is 0.",
        unit="a .safetensors file",
    )


class Dropout(Section):
    """What a sample goes without. All garments at once are never dropped: that branch is the base model as it is."""

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
    resumable: ClassVar[frozenset[str]] = RunConfig.resumable | {
        *("base.checkpoint", "losses.feature_network", "data.cache", "data.root", "memory.checkpointing")
    }

    steps: Positive = setting(100_000, "How many steps are trained.", unit="steps")
    data: DressingData  # pyright: ignore[reportIncompatibleVariableOverride] (frozen)
    memory: DressingMemory = DressingMemory()  # pyright: ignore[reportIncompatibleVariableOverride] (frozen)
    preview: DressingPreview = DressingPreview()  # pyright: ignore[reportIncompatibleVariableOverride] (frozen)
    base: Base
    adapter: AdapterSettings = AdapterSettings()
    losses: Losses = Losses()
    dropout: Dropout = Dropout()
