# SPDX-License-Identifier: GPL-3.0-or-later
"""Computing the garments' term only where it is worn: what it saves and what it costs, on the paper-doll world.

    python -m benchmarks.worn measure FOLDER [--only ARM ...] [--outfits N]
    python -m benchmarks.worn page FOLDER

`measure` goes on where it was stopped. Two that name different arms share the work between two cores.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import numpy as np
import typer
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.training.arguments import Device, Precision, PrecisionName, hardware_of
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.dressing.finished import dressing_model, load_file
from comfyui_anydressing.training.model.sampling import SamplingSettings
from comfyui_anydressing.training.paper_doll.bench.measures import outfit_figures
from comfyui_anydressing.training.paper_doll.bench.pictures import BenchPlan, make_pictures
from comfyui_anydressing.training.paper_doll.networks.parser import load_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import load_recogniser
from comfyui_anydressing.training.progress import Course
from comfyui_anydressing.training.run.display import open_display
from rich.console import Console

from .study import StudyPage, chosen_arms

DEMO = CHECKOUT / "demo"
BASE, FILE = DEMO / "paper_doll_base.safetensors", DEMO / "anydressing" / "paper_doll.safetensors"
PAGE = CHECKOUT / "docs" / "evidence"
OUTFITS = 100
SETTINGS = SamplingSettings(steps=20, guidance=4.0, strength=1.0)


@dataclass(frozen=True)
class WornArm:
    """threshold: of `WornQueries`; 0 computes everywhere."""

    title: str
    threshold: float


ARMS: Mapping[str, WornArm] = MappingProxyType(
    {
        "everywhere": WornArm("the shipped file, its term at every query", 0.0),
        "tau_005": WornArm("where more than .05 is worn, and a ring around", 0.05),
        "tau_01": WornArm("where more than .1 is worn", 0.1),
        "tau_03": WornArm("where more than .3 is worn", 0.3),
    }
)
CHANGES = tuple(("everywhere", name) for name in ARMS if name != "everywhere")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Argument(help="Where pictures and figures of all arms lie.")]


@app.command()
def measure(
    folder: Folder,
    only: Annotated[list[str] | None, typer.Option(help="These arms; all of them when left out.")] = None,
    outfits: int = OUTFITS,
    precision: Precision = PrecisionName.fp32,
    device: Device = "auto",
) -> None:
    """Dress held-out people in every arm's way, and measure; pictures that are there are kept."""
    names = chosen_arms(only, ARMS)
    base = load_base(BASE, hardware_of(precision, device).for_file("fp32"))
    judge = load_recogniser(DEMO / "paper_doll_recogniser_judge.safetensors")
    parser = load_parser(DEMO / "paper_doll_parser.safetensors")
    display = open_display(Console())
    checkpoint = load_file(FILE)
    dresser, course = dressing_model(checkpoint, base), Course(display.work)
    for name in names:
        arm, pictures = ARMS[name], folder / "pictures" / name
        print(f"== {name}: {arm.title}", flush=True)
        plan = BenchPlan(outfits, replace(SETTINGS, threshold=arm.threshold), ("upper", "lower"), ("masked", "free"))
        make_pictures(dresser, checkpoint.identity, base, pictures, plan, course=course)
        nobody = replace(plan, settings=SETTINGS, ways=("undressed",))
        make_pictures(dresser, "nobody", base, folder / "undressed", nobody, course=course)
        figures, _ = outfit_figures(pictures, base, judge, parser, display.work, folder / "undressed")
        content = {"arm": name, "title": arm.title, "seed": 0, "figures": figures, "computed": _computed(pictures)}
        write_atomically(folder / f"{name}-0.json", json.dumps(content, indent=1).encode())


def _computed(pictures: Path) -> dict[str, float]:
    """Site -> the mean share of queries that were computed, of the pictures made freely."""
    shares: dict[str, list[float]] = defaultdict(list)
    for path in sorted(pictures.glob("*/free-computed.json")):
        for site, share in json.loads(path.read_text(encoding="utf-8")).items():
            shares[site].append(share)
    return {site: float(np.mean(some)) for site, some in shares.items()}


@app.command()
def page(folder: Folder) -> None:
    """Write worn.json in docs/evidence from the figures, and their tables into worn.md there."""
    study = StudyPage("worn", {name: arm.title for name, arm in ARMS.items()}, CHANGES)
    print(study.write(folder, PAGE, lambda names: None))


if __name__ == "__main__":
    app()
