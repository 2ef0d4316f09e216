# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference mode on the paper-doll world: what each of its choices is worth, beside the trained file, and with it.

    python -m benchmarks.reference measure FOLDER [--only ARM ...] [--outfits N]
    python -m benchmarks.reference page FOLDER

`measure` goes on where it was stopped. Two that name different arms share the work between two cores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
import typer
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.defaults import STRENGTH
from comfyui_anydressing.anydressing_core.garment_kv import GarmentKV, scaled_dot_product
from comfyui_anydressing.anydressing_core.latents import latent_size
from comfyui_anydressing.anydressing_core.noise_levels import LEVELS
from comfyui_anydressing.anydressing_core.places import on_grid
from comfyui_anydressing.anydressing_core.reference_attention import (
    CONTRAST,
    WITH_FILE,
    WITHOUT_FILE,
    garment_bias,
    garments_part,
)
from comfyui_anydressing.anydressing_core.sites import AttentionSite
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.training.arguments import Device, Precision, PrecisionName, hardware_of
from comfyui_anydressing.training.base.model import BaseModel, load_base
from comfyui_anydressing.training.dressing.finished import dressing_model, load_file
from comfyui_anydressing.training.hardware import WantedHardware
from comfyui_anydressing.training.model.dresser import Dresser, Preparation
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.model.people import EncodedGarment
from comfyui_anydressing.training.model.processors import DressingRole, ReferenceStep, SiteProcessor, install
from comfyui_anydressing.training.model.reference import Reference, level_timesteps, read_garments
from comfyui_anydressing.training.model.reference_dresser import ReferenceDresser
from comfyui_anydressing.training.model.sampling import SamplingSettings
from comfyui_anydressing.training.paper_doll.bench.measures import outfit_figures
from comfyui_anydressing.training.paper_doll.bench.pictures import (
    BenchPlan,
    encode_garment,
    make_pictures,
)
from comfyui_anydressing.training.paper_doll.networks.parser import load_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import load_recogniser
from comfyui_anydressing.training.paper_doll.world.samples import Sample
from comfyui_anydressing.training.progress import Course
from comfyui_anydressing.training.run.display import open_display
from einops import rearrange
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from .outfit_sheet import bench_sheet
from .study import StudyPage, chosen_arms
from .style_lora import merge, train

DEMO = CHECKOUT / "demo"
BASE, FILE = DEMO / "paper_doll_base.safetensors", DEMO / "anydressing" / "paper_doll.safetensors"
PAGE = CHECKOUT / "docs" / "evidence"
OUTFITS = 100
SETTINGS = SamplingSettings(steps=20, guidance=4.0)
RESOLUTION = (384, 288)
BOTH, FREE = ("masked", "free"), ("free",)


@dataclass(frozen=True)
class ReferenceArm:
    """A way of dressing; the defaults are reference mode's own.

    weight: w, 0 without reference. file: lambda of the shipped file, 0 without it. levels: of noise at which a garment is
    read, None for every step's own. stages: of the U-Net, whose sites join. text: what the garment's pass is told. places:
    how they are found. start: of the sampling, before which nothing is worn. foreground: only the garment's own tokens.
    half: garments at half their size. contrast: of keys, as `read_garments` takes it. added: lambda of a second term with
    a softmax of its own, in place of the joint one. slots: what is worn. ways: which pictures are made. style: whether the
    pictures are made with a style LoRA, and garments read with it, too, or without.
    """

    title: str
    weight: float = WITHOUT_FILE
    file: float = 0.0
    levels: int | None = LEVELS
    stages: tuple[str, ...] = ("up",)
    text: Literal["empty", "caption", "silent"] = "empty"
    places: Literal["slot", "kind", "prompt", "true", "none"] = "slot"
    start: float = 0.0
    foreground: bool = True
    half: bool = False
    contrast: float = CONTRAST
    added: float = 0.0
    slots: tuple[str, ...] = ("upper", "lower")
    ways: tuple[str, ...] = BOTH
    style: Literal["", "kept", "stripped"] = ""

    @property
    def dressed_upon(self) -> str:
        """Where its people lie undressed: those who wear hats are others, and a style changes all of them."""
        return "_".join(["undressed", *(["hats"] if "hat" in self.slots else []), *(["style"] if self.style else [])])


_EVERYWHERE = ("down", "mid", "up")
_DEFAULT, _WITH = ReferenceArm("reference mode"), ReferenceArm("file and reference", WITH_FILE, 0.7)
_KIND = replace(_DEFAULT, title="places by the garments' kinds, as the prompt names them", places="kind")

ARMS: Mapping[str, ReferenceArm] = MappingProxyType(
    {
        "file": ReferenceArm("the shipped file, strength 1", 0.0, 1.0),
        "reference": _DEFAULT,
        "both": _WITH,
        "kind_words": _KIND,
        "levels_1": replace(_KIND, title="one level of noise", levels=1, ways=FREE),
        "levels_2": replace(_DEFAULT, title="two levels", levels=2, ways=FREE),
        "levels_4": replace(_KIND, title="four levels", levels=4, ways=FREE),
        "levels_all": replace(_DEFAULT, title="every step's own level", levels=None, ways=FREE),
        "no_contrast": replace(_KIND, title="keys as they are read", contrast=1.0, ways=FREE),
        "contrast_2": replace(_KIND, title="keys times 2", contrast=2.0, ways=FREE),
        "added": replace(_DEFAULT, title="a second term is added, as by the file", added=STRENGTH, ways=FREE),
        "no_places": replace(_DEFAULT, title="no places", places="none", ways=FREE),
        "prompt_places": replace(
            _DEFAULT, title="places by the words' positions in the prompt", places="prompt", ways=FREE
        ),
        "true_places": replace(_DEFAULT, title="places by the true masks", places="true", ways=FREE),
        "caption": replace(_DEFAULT, title="the garment's pass is told its caption", text="caption", ways=FREE),
        "silent": replace(
            _DEFAULT, title="the garment's pass is told nothing, cross-attention silenced", text="silent", ways=FREE
        ),
        "all_tokens": replace(_DEFAULT, title="all tokens of the garment's picture", foreground=False, ways=FREE),
        "all_sites": replace(_DEFAULT, title="at all sites", stages=_EVERYWHERE),
        "down_up": replace(_DEFAULT, title="at all sites but the middle's", stages=("down", "up")),
        "mid_up": replace(_DEFAULT, title="at the middle's and the decoder's sites", stages=("mid", "up"), ways=FREE),
        "half_weight": replace(_KIND, title="half the weight", weight=WITHOUT_FILE / 2, ways=FREE),
        "double_weight": replace(_DEFAULT, title="double the weight", weight=WITHOUT_FILE * 2),
        "late_start": replace(_DEFAULT, title="from a tenth of the sampling on", start=0.1, ways=FREE),
        "half_size": replace(_DEFAULT, title="garments at half size", half=True, ways=FREE),
        "upper_alone": replace(_DEFAULT, title="one garment: upper", slots=("upper",), ways=FREE),
        "lower_alone": replace(_DEFAULT, title="one garment: lower", slots=("lower",), ways=FREE),
        "three": replace(_DEFAULT, title="three garments", slots=("upper", "lower", "hat"), ways=FREE),
        "style_kept": replace(_KIND, title="a style LoRA, garments read with it, too", style="kept", ways=FREE),
        "style_stripped": replace(_KIND, title="a style LoRA, garments read without it", style="stripped", ways=FREE),
        "file_upper": ReferenceArm("the file, one garment: upper", 0.0, 1.0, slots=("upper",), ways=FREE),
        "file_three": ReferenceArm("the file, three garments", 0.0, 1.0, slots=("upper", "lower", "hat"), ways=FREE),
        "both_file_1": replace(_WITH, title="file at 1 and reference", file=1.0),
        "both_file_half": replace(_WITH, title="file at 0.5 and reference", file=0.5),
        "both_weight_half": replace(_WITH, title="file and half the reference", weight=WITH_FILE / 2),
        "both_weight_double": replace(_WITH, title="file and double the reference", weight=WITH_FILE * 2),
        "both_all_sites": replace(_WITH, title="file and reference at all sites", stages=_EVERYWHERE),
    }
)
"""By name, in the order of the page."""

SEEN = ("file", "reference", "both")
"""The ways whose pictures the page shows."""

CHANGES = (
    ("file", "reference"),
    ("file", "both"),
    *(
        ("kind_words" if arm.places == "kind" and name != "kind_words" else "reference", name)
        for name, arm in ARMS.items()
        if arm.file == 0 and len(arm.slots) == 2 and not arm.style and name != "reference"
    ),
    ("style_stripped", "style_kept"),
    *(("both", name) for name in ARMS if name.startswith("both_")),
    ("file_upper", "upper_alone"),
    ("file_three", "three"),
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Argument(help="Where pictures and figures of all arms lie.")]
Only = Annotated[list[str] | None, typer.Option(help="These arms; all of them when left out.")]


class StudyDresser(ReferenceDresser):
    """Dresses as an arm says. Without reference it is the file's own model. reader: the base model that reads garments."""

    def __init__(self, arm: ReferenceArm, base: BaseModel, trained: DressingModel, reader: BaseModel) -> None:
        super().__init__(base, RESOLUTION, trained if arm.file else None)
        install(reader.unet)
        self._arm, self._reader = arm, reader
        if arm.added:
            for site in base.shape.sites:
                attention: Any = base.unet.get_submodule(site.diffusers_name)
                attention.set_processor(AddedTerm(site, arm.added))
        self.preparation = Preparation(trained.preparation.slots, RESOLUTION)

    def reference(self, outfits: Outfits, strength: float) -> Reference | None:
        """As the arm says, which names no strength but a weight."""
        if self._arm.weight == 0:
            return None
        mute = self._arm.places in ("true", "none")
        plain = super().reference(replace(outfits, words=None) if mute else outfits, STRENGTH)
        return StudyReference(**vars(plain), begins=1 - self._arm.start)

    def _weight(self, strength: float) -> float:
        return self._arm.weight

    def _read(self, outfits: Outfits) -> dict[int, dict[str, GarmentKV]]:
        arm, base = self._arm, self._base
        return read_garments(
            self._reader.unet,
            base.schedule,
            outfits if arm.foreground else replace(outfits, cells=None),
            {"empty": self._no_text, "silent": None, "caption": self._caption(outfits)}[arm.text],
            timesteps=[step for step, _ in SETTINGS.timesteps] if arm.levels is None else level_timesteps(arm.levels),
            sites=[site for site in base.shape.sites if site.stage in arm.stages],
            contrast=arm.contrast,
        )

    def _caption(self, outfits: Outfits) -> Tensor:
        captions = {"upper": "a shirt", "lower": "a skirt", "hat": "a cap"}
        return self._base.encode_text([f"a product photo of {captions[slot]}" for slot in outfits.slots])


class AddedTerm(SiteProcessor):
    """Self-attention plus lambda times attention to the garments alone, as much as they belong to a pixel."""

    def __init__(self, site: AttentionSite, strength: float) -> None:
        super().__init__(site)
        self._strength = strength

    def _dressed(self, query: Tensor, key: Tensor, value: Tensor, heads: int, role: DressingRole) -> Tensor:
        out, step = scaled_dot_product(query, key, value, heads), role.reference
        if step is None or self.site.key not in step.garments:
            return out
        places = None if step.places is None else on_grid(step.places, self.site.grid(*step.size))
        part = garments_part(query, key, step.garments[self.site.key], garment_bias(step.weights, places))
        role.maps[self.site.key] = part.maps
        alone = rearrange(part.term / (1 - part.left).clamp(min=1e-6).to(part.term), "b l h d -> b l (h d)")
        return out + self._strength * (alone if places is None else alone * places.sum(dim=-1, keepdim=True).to(alone))


@dataclass
class StudyReference(Reference):
    """begins: the share of the schedule, 1 being pure noise, from which on garments are worn."""

    begins: float = 1.0

    def step(self, timestep: int, size: tuple[int, int]) -> ReferenceStep:
        """Nothing joins before the beginning, but places are looked for."""
        step = super().step(timestep, size)
        return step if timestep <= 999 * self.begins else replace(step, garments={})


def encode(
    arm: ReferenceArm, slot: str, worn: Sample, wearer: Sample, preparation: Preparation, base: BaseModel, half: bool
) -> EncodedGarment:
    """A garment with the words, or the region, that an arm gives it."""
    garment = encode_garment(slot, worn, wearer, preparation, base, half)
    if arm.places == "kind":
        return replace(garment, words=base.encode_words(worn.labels.garments[slot].kind))
    if arm.places == "prompt":
        return replace(garment, words=_in_prompt(base, wearer.caption, wearer.labels.garments[slot].kind))
    if arm.places == "true":
        mask = torch.from_numpy(wearer.garments[slot].mask).float()[None]
        return replace(garment, region=functional.adaptive_avg_pool2d(mask, latent_size(preparation.resolution))[0])
    return garment


def _in_prompt(base: BaseModel, prompt: str, word: str) -> Tensor:
    """The mean embedding of a word's tokens where the prompt has them."""
    ids, own = (base.tokenizer([text])["input_ids"][0] for text in (prompt, word))
    own = own[1:-1]
    first = next(place for place in range(len(ids)) if ids[place : place + len(own)] == own)
    return base.encode_text([prompt])[0, first : first + len(own)].mean(dim=0)


@app.command()
def measure(
    folder: Folder,
    only: Only = None,
    outfits: int = OUTFITS,
    precision: Precision = PrecisionName.bf16,
    device: Device = "auto",
) -> None:
    """Dress held-out people in every arm's way, and measure; pictures that are there are kept."""
    names = chosen_arms(only, ARMS)
    chosen = hardware_of(precision, device)
    plain = load_base(BASE, chosen.for_file("fp32"))
    judge = load_recogniser(DEMO / "paper_doll_recogniser_judge.safetensors")
    parser = load_parser(DEMO / "paper_doll_parser.safetensors")
    display = open_display(Console())
    course = Course(display.work)
    trained = dressing_model(load_file(FILE), plain)
    for name in names:
        arm = ARMS[name]
        print(f"== {name}: {arm.title}", flush=True)
        base = _in_style(folder, chosen, course) if arm.style else plain
        dresser: Dresser = StudyDresser(arm, base, trained, base if arm.style == "kept" else plain)
        settings = replace(SETTINGS, strength=arm.file)
        plan = BenchPlan(outfits, settings, arm.slots, arm.ways, arm.half, encode=partial(encode, arm))
        make_pictures(dresser, repr(arm), base, folder / "pictures" / name, plan, course=course)
        undressed = folder / arm.dressed_upon
        nobody = BenchPlan(outfits, SETTINGS, arm.slots if "hat" in arm.slots else ("upper", "lower"), ("undressed",))
        make_pictures(dresser, "nobody", base, undressed, nobody, course=course)
        figures, _ = outfit_figures(folder / "pictures" / name, base, judge, parser, display.work, undressed)
        content = {"arm": name, "title": arm.title, "seed": 0, "figures": figures}
        write_atomically(folder / f"{name}-0.json", json.dumps(content, indent=1).encode())


def _in_style(folder: Path, hardware: WantedHardware, course: Course) -> BaseModel:
    """The base model with the style LoRA merged in, which is trained first where it is not there yet, in fp32."""
    lora = folder / "style"
    if not lora.is_dir():
        train(lora, load_base(BASE), RESOLUTION, course=course)
    return merge(lora, load_base(BASE, hardware.for_file("fp32")))


@app.command()
def page(folder: Folder) -> None:
    """Write reference.json and reference.jpg in docs/evidence from the figures, and their tables into reference.md there."""
    study = StudyPage("reference", {name: arm.title for name, arm in ARMS.items()}, CHANGES)
    print(study.write(folder, PAGE, partial(_sheet, folder)))


def _sheet(folder: Path, names: Sequence[str]) -> Image.Image | None:
    """A column for each of SEEN, once all of them have pictures."""
    pictures = {name: folder / "pictures" / name for name in SEEN}
    return bench_sheet(folder / "undressed", pictures) if all(map(Path.is_dir, pictures.values())) else None


if __name__ == "__main__":
    app()
