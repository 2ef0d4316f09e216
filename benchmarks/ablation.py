# SPDX-License-Identifier: GPL-3.0-or-later
"""The ablation on the paper-doll world: trains its arms, dresses held-out people with each, and writes the page.

    python -m benchmarks.ablation train FOLDER --data MANIFEST [--only ARM ...] [--seeds N]
    python -m benchmarks.ablation measure FOLDER [--only ARM ...] [--seeds N]
    python -m benchmarks.ablation page FOLDER

Every command goes on where it was stopped. Two that name different arms share the work between two cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.checkpoint import Checkpoint, load_checkpoint
from comfyui_anydressing.anydressing_core.digests import tensor_digest
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.training.arguments import Device, Precision, PrecisionName, hardware_of
from comfyui_anydressing.training.base.model import BaseModel, load_base
from comfyui_anydressing.training.dressing.build import make_dressing_task
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.dressing.export import START, precision_of
from comfyui_anydressing.training.evaluation.arms import ARMS, StudyArm, arm_tensors
from comfyui_anydressing.training.hardware import Hardware
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.sampling import SamplingSettings
from comfyui_anydressing.training.paper_doll.bench.measures import outfit_figures
from comfyui_anydressing.training.paper_doll.bench.pictures import BenchPlan, make_pictures
from comfyui_anydressing.training.paper_doll.networks.parser import load_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import load_recogniser
from comfyui_anydressing.training.progress import Course
from comfyui_anydressing.training.run.config import parse_config
from comfyui_anydressing.training.run.display import open_display
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.start import train as run_training
from PIL import Image
from rich.console import Console

from .outfit_sheet import bench_sheet
from .study import StudyPage, chosen_arms

DEMO = CHECKOUT / "demo"
BASE = DEMO / "paper_doll_base.safetensors"
PAGE = CHECKOUT / "docs" / "evidence"
OUTFITS = 200
PRESET = "paper-doll-ablation"
SETTINGS = SamplingSettings(steps=20, guidance=4.0)
"""Of every arm, with the strength that it names; those of the demo."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Argument(help="Where runs, pictures and figures of all arms lie.")]
Only = Annotated[list[str] | None, typer.Option(help="These arms; all of them when left out.")]
Seeds = Annotated[int, typer.Option(min=1, help="At most so many seeds of each arm.")]


@app.command()
def train(
    folder: Folder,
    data: Annotated[Path, typer.Option(help="The manifest of `anydressing data paper-doll`.")],
    mixed: Annotated[
        Path | None,
        typer.Option(help="That of `anydressing data paper-doll --mix paper`; without, no arm is trained on it."),
    ] = None,
    only: Only = None,
    seeds: Seeds = 1,
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    device: Device = "auto",
) -> None:
    """Train every arm that has weights of its own; what is finished is passed over."""
    for name, arm, seed in _arms(only, seeds):
        source = mixed if arm.mix else data
        if arm.of is None and source is not None:
            config = _config(folder / f"{name}-{seed}", source, arm, seed, setting or [])
            _train(config, arm, device)


def _config(folder: Path, data: Path, arm: StudyArm, seed: int, settings: Sequence[str]) -> TrainConfig:
    own = [f"{key}={json.dumps(value)}" for key, value in arm.settings.items()]
    files = {
        "folder": folder,
        "data.manifest": data.absolute(),
        "base.checkpoint": BASE,
        "losses.feature_network": DEMO / "paper_doll_recogniser_loss.safetensors",
    }
    named = [f"{key}={json.dumps(str(path))}" for key, path in files.items()]
    return parse_config(f'preset = "{PRESET}"', "the arm", TrainConfig, [*named, f"seed={seed}", *settings, *own])


def _train(config: TrainConfig, arm: StudyArm, device: str) -> None:
    run = RunFolder.open(config.folder) if config.folder.is_dir() else None
    if run is not None and run.latest() == config.steps:
        return
    print(f"== {config.folder.name}: {arm.title}", flush=True)
    outcome = run_training(
        config, partial(make_dressing_task, kind=arm.model), resume=run is not None, console=Console(), device=device
    )
    if outcome.interrupted is not None:
        raise typer.Exit(128 + int(outcome.interrupted))


# ---- pictures and figures -------------------------------------------------------------------------------------------


@app.command()
def measure(
    folder: Folder,
    only: Only = None,
    seeds: Seeds = 1,
    outfits: int = OUTFITS,
    precision: Precision = PrecisionName.auto,
    device: Device = "auto",
) -> None:
    """Dress held-out people with every trained arm, and measure; pictures that are there are kept."""
    wanted = hardware_of(precision, device)
    bases: dict[Hardware, BaseModel] = {}
    judge = load_recogniser(DEMO / "paper_doll_recogniser_judge.safetensors")
    parser = load_parser(DEMO / "paper_doll_parser.safetensors")
    display = open_display(Console())
    for name, arm, seed in _arms(only, seeds):
        run = folder / f"{arm.of or name}-{seed}"
        if not (run / START).is_file():
            print(f"== {name}-{seed} is not trained")
            continue
        print(f"== {name}-{seed}: {arm.title}", flush=True)
        start = load_checkpoint(run / START)
        hardware = wanted.for_file(precision_of(RunFolder.open(run), start.info) or "fp32")
        if hardware not in bases:
            bases[hardware] = load_base(BASE, hardware)
        base, undressed = bases[hardware], folder / f"undressed-{hardware.precision}"
        model, identity = _model(run, start, arm, base)
        pictures = folder / "pictures" / f"{name}-{seed}"
        settings = replace(SETTINGS, strength=arm.strength)
        plan = BenchPlan(outfits, settings, ways=("masked", "free"), half=arm.half)
        make_pictures(model, identity, base, pictures, plan, course=Course(display.work))
        make_pictures(model, "nobody", base, undressed, BenchPlan(outfits, SETTINGS, ways=("undressed",)))
        figures, _ = outfit_figures(pictures, base, judge, parser, display.work, undressed)
        steps = 0 if arm.start else RunFolder.open(run).latest()
        content = {"arm": name, "title": arm.title, "seed": seed, "steps": steps, "figures": figures}
        write_atomically(folder / f"{name}-{seed}.json", json.dumps(content, indent=1).encode())


def _model(run: Path, start: Checkpoint, arm: StudyArm, base: BaseModel) -> tuple[DressingModel, str]:
    """An arm's model, frozen, and what tells its weights from any others."""
    adapter = Adapter(start.info, base.unet)
    adapter.load(start)
    model = arm.model(base.unet, adapter)
    if not arm.start:
        _, trained = RunFolder.open(run).trained()
        arm_tensors(model, trained)
    model.requires_grad_(False).to(base.unet.device)
    return model, tensor_digest(model.state_dict())


def _arms(only: Sequence[str] | None, seeds: int) -> Iterator[tuple[str, StudyArm, int]]:
    """The first seed of every arm, then the second ..."""
    names = chosen_arms(only, ARMS)
    for seed in range(seeds):
        yield from ((name, arm, seed) for name, arm in ARMS.items() if name in names and seed < arm.seeds)


# ---- the page -------------------------------------------------------------------------------------------------------

CHANGES = (
    ("faint", "base"),
    ("pooled", "base"),
    ("base", "gfe"),
    ("gfe", "igl"),
    ("igl", "full"),
    ("igl", "texture"),
    ("igl", "more_texture"),
    ("full", "attn_output"),
    ("full", "no_null"),
    ("full", "foreground"),
    ("full", "half"),
    ("full", "mse"),
    ("full", "strength"),
)
"""From which arm to which the page shows what changes, outfit by outfit."""

PAGE_OF_ARMS = StudyPage("ablation", {name: arm.title for name, arm in ARMS.items() if not arm.mix}, CHANGES)


@app.command()
def page(folder: Folder) -> None:
    """Write ablation.json and ablation.jpg in docs/evidence from the figures, and their tables into ablation.md there."""
    print(PAGE_OF_ARMS.write(folder, PAGE, lambda names: sheet(folder, names)))


def sheet(folder: Path, names: Sequence[str]) -> Image.Image:
    """A column for each arm, of its first seed."""
    undressed = min(folder.glob("undressed*"))  # `measure` makes one for each precision; they show the same people
    return bench_sheet(undressed, {name: folder / "pictures" / f"{name}-0" for name in names})


if __name__ == "__main__":
    app()
