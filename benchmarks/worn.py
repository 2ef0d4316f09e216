# SPDX-License-Identifier: GPL-3.0-or-later
"""Computing the garments' term only where it is worn: what it saves and what it costs, on the paper-doll world.

    python -m benchmarks.worn measure FOLDER [--only ARM ...] [--outfits N]
    python -m benchmarks.worn page FOLDER

`measure` goes on where it was stopped. Two that name different arms share the work between two cores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.canvas import foreground_tokens, lay_out, window_around
from comfyui_anydressing.anydressing_core.defaults import STRENGTH
from comfyui_anydressing.anydressing_core.garment_kv import (
    ABSENT_BIAS,
    GarmentKV,
    garment_kv,
    project_garment,
    split_heads,
)
from comfyui_anydressing.anydressing_core.latents import Size
from comfyui_anydressing.anydressing_core.pixels import as_signed
from comfyui_anydressing.anydressing_core.sites import SD15, AttentionSite
from comfyui_anydressing.anydressing_core.worn_queries import (
    ALONE,
    WHOLE_STEPS,
    Chosen,
    WornQueries,
    WornStates,
    kinds_of,
)
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.training.arguments import Device, Precision, PrecisionName, hardware_of
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.dressing.finished import dressing_model, load_file
from comfyui_anydressing.training.model import people
from comfyui_anydressing.training.model.dresser import Dresser
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.model.reference_dresser import ReferenceDresser
from comfyui_anydressing.training.model.sampling import SamplingSettings
from comfyui_anydressing.training.paper_doll.bench.measures import outfit_figures
from comfyui_anydressing.training.paper_doll.bench.pictures import BenchPlan, make_pictures, outfit
from comfyui_anydressing.training.paper_doll.networks.parser import load_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import load_recogniser
from comfyui_anydressing.training.progress import Course
from comfyui_anydressing.training.run.display import open_display
from einops import rearrange
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from .study import StudyPage, chosen_arms

DEMO = CHECKOUT / "demo"
BASE, FILE = DEMO / "paper_doll_base.safetensors", DEMO / "anydressing" / "paper_doll.safetensors"
PAGE = CHECKOUT / "docs" / "evidence"
OUTFITS = 100
SLOTS, RESOLUTION = ("upper", "lower"), (384, 288)
SETTINGS = SamplingSettings(steps=20, guidance=4.0, strength=1.0)


@dataclass(frozen=True)
class WornArm:
    """threshold, every: of `WornQueries`; 0 and 1 compute everywhere, in every step. by: a file's term, reference attention, or both.
    steps: of the sampling. merged: to which share of their number a file's keys are merged. whole: how many steps compute everywhere
    before. alone: of one garment's share, as of `WornQueries`; 0 lets all meet all garments.
    """

    title: str
    threshold: float = 0.0
    every: int = 1
    by: Literal["file", "reference", "both"] = "file"
    steps: int = 20
    merged: float = 1.0
    whole: int = WHOLE_STEPS
    alone: float = 0.0


ARMS: Mapping[str, WornArm] = MappingProxyType(
    {
        "everywhere": WornArm("the shipped file, its term at every query"),
        "tau_01": WornArm("where more than .1 is worn, and a ring around", 0.1),
        "every_2": WornArm("everywhere, every second step", every=2),
        "tau_01_every_2": WornArm("where more than .1 is worn, every second step", 0.1, 2),
        "tau_01_every_3": WornArm("where more than .1 is worn, every third step", 0.1, 3),
        "few": WornArm("eight steps, everywhere", steps=8),
        "few_tau_01_every_2": WornArm("eight steps, where more than .1 is worn, every second step", 0.1, 2, steps=8),
        "few_tau_01_every_3": WornArm("eight steps, where more than .1 is worn, every third step", 0.1, 3, steps=8),
        "alone_01": WornArm(
            "where more than .1 is worn, every second step, what wears one garment meets it alone", 0.1, 2, alone=0.1
        ),
        "few_alone_01": WornArm(
            "eight steps, where more than .1 is worn, every second step, what wears one garment meets it alone",
            0.1,
            2,
            steps=8,
            alone=0.1,
        ),
        "whole_1": WornArm("where more than .1 is worn, every second step, from the second on", 0.1, 2, whole=1),
        "few_whole_1": WornArm(
            "eight steps, where more than .1 is worn, every second step, from the second on", 0.1, 2, steps=8, whole=1
        ),
        "merged_2": WornArm("similar keys merged, a half is left", merged=1 / 2),
        "ref_everywhere": WornArm("reference mode, at every query", by="reference"),
        "ref_tau_01": WornArm("reference mode, where more than .1 is worn", 0.1, by="reference"),
        "ref_tau_015": WornArm("reference mode, where more than .15 is worn", 0.15, by="reference"),
        "ref_tau_02": WornArm("reference mode, where more than .2 is worn", 0.2, by="reference"),
        "ref_alone_01": WornArm(
            "reference mode, where more than .1 is worn, what wears one garment meets it alone",
            0.1,
            by="reference",
            alone=0.1,
        ),
        "ref_alone_02": WornArm(
            "reference mode, the same, one garment alone where no other has more than .2",
            0.1,
            by="reference",
            alone=0.2,
        ),
        "ref_whole_1": WornArm(
            "reference mode, where more than .1 is worn, from the second step on", 0.1, by="reference", whole=1
        ),
        "both_everywhere": WornArm("file and reference, at every query", by="both"),
        "both_tau_01_every_2": WornArm(
            "file and reference, where more than .1 is worn, the file every second step", 0.1, 2, by="both"
        ),
        "both_alone_01": WornArm(
            "file and reference, the same, what wears one garment meets it alone", 0.1, 2, by="both", alone=0.1
        ),
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
    ("few", "few_tau_01_every_3"),
    ("few", "few_alone_01"),
    ("few", "few_whole_1"),
    *(("ref_everywhere", name) for name, arm in ARMS.items() if arm.by == "reference" and arm.threshold),
    ("both_everywhere", "both_tau_01_every_2"),
    ("both_everywhere", "both_alone_01"),
)

LARGE, FINER = (768, 576), ((48, 36), (96, 72))
"""Grids that SD1.5 has at 768 x 576 beside those of the doll, on which a ring of one token is thinner."""


class FinerToo(WornQueries):
    """Counts besides which share its maps would leave to compute on SD1.5's finer grids, by the same rule."""

    @property
    def mean_shares(self) -> dict[str, dict[str, float]]:
        """As of the parent, of sites at which garments were met at all."""
        shares = {
            which: {name: share for name, share in of.items() if name.partition(" on ")[0] in self.computed}
            for which, of in super().mean_shares.items()
        }
        return shares if any(shares.values()) else {}

    def begin(self, sites: Sequence[AttentionSite], size: Size) -> None:
        """As of the parent."""
        early = self._steps < self._whole
        super().begin(sites, size)
        if early or self._kept or not self._threshold:
            share = 0.0 if self._kept else 1.0
            for site in sites:
                for grid in FINER:
                    self._add(finer(site.key, grid), share, share)

    def _choose(self, sites: Sequence[AttentionSite]) -> dict[str, Chosen]:
        for site in sites:
            share = self._shares.get(site.key)
            for grid in FINER if share is not None else ():
                assert share is not None
                maps = share.unflatten(1, site.grid(*self._size)).movedim(-1, 1)
                maps = functional.interpolate(maps, grid, mode="bilinear").movedim(1, -1)
                kinds = kinds_of(maps, self._threshold, self._alone)
                garments = maps.shape[-1]
                all_, some = (kinds == garments).float().mean(), (kinds < garments).float().mean()
                self._add(finer(site.key, grid), float(all_ + some), float(all_ + some / garments))
        return super()._choose(sites)


def finer(site: str, grid: Size) -> str:
    """What a share is called that a site's maps would leave to compute on another grid."""
    return f"{site} on {grid[0]} x {grid[1]}"


class FinerStates(WornStates):
    """As artists have them, counted on finer grids, too. arm: the one that is measured."""

    arm: WornArm

    @classmethod
    def of(cls, threshold: float, every: int, alone: float = ALONE) -> FinerStates:
        """As of the parent, but for what the arm has otherwise."""
        arm = cls.arm
        return cls(FinerToo(threshold, every, arm.alone, arm.whole), FinerToo(threshold, 1, arm.alone, arm.whole))


class MergedModel(DressingModel):
    """Similar keys of a garment are one, at the mean of their values, and count as often as they were: log n in the columns that
    carry the null token's bias.
    """

    left = 1.0

    def _at_site(
        self, site: AttentionSite, features: Tensor, there: Tensor | None, outfits: Outfits, maps: bool
    ) -> GarmentKV:
        dressing, heads = self.adapter.site(site.key), self.adapter.info.unet.heads
        to_k, to_v = (weight.to(features) for weight in (dressing.to_k.weight, dressing.to_v.weight))
        key, value = project_garment(features, to_k, to_v)
        before = key.shape[1]
        key, value, count = merged(key, value, round(self.left * before))
        index, null = outfits.worn.clamp(min=0), dressing.null
        assert there is None
        assert null is not None
        null = (null[0].to(key), null[1] + math.log(before / key.shape[1]))  # its share is that of all tokens
        keys, values = (list(part[index].unbind(1)) for part in (key, value))
        one = garment_kv(keys, values, heads, null=null, maps=maps)
        bias = count[index].flatten(1).log().clamp(min=ABSENT_BIAS) * math.sqrt(one.columns.width)
        wide = split_heads(one.key, heads).clone()
        wide[:, :-1, :, one.columns.dim] += bias[..., None]
        return replace(one, key=rearrange(wide, "b m h d -> b m (h d)"))


def merged(key: Tensor, value: Tensor, left: int, rounds: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's k-means of the keys (G, M, C), from evenly spread ones: key and value of each cluster's mean and its size (G, left)."""
    dtype, key, value = key.dtype, key.float(), value.float()
    centre = key[:, torch.linspace(0, key.shape[1] - 1, left).round().long()]
    for _ in range(rounds):
        whose = _nearest(key, centre)
        centre = torch.where(whose.sum(dim=1)[..., None] > 0, _means(whose, key), centre)
    whose = _nearest(key, centre)
    return centre.to(dtype), _means(whose, value).to(dtype), whose.sum(dim=1)


def _nearest(key: Tensor, centre: Tensor) -> Tensor:
    """1 where a key is nearest to a centre: (G, M, left)."""
    return functional.one_hot(torch.cdist(key, centre).argmin(dim=-1), centre.shape[1]).to(key)


def _means(whose: Tensor, x: Tensor) -> Tensor:
    return whose.transpose(1, 2) @ x / whose.sum(dim=1).clamp(min=1)[..., None]


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
    people.WornStates = FinerStates  # pyright: ignore[reportPrivateImportUsage]
    file, course = load_file(FILE), Course(display.work)
    trained = dressing_model(file, base)
    for name in names:
        arm, pictures = ARMS[name], folder / "pictures" / name
        print(f"== {name}: {arm.title}", flush=True)
        strength = SETTINGS.strength if arm.by == "file" else STRENGTH
        FinerStates.arm = arm
        settings = replace(SETTINGS, steps=arm.steps, strength=strength, threshold=arm.threshold, every=arm.every)
        plan = BenchPlan(outfits, settings, SLOTS, ("masked", "free"))
        dresser: Dresser = trained
        if arm.by != "file":
            dresser = ReferenceDresser(base, RESOLUTION, trained if arm.by == "both" else None)
        if arm.merged < 1:
            dresser = dressing_model(file, base, MergedModel)
            dresser.left = arm.merged
        make_pictures(dresser, name, base, pictures, plan, course=course)
        undressed = folder / f"undressed-{arm.steps}"
        nobody = replace(plan, settings=replace(SETTINGS, steps=arm.steps), ways=("undressed",))
        make_pictures(trained, "nobody", base, undressed, nobody, course=course)
        figures, _ = outfit_figures(pictures, base, judge, parser, display.work, undressed)
        for seed, of in figures.items():
            of |= _computed(pictures / str(seed)) | _kept(int(seed))
        content = {"arm": name, "title": arm.title, "seed": 0, "figures": figures}
        write_atomically(folder / f"{name}-0.json", json.dumps(content, indent=1).encode())


def _kept(one: int) -> dict[str, float]:
    """Which share of its garments' tokens are their own, at their finest site, and which of SD1.5's canvas a crop to them has."""
    shares: list[float] = []
    crops: list[float] = []
    for garment in outfit(one, SLOTS, RESOLUTION).truth.garments.values():
        flat_lay = as_signed(garment.flat_lay)[None]
        cells = lay_out(flat_lay, *RESOLUTION).cells
        shares.append(float(foreground_tokens(cells, (cells.shape[0] // 2, cells.shape[1] // 2)).float().mean()))
        large = lay_out(flat_lay, *LARGE).cells
        window = window_around(large, SD15.stride)
        crops.append(window.height * window.width / large.numel())
    return {
        "tokens kept": float(np.mean(shares)),
        "canvas read": float(np.mean(crops)),
        "canvas read, squared": float(np.mean(np.square(crops))),
    }


def _computed(outfit: Path) -> dict[str, float]:
    """The share of queries that were computed at each site for an outfit's free picture, and of pairs of a query and a garment's
    token; nothing where all were.
    """
    path = outfit / "free-computed.json"
    shares = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {f"{which} at {site}, free": share for which, of in shares.items() for site, share in of.items()}


@app.command()
def page(folder: Folder) -> None:
    """Write worn.json in docs/evidence from the figures, and their tables into worn.md there."""
    columns = [f"computed at {site}, free" for site in SITES]
    study = StudyPage("worn", {name: arm.title for name, arm in ARMS.items()}, CHANGES, columns)
    print(study.write(folder, PAGE, lambda names: None))


if __name__ == "__main__":
    app()
