# SPDX-License-Identifier: GPL-3.0-or-later
"""Computing the garments' term only where it is worn: what it saves and what it costs, on the paper-doll world.

    python -m benchmarks.worn measure FOLDER [--only ARM ...] [--outfits N]
    python -m benchmarks.worn page FOLDER

`measure` goes on where it was stopped. Two that name different arms share the work between two cores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import typer
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.checkpoint_info import GarmentTokens
from comfyui_anydressing.anydressing_core.defaults import STRENGTH
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.training.arguments import Device, Precision, PrecisionName, hardware_of
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.dressing.finished import dressing_model, load_file
from comfyui_anydressing.training.model.dresser import Dresser
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.reference_dresser import ReferenceDresser
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
    """threshold, every: of `WornQueries`; 0 and 1 compute everywhere, in every step. by: a file's term, or reference attention.
    steps: of the sampling. tokens: of the garments that a file takes; a reference takes the foreground's.
    """

    title: str
    threshold: float = 0.0
    every: int = 1
    by: Literal["file", "reference"] = "file"
    steps: int = 20
    tokens: GarmentTokens = "all"


ARMS: Mapping[str, WornArm] = MappingProxyType(
    {
        "everywhere": WornArm("the shipped file, its term at every query"),
        "tau_005": WornArm("where more than .05 is worn, and a ring around", 0.05),
        "tau_01": WornArm("where more than .1 is worn", 0.1),
        "tau_03": WornArm("where more than .3 is worn", 0.3),
        "every_2": WornArm("everywhere, every second step", every=2),
        "every_3": WornArm("everywhere, every third step", every=3),
        "tau_01_every_2": WornArm("where more than .1 is worn, every second step", 0.1, 2),
        "tau_03_every_2": WornArm("where more than .3 is worn, every second step", 0.3, 2),
        "tau_01_every_3": WornArm("where more than .1 is worn, every third step", 0.1, 3),
        "few": WornArm("eight steps, everywhere", steps=8),
        "few_tau_01_every_2": WornArm("eight steps, where more than .1 is worn, every second step", 0.1, 2, steps=8),
        "foreground": WornArm("the garments' own tokens alone, read without their ground", tokens="foreground"),
        "together": WornArm(
            "the garments' own tokens, where more than .1 is worn, every second step", 0.1, 2, tokens="foreground"
        ),
        "ref_everywhere": WornArm("reference mode, at every query", by="reference"),
        "ref_tau_005": WornArm("reference mode, where more than .05 is worn", 0.05, by="reference"),
        "ref_tau_01": WornArm("reference mode, where more than .1 is worn", 0.1, by="reference"),
        "ref_tau_02": WornArm("reference mode, where more than .2 is worn", 0.2, by="reference"),
        "ref_tau_03": WornArm("reference mode, where more than .3 is worn", 0.3, by="reference"),
    }
)
SITES = ("down_1_0", "down_2_0", "mid_0_0", "up_0_0", "up_0_1", "up_1_0", "up_1_1")
"""The doll's: 24 x 18 tokens at the first and the last two, 12 x 9 at the others."""

CHANGES = (
    *(
        ("everywhere", name)
        for name, arm in ARMS.items()
        if arm.by == "file" and arm.steps == 20 and name != "everywhere"
    ),
    ("few", "few_tau_01_every_2"),
    *(("ref_everywhere", name) for name, arm in ARMS.items() if arm.by == "reference" and arm.threshold),
)

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
    file, course = load_file(FILE), Course(display.work)
    counted: tuple[GarmentTokens, ...] = ("all", "foreground")
    trained: dict[str, DressingModel] = {
        tokens: dressing_model(replace(file, info=replace(file.info, garment_tokens=tokens)), base)
        for tokens in counted
    }
    by_reference = ReferenceDresser(base, trained["all"].preparation.resolution)
    for name in names:
        arm, pictures = ARMS[name], folder / "pictures" / name
        print(f"== {name}: {arm.title}", flush=True)
        strength = SETTINGS.strength if arm.by == "file" else STRENGTH
        settings = replace(SETTINGS, steps=arm.steps, strength=strength, threshold=arm.threshold, every=arm.every)
        plan = BenchPlan(outfits, settings, ("upper", "lower"), ("masked", "free"))
        dresser: Dresser = trained[arm.tokens] if arm.by == "file" else by_reference
        make_pictures(dresser, name, base, pictures, plan, course=course)
        undressed = folder / f"undressed-{arm.steps}"
        nobody = replace(plan, settings=replace(SETTINGS, steps=arm.steps), ways=("undressed",))
        make_pictures(trained["all"], "nobody", base, undressed, nobody, course=course)
        figures, _ = outfit_figures(pictures, base, judge, parser, display.work, undressed)
        for outfit, of in figures.items():
            of |= _computed(pictures / str(outfit))
        content = {"arm": name, "title": arm.title, "seed": 0, "figures": figures}
        write_atomically(folder / f"{name}-0.json", json.dumps(content, indent=1).encode())


def _computed(outfit: Path) -> dict[str, float]:
    """The share of queries that were computed at each site for an outfit's free picture; nothing where all were."""
    path = outfit / "free-computed.json"
    shares = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {f"computed at {site}, free": share for site, share in shares.items()}


@app.command()
def page(folder: Folder) -> None:
    """Write worn.json in docs/evidence from the figures, and their tables into worn.md there."""
    columns = [f"computed at {site}, free" for site in SITES]
    study = StudyPage("worn", {name: arm.title for name, arm in ARMS.items()}, CHANGES, columns)
    print(study.write(folder, PAGE, lambda names: None))


if __name__ == "__main__":
    app()
