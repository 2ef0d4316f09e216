# SPDX-License-Identifier: GPL-3.0-or-later
"""What an AnyDressing file says about itself: its metadata, read strictly and written back unchanged.

safetensors metadata maps text to text. Every field is required, and every error names the field, what came and what is
expected. Entries of other programs are kept in `extra` and have no effect.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from .latents import LEAST_SIDE, MOST_SIDE, is_whole
from .refusals import is_text, quote, refusal
from .sites import SD15, UNetShape, parse_unet_config

FORMAT_VERSION = "1"
"""The value of `anydressing_format`. It changes only together with a migration."""

PRECISION = "precision"
"""The one entry that a file may lack: files from before it was written mean fp32."""

IDENTITY = "identity"
"""An entry by which a file can be told from a damaged one; no part of what it says about itself."""

MOST_SCALE = 1000.0
"""The largest alpha / rank of a slot; LoRAs have 0.1 to 10, and one of 1e300 makes NaN without a word."""

FeatureTap = Literal["attn_input", "attn_output"]
GarmentTokens = Literal["all", "foreground", "cropped"]
LoraTarget = Literal["q", "k", "v", "out"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class CheckpointInfo:
    """The metadata of an AnyDressing file.

    unet: the U-Net it was trained on. slots: the garment kinds it knows, `[a-z0-9_]+`.
    rank, alpha: of each slot's LoRA; its update is scaled by alpha / rank.
    lora_targets: the projections of GarmentsNet that carry a LoRA, `q, k, v` or `q, k, v, out`.
    feature_tap: whether garment features are a site's input (after norm1) or its output, before the output projection.
    null_token: whether a pixel may attend to "no garment". garment_tokens: which garment tokens were attended to;
    cropped: the foreground's, read in the part of the canvas in which the garment lies.
    resolution: (height, width) in pixels, multiples of 8 from 16 to 2048. loss_reading: how the paper's unsquared norms were read (decision D6).
    training_config_hash: sha256 of the resolved training configuration.
    precision: in what the frozen base model was kept in training; None in files that do not say, which means fp32.
    extra: unknown metadata. unet_config: `unet` as diffusers' JSON, kept as it came; made from `unet` when left empty.

    Raises ValueError for values that a file could not give back.
    """

    unet: UNetShape
    slots: tuple[str, ...]
    rank: Mapping[str, int]
    alpha: Mapping[str, float]
    lora_targets: tuple[LoraTarget, ...]
    feature_tap: FeatureTap
    null_token: bool
    garment_tokens: GarmentTokens
    resolution: tuple[int, int]
    loss_reading: str
    steps: int
    dataset: str
    dataset_licence: str
    training_config_hash: str
    title: str
    author: str
    precision: Precision | None = None
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    unet_config: str = ""

    def __post_init__(self) -> None:
        if not self.unet_config:
            object.__setattr__(self, "unet_config", json.dumps(self.unet.to_diffusers()))
        _refuse_unwritable(self)

    @property
    def trained_in(self) -> Precision:
        """In what the frozen base model was kept in training."""
        return self.precision or "fp32"

    def to_metadata(self) -> dict[str, str]:
        """Return the file's metadata. Equal infos give equal text, in the same order."""
        known = {name: form.write(getattr(self, name)) for name, form in _FIELDS.items()}
        if self.precision is not None:  # not "fp32" instead: a file's text is its identity
            known[PRECISION] = self.precision
        fixed = {"format": "pt", "anydressing_format": FORMAT_VERSION, "unet_config": self.unet_config}
        return {**fixed, **known, **dict(sorted(self.extra.items()))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str = "This metadata") -> CheckpointInfo:
        """Read a file's metadata. Raises ValueError; `source` is what the message says was refused."""
        _refuse_other_formats(metadata, source)
        values = {name: _read_field(name, metadata, source) for name in _FIELDS}
        if PRECISION in metadata:
            values[PRECISION] = _read_field(PRECISION, metadata, source)
        _refuse_unfit_loras(values, source)
        return cls(
            unet=_read_unet(metadata, source),
            unet_config=metadata["unet_config"],
            extra={name: text for name, text in metadata.items() if name not in _KNOWN},
            **values,
        )


def describe_unet(unet: UNetShape) -> str:
    """Name a U-Net for a message: its family as far as its text width tells, its widths and that text width."""
    families = {768: "SD1.5-type", 1024: "SD2-type", 2048: "SDXL-type"}
    family = "SD1.5" if unet == SD15 else families.get(unet.cross_attention_dim, "unknown type")
    widths = "-".join(str(channels) for channels in unet.block_channels)
    return f"{family} ({widths}, context {unet.cross_attention_dim})"


# ---- one entry of the metadata -------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """How one entry is read and written. `read` raises ValueError when the text is not what is `expected`."""

    expected: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


def _read_slots(text: str) -> tuple[str, ...]:
    slots: Any = json.loads(text)
    if not isinstance(slots, list) or not 1 <= len(cast("list[Any]", slots)) <= 32:
        raise ValueError
    names = cast("list[Any]", slots)
    if not all(isinstance(name, str) and re.fullmatch(r"[a-z0-9_]{1,64}", name) for name in names):
        raise ValueError
    if len(set(names)) != len(names):
        raise ValueError
    return tuple(names)


def _read_per_slot(text: str) -> dict[str, int | float]:
    values: Any = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError
    numbers = cast("dict[str, Any]", values)
    if not all(type(number) in (int, float) and 0 < number < math.inf for number in numbers.values()):
        raise ValueError
    return numbers


def _read_rank(text: str) -> dict[str, int]:
    ranks = _read_per_slot(text)
    if not all(isinstance(rank, int) and rank <= 4096 for rank in ranks.values()):
        raise ValueError
    return cast("dict[str, int]", ranks)


def _read_alpha(text: str) -> dict[str, float]:
    return {slot: float(alpha) for slot, alpha in _read_per_slot(text).items()}


def _read_targets(text: str) -> tuple[str, ...]:
    return tuple(_one_of("q,k,v", "q,k,v,out")(text).split(","))


def _read_resolution(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", text)
    if match is None:
        raise ValueError
    height, width = int(match[1]), int(match[2])
    if not is_whole((height, width)) or not all(LEAST_SIDE <= side <= MOST_SIDE for side in (height, width)):
        raise ValueError
    return height, width


def _read_flag(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _read_steps(text: str) -> int:
    return int(_matching("[0-9]{1,12}")(text))


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return read


def _read_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError
    return text


def _write_rank(rank: Mapping[str, int]) -> str:
    return json.dumps(dict(rank), sort_keys=True)


def _write_alpha(alpha: Mapping[str, float]) -> str:
    return json.dumps({slot: float(value) for slot, value in alpha.items()}, sort_keys=True)


def _write_flag(flag: bool) -> str:
    return "true" if flag else "false"


def _write_resolution(resolution: tuple[int, int]) -> str:
    return f"{resolution[0]}x{resolution[1]}"


_LINE = _Field("one line of text", _read_line, str)
_FIELDS = {
    "slots": _Field('a JSON list of different slots such as ["upper", "lower"]', _read_slots, json.dumps),
    "rank": _Field("a JSON object with a whole number, 1 to 4096, for every slot", _read_rank, _write_rank),
    "alpha": _Field("a JSON object with a positive number for every slot", _read_alpha, _write_alpha),
    "lora_targets": _Field("q,k,v or q,k,v,out", _read_targets, ",".join),
    "feature_tap": _Field("attn_input or attn_output", _one_of("attn_input", "attn_output"), str),
    "null_token": _Field("true or false", _read_flag, _write_flag),
    "garment_tokens": _Field("all, foreground or cropped", _one_of("all", "foreground", "cropped"), str),
    "resolution": _Field(
        "height x width in multiples of 8 from 16 to 2048, such as 768x576", _read_resolution, _write_resolution
    ),
    "loss_reading": _LINE,
    "steps": _Field("a whole number", _read_steps, str),
    "dataset": _LINE,
    "dataset_licence": _LINE,
    "training_config_hash": _Field("a sha256 of 64 hexadecimal digits", _matching(r"[0-9a-f]{64}"), str),
    "title": _LINE,
    "author": _LINE,
}
_PRECISION = _Field("fp32, bf16 or fp16", _one_of("fp32", "bf16", "fp16"), str)
_KNOWN = {"format", "anydressing_format", "unet_config", PRECISION, IDENTITY, *_FIELDS}


# ---- refusals -------------------------------------------------------------------------------------------------------

_NOT_OURS = "is not an AnyDressing file"
_DAMAGED = "cannot be used: its description is damaged"
_CHOOSE = "choose a file that was written by `anydressing export`."
_EXPORT = "ask its author to export it again with `anydressing export`."


def _refuse_other_formats(metadata: Mapping[str, str], source: str) -> None:
    version = metadata.get("anydressing_format")
    if version is None:
        raise refusal(source, _NOT_OURS, "Its metadata has no entry 'anydressing_format'.", _CHOOSE)
    if version != FORMAT_VERSION:
        why = f"Its 'anydressing_format' is {quote(version)}; this version reads '{FORMAT_VERSION}'."
        raise refusal(source, "has another format", why, "update ComfyUI-AnyDressing, or export the file again.")
    if metadata.get("format") != "pt":
        why = f"Its metadata entry 'format' is {quote(metadata.get('format'))}, but should be 'pt'."
        raise refusal(source, _DAMAGED, why, _EXPORT)


def _read_field(name: str, metadata: Mapping[str, str], source: str) -> Any:
    form = _PRECISION if name == PRECISION else _FIELDS[name]
    expected = form.expected
    if name not in metadata:
        raise refusal(source, _DAMAGED, f"Its metadata has no entry {name!r} ({expected}).", _EXPORT)
    try:
        return form.read(metadata[name])
    except (ValueError, RecursionError, OverflowError) as error:
        why = f"Its metadata entry {name!r} is {quote(metadata[name])}, but should be {expected}."
        raise refusal(source, _DAMAGED, why, _EXPORT) from error


def _read_unet(metadata: Mapping[str, str], source: str) -> UNetShape:
    if "unet_config" not in metadata:
        why = "Its metadata has no entry 'unet_config' (diffusers' configuration of the U-Net, as JSON)."
        raise refusal(source, _DAMAGED, why, _EXPORT)
    try:
        unet = parse_unet_config(metadata["unet_config"])
        if not unet.sites:
            raise ValueError("it has no attention layer.")
        return unet
    except (ValueError, TypeError) as error:
        why = f"Its metadata entry 'unet_config' does not describe an SD1.5-type U-Net: {quote(str(error))}"
        raise refusal(source, _DAMAGED, why, _EXPORT) from error


def _refuse_unfit_loras(values: Mapping[str, Any], source: str) -> None:
    for name in ("rank", "alpha"):
        if set(values[name]) != set(values["slots"]):
            why = f"Its metadata entry {name!r} is for {quote(sorted(values[name]))}, but 'slots' is "
            raise refusal(source, _DAMAGED, f"{why}{quote(sorted(values['slots']))}.", _EXPORT)
    for slot, alpha in values["alpha"].items():
        if not alpha <= MOST_SCALE * values["rank"][slot]:
            most = f"{MOST_SCALE:g} times its rank {values['rank'][slot]}"
            why = f"Its metadata entry 'alpha' is {alpha:g} for {slot!r}, more than {most}."
            raise refusal(source, _DAMAGED, why, _EXPORT)


def _refuse_unwritable(info: CheckpointInfo) -> None:
    """Refuse values made in memory that a reader would refuse or would not give back equal."""
    stated = {} if info.precision is None else {PRECISION: _PRECISION}
    for name, form in (_FIELDS | stated).items():
        value: object = getattr(info, name)
        try:
            faithful = form.read(form.write(value)) == value
        except (ValueError, TypeError, AttributeError, OverflowError):
            faithful = False
        if not faithful:
            raise _unwritable(f"{name} is {quote(value)}, but should be {form.expected}.")
    _refuse_unfit_loras(vars(info), "This description")
    if _read_unet({"unet_config": info.unet_config}, "This description") != info.unet:
        raise _unwritable("unet_config describes another U-Net than unet.")
    for name, text in info.extra.items():
        if name in _KNOWN or not is_text(name) or not is_text(text):
            raise _unwritable(f"The extra entry {quote(name)} is {quote(text)}, but should be text under a free name.")


def _unwritable(why: str) -> ValueError:
    return refusal("This description of a checkpoint", "cannot be written", why, "give the value that is named above.")
