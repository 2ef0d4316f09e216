# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a training run: TOML read into frozen models; the defaults are the paper's, or ours where it is silent.

An unknown key is an error that names the nearest known one. The resolved configuration is what a run saves and hashes.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tomli_w
import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PRESETS = Path(__file__).parents[1] / "presets"
UNTITLED, UNKNOWN = "untitled", "unknown"  # a file that is started from may know better

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Slot = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Section(BaseModel):
    """A table of the file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(Section):
    """The frozen Stable Diffusion 1.5. checkpoint: a single .safetensors file or a diffusers folder."""

    checkpoint: Path
    tokenizer: Path | None = None


class Data(Section):
    """What is trained on. resolution: height, width in pixels, of people and garments alike (D10).

    batch: samples that one device computes at once. accumulate: how many such batches make a step. cache: where latents
    are kept; None means beside the manifest. most_bad_items: when more of the pictures are unusable, nothing is trained.
    """

    manifest: Path
    resolution: tuple[Positive, Positive] = (768, 576)
    batch: Positive = 4
    accumulate: Positive = 1
    workers: Annotated[int, Field(ge=0)] = 2
    cache: Path | None = None
    most_bad_items: Fraction = 0.05
    licence: str = "not stated"

    @model_validator(mode="after")
    def _whole_cells(self) -> Data:
        if any(side % 8 for side in self.resolution):
            raise ValueError("resolution must be multiples of 8, the pixels of one latent cell")
        return self


class AdapterSettings(Section):
    """What is trained, and what the file will say of itself.

    alpha: dW is alpha / rank times what is trained; left out, it is the rank. init: a finished file to start from.
    """

    slots: tuple[Slot, ...] = ("upper", "lower")
    rank: Annotated[int, Field(ge=1, le=4096)] = 64
    alpha: Annotated[float, Field(gt=0)] | None = None
    lora_targets: Literal["q,k,v", "q,k,v,out"] = "q,k,v"
    feature_tap: Literal["attn_input", "attn_output"] = "attn_input"
    null_token: bool = True
    garment_tokens: Literal["all", "foreground"] = "all"
    init: Path | None = None
    title: str = UNTITLED
    author: str = UNKNOWN

    @property
    def chosen_alpha(self) -> float:
        """alpha, or the rank where it is left out."""
        return float(self.rank) if self.alpha is None else self.alpha


class Losses(Section):
    """Eq. 15. strength: lambda of Eq. 6 in training (D8). localisation: lambda1. texture: lambda2; 0 turns it off. eta: last timestep at which texture acts (Eq. 11).

    The reductions are decision D6. feature_network: the file of DISTS' network, needed unless texture is 0.
    texture_samples: at most so many people of a batch are decoded, the rest is made up for; 0 decodes all.
    """

    strength: Annotated[float, Field(ge=0)] = 1.0
    localisation: Annotated[float, Field(ge=0)] = 0.01
    texture: Annotated[float, Field(ge=0)] = 0.001
    eta: Annotated[int, Field(ge=0, le=999)] = 350
    localisation_reduction: Literal["mse", "l2"] = "l2"
    high_frequency_reduction: Literal["mse", "l2"] = "l2"
    perceptual_region: Literal["frame", "bbox"] = "frame"
    texture_samples: Annotated[int, Field(ge=0)] = 0
    feature_network: Path | None = None


class Dropout(Section):
    """Decision D9: what a sample goes without. All garments are never dropped: that branch is the frozen SD1.5."""

    text: Fraction = 0.1
    one_garment: Fraction = 0.15


class Optimizer(Section):
    """AdamW at a fixed rate, as the paper; weight decay and clipping are ours.

    warmup: steps over which the rate rises. schedule: `cosine` lets it fall to zero at the last step. average: how
    much of the weights' running average each step keeps (EMA); 0 keeps none. clip: the longest gradient; 0 lets any pass.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip: Annotated[float, Field(ge=0)] = 1.0
    warmup: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "cosine"] = "constant"
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, 0 <= step < steps."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        fall = 0.5 + 0.5 * math.cos(math.pi * step / steps) if self.schedule == "cosine" else 1.0
        return self.learning_rate * rise * fall


class Memory(Section):
    """What fits the run onto a smaller card, at the cost of time. precision auto: bf16 where the device has it."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    checkpointing: bool = False
    two_phase_texture: bool = True


class Preview(Section):
    """Sample pictures while training. every: steps between them, 0 turns them off."""

    every: Annotated[int, Field(ge=0)] = 500
    people: Positive = 4
    seed: int = 0
    steps: Annotated[int, Field(gt=0, lt=1000)] = 30
    guidance: Annotated[float, Field(ge=1)] = 6.0
    strength: Annotated[float, Field(ge=0)] = 0.7


class Checkpoints(Section):
    """What is kept of a run. keep_every: one of so many steps is kept for good, 0 keeps none."""

    every: Positive = 1000
    keep_last: Annotated[int, Field(ge=2)] = 3
    keep_every: Annotated[int, Field(ge=0)] = 10_000


class Policies(Section):
    """When a run gives up: after so many steps in a row whose loss or gradient was not a number."""

    bad_steps: Positive = 10


class RunConfig(Section):
    """What every run says of itself, whatever it trains.

    folder: where everything of it is written. seed: decides noise, timesteps, dropout and order. presets: where those
    of this kind lie.
    """

    presets: ClassVar[Path] = PRESETS

    folder: Path
    steps: Positive
    seed: int = 0
    data: Data
    optimizer: Optimizer = Optimizer()
    memory: Memory = Memory()
    preview: Preview = Preview()
    checkpoints: Checkpoints = Checkpoints()
    policies: Policies = Policies()
    tensorboard: bool = False

    @property
    def digest(self) -> str:
        """The sha256 of the resolved configuration, as the file records it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        """The resolved configuration, every setting written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def changes(self, other: RunConfig) -> list[str]:
        """Which settings of `other` would make it another run: all that differ but `RESUMABLE`, as dotted names."""
        ours, theirs = (_flat(config.model_dump(mode="json")) for config in (self, other))
        bound = {"steps"} if self.optimizer.schedule == "cosine" else set()
        free = RESUMABLE - bound
        names = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        return [name for name in names if name not in free and name.partition(".")[0] not in free]


RESUMABLE = frozenset(
    {
        *("steps", "folder", "preview", "checkpoints", "policies", "tensorboard"),
        *("data.batch", "data.accumulate", "data.workers", "data.cache"),
        *("base.checkpoint", "data.manifest", "losses.feature_network"),
        *("memory.checkpointing", "memory.two_phase_texture"),
    }
)
"""What may change when a run goes on: how long it is trained, and what alters a weight by no more than rounding.

Files may lie elsewhere: the data's digest knows them by their content. The loop refuses another number of samples a step,
which batch and accumulate make together; with losses.texture_samples their shares decide which people are decoded.
"""


class TrainConfig(RunConfig):
    """A run of `anydressing train`."""

    steps: Positive = 100_000
    base: Base
    adapter: AdapterSettings = AdapterSettings()
    losses: Losses = Losses()
    dropout: Dropout = Dropout()


Config = TypeVar("Config", bound=RunConfig)


def load_config(path: Path, overrides: Iterable[str] = (), kind: type[Config] = TrainConfig) -> Config:
    """Read a configuration file.

    kind: what sort of run it describes. overrides: `section.key=value`, the value as TOML or, failing that, as text. Raises ValueError in the user's words.
    """
    if not path.is_file():
        raise ValueError(
            f"config: {str(path)!r} is not a file.\n"
            "A run is described by a TOML file of your own.\n"
            f'What to do: name one; it may start with preset = "24gb". The presets: {", ".join(preset_names(kind))}.'
        )
    return parse_config(path.read_text(encoding="utf-8"), str(path), overrides, kind)


def parse_config(text: str, source: str, overrides: Iterable[str] = (), kind: type[Config] = TrainConfig) -> Config:
    """Read a configuration from TOML. `preset = "name"` as its first key starts from a shipped preset."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"config: {source} is not valid TOML.\n{error}\nWhat to do: correct that line.") from error
    preset = settings.pop("preset", None)
    if preset is not None:
        settings = _merged(_read_preset(preset, kind), settings)
    for override in overrides:
        settings = _merged(settings, _parse_override(override))
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ValueError(_in_words(error, source, kind)) from error


def preset_names(kind: type[RunConfig] = TrainConfig) -> list[str]:
    """The presets that are shipped, by name."""
    return sorted(entry.stem for entry in kind.presets.glob("*.toml"))


def _read_preset(name: Any, kind: type[RunConfig]) -> dict[str, Any]:
    if name not in preset_names(kind):
        raise ValueError(
            f"preset: there is none named {name!r}.\n"
            f"The presets are: {', '.join(preset_names(kind))}.\nWhat to do: choose one of these."
        )
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
        raise ValueError(
            f"--set: {text!r} is not of the form key=value.\nA setting is named with its table, as in data.batch=2.\n"
            "What to do: write --set data.batch=2."
        )
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for key in reversed(name.strip().split(".")):
        parsed = {key: parsed}
    return parsed


def _in_words(error: ValidationError, source: str, kind: type[RunConfig]) -> str:
    """pydantic's findings as three lines each: which setting, why, what to do."""
    lines: list[str] = []
    for finding in error.errors():
        name = ".".join(str(part) for part in finding["loc"]) or "config"
        if finding["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(name, _all_keys(kind), n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "remove it."
            lines.append(f"{name}: {source} has an unknown setting.\nNothing reads it.\nWhat to do: {hint}")
        elif finding["type"] == "missing":
            lines.append(f"{name}: {source} does not say it.\nThere is no default.\nWhat to do: add {name} = ...")
        else:
            lines.append(f"{name}: got {finding['input']!r}.\n{finding['msg']}.\nWhat to do: correct it in {source}.")
    return "\n\n".join(lines)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
