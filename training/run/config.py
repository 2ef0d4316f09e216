# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a run, whatever it trains: TOML read into frozen models.

An unknown key is an error that names the nearest known one. The resolved configuration is what a run saves and hashes.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import tomli_w
import tomllib
from pydantic import BaseModel, ValidationError, model_validator

from ...anydressing_core.defaults import GUIDANCE, RESOLUTION, STEPS, STRENGTH
from ...anydressing_core.latents import is_whole
from ...anydressing_core.refusals import refusal
from ..defaults import MOST_BAD, WantedPrecision
from .settings import REQUIRED, Fraction, Positive, Retired, Section, setting

logger = logging.getLogger(__name__)


class Base(Section):
    """The frozen base model."""

    checkpoint: Path = setting(
        REQUIRED,
        "The Stable Diffusion 1.5 that is dressed: a single file or a diffusers folder.",
        unit="a .safetensors file or a folder",
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
    resolution: tuple[Positive, Positive] = setting(
        RESOLUTION, "Height and width of people and garments alike (D10); multiples of 8.", unit="pixels"
    )
    batch: Positive = setting(4, "Samples that one device computes at once.", unit="samples")
    accumulate: Positive = setting(1, "How many such batches make a step.", unit="batches")
    workers: int = setting(
        2, "Processes that read samples beside the training; 0 reads in between.", unit="processes", ge=0
    )
    cache: Path | None = setting(
        None, "Where latents, masks and embeddings are kept; left out, beside the manifest.", unit="a folder"
    )
    most_bad_items: Fraction = setting(
        MOST_BAD,
        "When the pictures of more people than this cannot be used, nothing is trained.",
        unit="share of people",
    )
    licence: str = setting("not stated", "The licence of the data, which the file will carry.", unit="a line of text")

    @model_validator(mode="after")
    def _whole_cells(self) -> Data:
        if not is_whole(self.resolution):
            raise ValueError("resolution must be multiples of 8, the pixels of one latent cell")
        return self


class Optimizer(Section):
    """AdamW at a fixed rate, as the paper; weight decay and clipping are ours."""

    learning_rate: float = setting(5e-5, "How far a step goes.", unit="per step", gt=0)
    weight_decay: float = setting(
        0.01, "How much weights shrink in a step, times the learning rate.", unit="share", ge=0
    )
    betas: tuple[Fraction, Fraction] = setting(
        (0.9, 0.999), "How much of the gradient's running mean and mean square a step keeps.", unit="share"
    )
    clip: float = setting(1.0, "The longest gradient; 0 lets any pass.", unit="l2 norm", ge=0)
    warmup: int = setting(0, "Over how many steps the rate rises.", unit="steps", ge=0)
    schedule: Literal["constant", "cosine"] = setting(
        "constant", "What the rate does then; `cosine` lets it fall to zero at the last step.", unit="a word"
    )
    average: float = setting(
        0.0,
        "How much of the weights' running average (EMA) each step keeps; what is exported then. 0 keeps none.",
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
        "In what frozen weights are kept and computed, in previews, too; trained ones are always fp32. "
        "`auto` is bf16 where the device has it, else fp32.",
        unit="a word",
    )
    checkpointing: bool = setting(
        False, "Whether activations are computed again in the backward pass instead of kept.", unit="yes or no"
    )


class Preview(Section):
    """Sample pictures while training, as `anydressing sample` makes them."""

    every: int = setting(500, "Steps between two previews; 0 turns them off.", unit="steps", ge=0)
    people: Positive = setting(4, "How many people sit for them, held-out ones where there are some.", unit="people")
    seed: int = setting(0, "Of their noise.", unit="a number")
    steps: int = setting(STEPS, "Steps of DDIM.", unit="steps", gt=0, lt=1000)
    guidance: float = setting(GUIDANCE, "omega of Eq. 16.", unit="factor", ge=1)
    strength: float = setting(STRENGTH, "lambda of Eq. 6 while sampling.", unit="factor", ge=0)


class Checkpoints(Section):
    """What is kept of a run."""

    every: Positive = setting(1000, "Steps between two checkpoints.", unit="steps")
    keep_last: int = setting(3, "How many of the newest are kept.", unit="checkpoints", ge=2)
    keep_every: int = setting(10_000, "One of so many steps is kept for good; 0 keeps none.", unit="steps", ge=0)


class Policies(Section):
    """When a run gives up."""

    bad_steps: Positive = setting(
        10, "After so many steps in a row whose loss or gradient was not a number.", unit="steps"
    )


class RunConfig(Section):
    """What every run says of itself, whatever it trains."""

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
            *("data.batch", "data.accumulate", "data.workers", "data.cache", "data.manifest"),
            "memory.checkpointing",
        }
    )
    """What may change when a run goes on: how long it is trained, and what alters a weight by no more than rounding.

    Files may lie elsewhere: the data's digest knows them by their content. The loop refuses another number of samples a
    step, which batch and accumulate make together.
    """

    folder: Path = setting(REQUIRED, "Where everything of the run is written.", unit="a folder", example="runs/mine")
    steps: Positive = setting(REQUIRED, "How long it is trained.", unit="steps", example=1000)
    seed: int = setting(0, "Decides noise, timesteps, dropout and order.", unit="a number")
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


def load_config(path: Path, kind: type[Config], overrides: Iterable[str] = ()) -> Config:
    """Read a configuration file.

    kind: what sort of run it describes. overrides: `section.key=value`, the value as TOML or, failing that, as text.
    Raises ValueError in the user's words.
    """
    if not path.is_file():
        remedy = f'name one; it may start with preset = "24gb". The presets: {", ".join(preset_names(kind))}.'
        why = "A run is described by a TOML file of your own; `anydressing config` prints one to begin with."
        raise refusal(f"config: {str(path)!r}", "is not a file", why, remedy)
    return parse_config(path.read_text(encoding="utf-8"), str(path), kind, overrides)


def parse_config(text: str, source: str, kind: type[Config], overrides: Iterable[str] = ()) -> Config:
    """Read a configuration from TOML. `preset = "name"` as its first key starts from a shipped preset."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise refusal(f"config: {source}", "is not valid TOML", str(error), "correct that line.") from error
    preset = settings.pop("preset", None)
    if preset is not None:
        settings = _merged(read_preset(preset, kind), settings)
    for override in overrides:
        settings = _merged(settings, _parse_override(override))
    settings = _without_retired(settings, source, kind)
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ValueError(_in_words(error, source, kind)) from error


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


def _parse_override(text: str) -> dict[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        why = "A setting is named with its table, as in data.batch=2."
        raise refusal(f"--set: {text!r}", "is not of the form key=value", why, "write --set data.batch=2.")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for key in reversed(name.strip().split(".")):
        parsed = {key: parsed}
    return parsed


def _without_retired(settings: dict[str, Any], source: str, kind: type[RunConfig]) -> dict[str, Any]:
    """The settings that still are. Raises ValueError for the value of one that nothing can do any more."""
    for name, retired in kind.retired.items():
        table, _, key = name.partition(".")
        section = settings.get(table)
        if not isinstance(section, Mapping) or key not in section:
            continue
        if section[key] not in retired.kept:
            raise refusal(f"{name}:", f"{section[key]!r} is not possible any more", retired.why, f"correct {source}.")
        logger.warning("%s, in %s, is no setting any more. %s", name, source, retired.why)
        settings = {**settings, table: {other: value for other, value in section.items() if other != key}}
    return settings


def _in_words(error: ValidationError, source: str, kind: type[RunConfig]) -> str:
    """pydantic's findings as three lines each: which setting, why, what to do."""
    lines: list[str] = []
    for finding in error.errors():
        name = ".".join(str(part) for part in finding["loc"]) or "config"
        if finding["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(name, _all_keys(kind), n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "remove it."
            found = refusal(f"{name}:", f"{source} has an unknown setting", "Nothing reads it.", hint)
        elif finding["type"] == "missing":
            found = refusal(f"{name}:", f"{source} does not say it", "There is no default.", f"add {name} = ...")
        else:
            why = f"{finding['msg']}."
            found = refusal(f"{name}:", f"got {finding['input']!r}", why, f"correct it in {source}.")
        lines.append(str(found))
    return "\n\n".join(lines)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
