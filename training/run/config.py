# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a run, whatever it trains: TOML read into frozen models.

An unknown key is an error that names the nearest known one. The resolved configuration is what a run saves and hashes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import tomli_w
import tomllib
from pydantic import ValidationError

from ...anydressing_core.defaults import GUIDANCE, RESOLUTION, STEPS
from ...anydressing_core.refusals import refusal
from ..defaults import WantedPrecision
from ..places import looked_at
from ..text_files import read_text
from .mistakes import Override, in_words, not_toml, read_override
from .settings import MOST_STEPS, REQUIRED, AtOnce, Decay, Natural, Positive, Retired, Section, Seed, Side, setting

logger = logging.getLogger(__name__)


class Base(Section):
    """The base model that a run begins with."""

    checkpoint: Path = setting(
        REQUIRED,
        "Stable Diffusion 1.5, or a model of its layout.",
        unit="a .safetensors file or a diffusers folder",
        example="sd15.safetensors",
    )
    tokenizer: Path | None = setting(
        None,
        "Where CLIP's vocab.json and merges.txt lie; left out, the usual places are searched, ComfyUI's among them.",
        unit="a folder",
    )


class Data(Section):
    """What is trained on."""

    manifest: Path = setting(
        REQUIRED, "The people, their garments and masks.", unit="a manifest.jsonl", example="data/manifest.jsonl"
    )
    resolution: tuple[Side, Side] = setting(RESOLUTION, "Height and width of all pictures.", unit="pixels")
    batch: AtOnce = setting(4, "Samples that one device computes at once.", unit="samples")
    accumulate: AtOnce = setting(1, "How many batches make one step.", unit="batches")
    workers: int = setting(
        2, "Processes that read samples beside the training; 0 reads in between.", unit="processes", ge=0, le=256
    )


class Optimizer(Section):
    """AdamW. The paper trains at a fixed rate of 5e-5; weight decay, clipping and the rest are ours."""

    learning_rate: float = setting(5e-5, "How far weights move in a step.", unit="learning rate", gt=0)
    weight_decay: float = setting(
        0.01, "How much weights shrink in a step, times the learning rate.", unit="share of a weight", ge=0
    )
    betas: tuple[Decay, Decay] = setting(
        (0.9, 0.999),
        "How much of the gradients' running mean, and of the running mean of their squares, each step keeps.",
        unit="share",
    )
    clip: float = setting(1.0, "Longer gradients are shortened to this; 0 shortens none.", unit="l2 norm", ge=0)
    warmup: Natural = setting(
        0, "Over how many steps the learning rate rises from 0; 0 starts with all of it.", unit="steps"
    )
    schedule: Literal["constant", "cosine"] = setting(
        "constant",
        "What the learning rate does after the warm-up: `constant` stays, `cosine` falls to 0 at the last step.",
        unit="schedule",
    )
    average: float = setting(
        0.0,
        "How much of the weights' running average (EMA) each step keeps. Previews and exports use the average; 0 keeps none.",
        unit="share",
        ge=0,
        lt=1,
    )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, 0 <= step < steps."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        fall = 0.5 + 0.5 * math.cos(math.pi * step / steps) if self.schedule == "cosine" else 1.0
        return self.learning_rate * rise * fall


class Memory(Section):
    """What fits the run onto a smaller card, at the cost of time."""

    precision: WantedPrecision = setting(
        "auto",
        "In what networks compute, in previews, too, and frozen weights are kept; trained weights are always kept in "
        "fp32. `auto` is bf16 where the device has it, else fp32.",
        unit="number format",
    )


class Preview(Section):
    """Pictures of what the run has learned so far."""

    every: Natural = setting(500, "Training steps between two previews; 0 turns them off.", unit="steps")


class SampledPreview(Preview):
    """Pictures that are sampled while training."""

    seed: Seed = setting(0, "Decides the noise that the pictures begin with.", unit="seed")
    steps: int = setting(STEPS, "DDIM steps of a picture.", unit="steps", gt=0, lt=1000)
    guidance: float = setting(
        GUIDANCE, "How much more the caption counts than no caption: omega of Eq. 16.", unit="factor", ge=1
    )


class Checkpoints(Section):
    """What is kept of a run."""

    every: Positive = setting(
        1000,
        "Steps between two checkpoints; one that falls on a skipped step waits for the next good one.",
        unit="steps",
    )
    keep_last: int = setting(3, "How many of the newest checkpoints are kept.", unit="checkpoints", ge=2, le=MOST_STEPS)
    keep_every: Natural = setting(
        10_000, "Checkpoints of every so many steps are kept for good; 0 keeps only the newest.", unit="steps"
    )


class Policies(Section):
    """When a run gives up."""

    bad_steps: Positive = setting(
        10,
        "The run ends after so many steps in a row whose loss or gradient was not a finite number; each of them is skipped.",
        unit="steps",
    )


class RunConfig(Section):
    """What every run says of itself, whatever it trains."""

    command: ClassVar[str] = "train"
    """The verb that reads this kind."""

    presets: ClassVar[Path | None] = None
    """Where the presets of this kind of run lie, if it has any."""

    retired: ClassVar[Mapping[str, Retired]] = {
        "memory.two_phase_texture": Retired(
            (True, False), "Texture losses always go back in two phases; one gave the same gradient for more memory."
        )
    }
    """Settings of old versions, by their dotted names."""

    resumable: ClassVar[frozenset[str]] = frozenset(
        {
            *("steps", "folder", "preview", "checkpoints", "policies", "tensorboard"),
            *("data.batch", "data.accumulate", "data.workers", "data.manifest"),
        }
    )
    """What may change when a run goes on: how long it is trained, and what alters a weight by no more than rounding.

    Files may lie elsewhere: the data's digest knows them by their content. The loop refuses another number of samples a
    step, which batch and accumulate make together.
    """

    folder: Path = setting(REQUIRED, "Where everything of the run is written.", unit="a folder", example="runs/mine")
    steps: Positive = setting(REQUIRED, "How many steps are trained.", unit="steps", example=1000)
    seed: Seed = setting(0, "Decides all chance: noise, timesteps, dropout and the order of samples.", unit="seed")
    data: Data
    optimizer: Optimizer = Optimizer()
    memory: Memory = Memory()
    preview: Preview = Preview()
    checkpoints: Checkpoints = Checkpoints()
    policies: Policies = Policies()
    tensorboard: bool = setting(False, "Whether readings are written as curves for TensorBoard, too.", unit="yes or no")

    @property
    def digest(self) -> str:
        """The sha256 of the resolved configuration, as the file records it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        """The resolved configuration, every setting written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def changes(self, other: RunConfig) -> list[str]:
        """Which settings of `other` would make it another run: all that differ but `resumable`, as dotted names."""
        ours, theirs = (_flat(config.model_dump(mode="json")) for config in (self, other))
        free = self.resumable - ({"steps"} if self.optimizer.schedule == "cosine" else set())
        names = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        return [name for name in names if name not in free and name.partition(".")[0] not in free]


Config = TypeVar("Config", bound=RunConfig)


def load_config(path: Path, kind: type[Config], overrides: Iterable[str | Override] = ()) -> Config:
    """Read a configuration file.

    kind: what sort of run it describes. overrides: what the command line sets, a text as `read_override` takes it.
    Raises ValueError in the user's words.
    """
    if not path.is_file():
        remedy = f"name one; its first line may choose a preset: {', '.join(preset_names(kind))}."
        found = f"{looked_at(path)} " if not path.exists() else ""
        own = f"A run is described by a TOML file of your own; `anydressing config {kind.command}` prints one to begin with."
        why = found + own
        raise refusal(f"config: {str(path)!r}", "is not a file", why, remedy)
    return parse_config(read_text(path, f"config: {str(path)!r}"), str(path), kind, overrides)


def parse_config(text: str, source: str, kind: type[Config], overrides: Iterable[str | Override] = ()) -> Config:
    """Read a configuration from TOML. `preset = "name"` as its first key starts from a shipped preset."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise not_toml(error, text, source) from error
    preset = settings.pop("preset", None)
    if preset is not None:
        settings = _merged(read_preset(preset, kind), settings)
    given = [read_override(one) if isinstance(one, str) else one for one in overrides]
    for one in given:
        settings = _merged(settings, _nested(one))
    settings = _without_retired(settings, source, kind)
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ValueError(in_words(error, source, kind, given)) from error


def preset_names(kind: type[RunConfig]) -> list[str]:
    """The presets that are shipped for a kind of run, by name."""
    return [] if kind.presets is None else sorted(entry.stem for entry in kind.presets.glob("*.toml"))


def read_preset(name: Any, kind: type[RunConfig]) -> dict[str, Any]:
    """A preset's settings as they are written. Raises ValueError when there is none of that name."""
    if name not in preset_names(kind) or kind.presets is None:
        why = f"The presets are: {', '.join(preset_names(kind))}."
        raise refusal("preset:", f"there is none named {name!r}", why, "choose one of these.")
    return tomllib.loads((kind.presets / f"{name}.toml").read_text(encoding="utf-8"))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _nested(override: Override) -> dict[str, Any]:
    nested: Any = override.value
    for key in reversed(override.name.split(".")):
        nested = {key.strip(): nested}
    return nested


def _without_retired(settings: dict[str, Any], source: str, kind: type[RunConfig]) -> dict[str, Any]:
    """The settings that still are. Raises ValueError for the value of one that nothing can do any more."""
    for name, retired in kind.retired.items():
        table, _, key = name.partition(".")
        section = settings.get(table)
        if not isinstance(section, Mapping) or key not in section:
            continue
        if retired.kept is not None and section[key] not in retired.kept:
            raise refusal(f"{name}:", f"{section[key]!r} is not possible any more", retired.why, f"correct {source}.")
        logger.warning("%s, in %s, is no setting any more. %s", name, source, retired.why)
        settings = {**settings, table: {other: value for other, value in section.items() if other != key}}
    return settings
