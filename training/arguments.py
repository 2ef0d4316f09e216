# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the command line: options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..anydressing_core.latents import CELL, is_whole
from ..anydressing_core.refusals import refusal

if TYPE_CHECKING:
    from .hardware import WantedHardware


MOST_PAINTED = 8192
"""Pixels of a side on the command line: people may be painted larger than files are trained for."""


class Dtype(str, Enum):
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"


class PrecisionName(str, Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class RunKind(str, Enum):
    train = "train"
    train_base = "train-base"


class SplitName(str, Enum):
    train = "train"
    held_out = "held_out"


Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set data.batch=2.")
]
Device = Annotated[
    str, typer.Option("--device", help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:N or mps.")
]
Precision = Annotated[
    PrecisionName,
    typer.Option("--precision", help="In what the base model computes; auto is what the file was trained in."),
]
Seed = Annotated[int, typer.Option(help="Of the noise; the previews' is preview.seed.")]
Steps = Annotated[int, typer.Option(help="Steps of DDIM.")]
Guidance = Annotated[float, typer.Option(help="omega of Eq. 16.")]
Strength = Annotated[float, typer.Option(help="How strongly garments show: lambda of Eq. 6.")]
FileOrNone = Annotated[
    Path, typer.Argument(metavar="FILE", help="An AnyDressing file, the folder of a run, or none: by reference alone.")
]
ByReference = Annotated[bool, typer.Option("--reference", help="With a file: dress by reference as well.")]
CanvasSize = Annotated[
    str | None, typer.Option(metavar="HxW", help="Without a file: of garments and pictures; 768x576 when left out.")
]
Root = Annotated[Path | None, typer.Option(help="Where pictures lie that are not beside the manifest; only read.")]
OnlyMissing = Annotated[bool, typer.Option("--only-missing", help="What is there stays, whoever made it.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the configuration's folder.")]


class LayoutName(str, Enum):
    manifest = "manifest"
    dresscode = "dresscode"
    viton_hd = "viton-hd"


class MixName(str, Enum):
    as_is = "as-is"
    paper = "paper"


class Bench(str, Enum):
    paper_doll = "paper-doll"
    single = "single"
    dressing_pair = "dressing-pair"
    three = "three"
    pairs = "pairs"


class RegionsName(str, Enum):
    parser = "parser"
    pose = "pose"


class Table3Row(str, Enum):
    base = "base"
    gfe = "gfe"
    igl = "igl"
    gtl = "gtl"


def listed(words: str) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in words.split(",")] if words else []


def size_of(text: str) -> tuple[int, int]:
    """Height and width in pixels, of a text such as 512x384. Raises ValueError for any other."""
    height, cross, width = text.partition("x")
    numbers = cross and re.fullmatch("[0-9]{1,5}", height) and re.fullmatch("[0-9]{1,5}", width)
    sides = (int(height), int(width)) if numbers else (0, 0)
    if not is_whole(sides) or not all(CELL <= side <= MOST_PAINTED for side in sides):
        why = f"It is written height x width in pixels, both multiples of {CELL} up to {MOST_PAINTED}."
        raise refusal(repr(text), "is not a size", why, "write, for example, 512x384.")
    return sides


def garment_of(text: str) -> tuple[str, Path]:
    """Slot and picture, of a text such as upper=shirt.png. Raises ValueError for any other."""
    slot, equals, picture = text.partition("=")
    if not equals or not slot:
        why = "A garment is named with the kind it was trained as."
        raise refusal(f"--garment {text!r}", "does not say its kind", why, "write --garment upper=shirt.png.")
    return slot, Path(picture)


def words_of(text: str) -> tuple[str, str]:
    """Slot and words, of a text such as upper=striped polo shirt. Raises ValueError for any other."""
    slot, equals, words = text.partition("=")
    if not equals or not slot or not words.strip():
        why = "Words belong to a garment."
        raise refusal(f"--words {text!r}", "does not say whose", why, 'write --words "upper=striped polo shirt".')
    return slot, words


def hardware_of(precision: PrecisionName, device: str) -> WantedHardware:
    """What --precision and --device ask for."""
    from .hardware import WantedHardware  # brings torch, which help texts do not need

    return WantedHardware(precision.value, device)
