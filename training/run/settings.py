# SPDX-License-Identifier: GPL-3.0-or-later
"""What a setting is: a field that says what it means, in which unit and in which range; and settings that are no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ...anydressing_core.latents import CELL, LEAST_SIDE, MOST_SIDE

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(multiple_of=CELL, ge=LEAST_SIDE, le=MOST_SIDE)]
"""Of a picture, in pixels: whole latent cells, as many as a file may state."""

REQUIRED: Any = ...
"""The default of a setting that a person must give."""


class Section(BaseModel):
    """A table of a configuration: unknown keys are refused, values never change. Its docstring says what it is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
