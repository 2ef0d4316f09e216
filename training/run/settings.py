# SPDX-License-Identifier: GPL-3.0-or-later
"""What a setting is: a field that says what it means, in which unit and in which range; and settings that are no more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from ...anydressing_core.latents import CELL, LEAST_SIDE, MOST_SIDE

MOST_STEPS = 10**9
"""More than any run takes; what counts steps goes no further."""

MOST_AT_ONCE = 4096
"""Samples of a batch, batches of a step: beyond it, a list of them alone fills the memory."""

Positive = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Natural = Annotated[int, Field(ge=0, le=MOST_STEPS)]
AtOnce = Annotated[int, Field(ge=1, le=MOST_AT_ONCE)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
"""As PyTorch takes them."""

Side = Annotated[int, Field(multiple_of=CELL, ge=LEAST_SIDE, le=MOST_SIDE)]
"""Of a picture, in pixels: whole latent cells, as many as a file may state."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("it is one line of visible text")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""What a file's metadata can carry."""

REQUIRED: Any = ...
"""The default of a setting that a person must give."""


class Section(BaseModel):
    """A table of a configuration: unknown keys are refused, values never change. Its docstring says what it is about."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _path_as_meant(cls, value: object) -> object:
        if isinstance(value, Path) and any(ord(character) < 32 for character in str(value)):
            raise ValueError(
                "between double quotes TOML reads \\t, \\n and the like as tabs and line breaks; "
                "write a path in single quotes, or with forward slashes"
            )
        return value


def setting(default: Any, about: str, *, unit: str, example: object = None, **bounds: Any) -> Any:
    """A field of a Section.

    about: what it means, in a sentence. unit: of its value, or what kind of word or file it is. example: what a
    commented configuration shows for one that is required. bounds: as pydantic's `Field` takes them (ge, gt, le, lt ...).
    """
    extra: dict[str, Any] = {"unit": unit, "example": example}
    return Field(default, description=about, json_schema_extra=extra, **bounds)


@dataclass(frozen=True)
class Retired:
    """A setting that is no more. kept: the values that mean what is done now; None for all. why: what became of the others."""

    kept: tuple[object, ...] | None
    why: str
