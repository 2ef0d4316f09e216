# SPDX-License-Identifier: GPL-3.0-or-later
"""How much each way of dressing adds to SD1.5: FLOPs per step, counted on meta tensors.

`python -m benchmarks.flops` prints the table; `--write` also writes flops.json. Products (linear, convolution,
attention) count 2 FLOP per multiply-add, nothing else counts. A step is one conditional and one unconditional row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from comfyui_anydressing.anydressing_core.defaults import STEPS
from comfyui_anydressing.anydressing_core.garment_kv import GarmentKV
from comfyui_anydressing.anydressing_core.noise_levels import LEVELS
from comfyui_anydressing.anydressing_core.reference_attention import reference_sites
from comfyui_anydressing.anydressing_core.sites import SD15, AttentionSite
from comfyui_anydressing.anydressing_core.word_table import POSITIONS
from comfyui_anydressing.anydressing_core.worn_queries import WHOLE_STEPS
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.dev.marked import around
from comfyui_anydressing.training.model.processors import (
    GarmentsRole,
    Lora,
    ReadingRole,
    garment_features,
    install,
    read_tokens,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from . import schemes
from .schemes import FULL, HALF, Garments, Layer
from .worn import ARMS, FINER, finer

RESULT, PAGE = Path(__file__).with_name("flops.json"), Path(__file__).with_name("README.md")
WORN = CHECKOUT / "docs" / "evidence" / "worn.json"
RECORDED_STEPS = 20
"""Of the runs in WORN."""
WITH_FILE, BY_REFERENCE = "alone_01", "ref_alone_01"
"""The arms of it that are as artists have them."""

NUMBERS = range(1, 6)
MOST_GARMENTS = 8
RANK = 64

OURS = "ours"
OURS_NULL = "ours + null token"
OURS_HALF = "ours, half-size"
OURS_HALF_NULL = "ours, half-size + null token"
FOREGROUND = "ours, 50 % foreground"
REFERENCE = "reference mode"
REFERENCE_FOREGROUND = "reference mode, 50 % foreground"
AS_RUN = "ours as run, two full-size garments"
AS_RUN_ALL = "ours as run, all tokens of two full-size garments"
AS_RUN_HALF = "ours as run, two half-size garments"
REFERENCE_AS_RUN = "reference mode as run, two full-size garments"
REFERENCE_AS_RUN_HALF = "reference mode as run, two half-size garments"
FEATURES = "Eq. 6, hidden states cached"
BOTH_ROWS = "Eq. 6, in both rows"
MAGIC = "MagicClothing-like"
MAGIC_JOINT = "MagicClothing-like, joint"
IMAG = "IMAGDressing-like"
STABLE = "StableGarment-like"
FASTFIT = "FastFit-like, cached"
FASTFIT_UNCACHED = "FastFit-like, no cache"

COUNTED = {
    "base": "SD1.5, two plain rows.",
    OURS: "K', V' cached; full-size garments; Dressing-Attention in the conditional row only, heads not widened.",
    OURS_NULL: "the same with a null token: one more key, and every head of Q, K', V' eight columns wider.",
    OURS_HALF: "garments at half the height and half the width, a quarter of the tokens.",
    OURS_HALF_NULL: "the same with a null token.",
    FOREGROUND: "full-size garments of which half the tokens are kept at every site.",
    REFERENCE: f"no file: K, V of all tokens at {LEVELS} levels of noise, read once; one softmax over them and the picture's own, heads "
    "widened, at the decoder's sites of the conditional row.",
    REFERENCE_FOREGROUND: "the same with half the tokens, as a garment that half fills its picture has it.",
    AS_RUN: "with a null token, the garments' own tokens, read in crops; computed for the share of queries, and of steps, "
    "that was recorded in the doll's world, the mean over 30 steps of which two are whole.",
    AS_RUN_ALL: "the same with all tokens of the garments' whole pictures.",
    AS_RUN_HALF: "as the first, half the height and half the width.",
    REFERENCE_AS_RUN: "the garments' own tokens, computed for the share of queries that was recorded, in every step.",
    REFERENCE_AS_RUN_HALF: "the same, half the height and half the width.",
    FEATURES: "ours, but the features are kept and every step projects K', V' again.",
    BOTH_ROWS: "ours, but the unconditional row attends to garments as well.",
    MAGIC: "hidden states of a U-Net copy join each row's sequence as queries, keys and values; the garment half is cut off.",
    MAGIC_JOINT: "the same with a third row for joint guidance.",
    IMAG: "hidden states of a U-Net copy, run once on two rows; conditional row only, K', V' projected every step.",
    STABLE: "a U-Net copy runs in every step; mid and up layers of the conditional row run again with its hidden states.",
    FASTFIT: "no text, so a base of its own; half-size garments encoded once on two rows; their keys extend both rows'.",
    FASTFIT_UNCACHED: "the same, encoding in every step.",
}
"""Scheme -> what is counted for it."""


@dataclass(frozen=True)
class Cost:
    """What one scheme costs for one number of garments, in FLOP.

    step: one denoising step. once: before the first step, all garments. base: one step of the same U-Net undressed.
    """

    scheme: str
    garments: int
    step: int
    once: int
    base: int

    @property
    def over_base(self) -> float:
        """What a step adds to its base, in per cent."""
        return 100 * (self.step / self.base - 1)

    @property
    def total_over_base(self) -> float:
        """What `STEPS` steps and the work before them add, in per cent."""
        return 100 * ((STEPS * self.step + self.once) / (STEPS * self.base) - 1)


def flops(run: Callable[[], object]) -> int:
    """FLOPs of a call. On meta tensors attention decomposes into its two products, so the counter sees it."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


class Meter:
    """Counts SD1.5 at 768x576: its rows under a scheme, and what a garment passes once.

    A row under a scheme is the undressed row with the cost of its sites exchanged: nothing else knows of garments.
    """

    def __init__(self) -> None:
        with torch.device("meta"):
            self.unet = UNet2DConditionModel(**SD15.to_diffusers())
        install(self.unet)

    @cached_property
    def plain_row(self) -> int:
        """One row of the undressed U-Net."""
        text = torch.empty(1, POSITIONS, SD15.cross_attention_dim, device="meta")
        timestep = torch.zeros(1, device="meta")
        return flops(lambda: self.unet(_latent(FULL), timestep, encoder_hidden_states=text))

    @property
    def base(self) -> int:
        """One step of the undressed U-Net."""
        return 2 * self.plain_row

    def row_as_run(self, layer: Callable[[Garments], Layer], garments: Garments, run: Recorded) -> int:
        """One row where `layer` is computed for a share of the queries, which meet a share of the garments' tokens, by site; the
        others attend to the picture alone.
        """
        more = 0.0
        for site in SD15.sites:
            share = run.shares[site.key]
            met = replace(garments, kept=garments.kept * share.of_tokens)
            more += share.computed * (self._sites(layer(met), [site]) - self._sites(schemes.plain, [site]))
        return self.plain_row + round(more)

    def row(self, layer: Layer) -> int:
        """One row whose self-attention is `layer`."""
        return self.plain_row + self.added(layer)

    def added(self, layer: Layer) -> int:
        """What `layer` costs more than plain self-attention, over all sites."""
        return self._sites(layer) - self._plain_sites

    def textless_row(self, size: tuple[int, int]) -> int:
        """One row of the undressed U-Net without its cross-attention."""

        def run() -> None:
            with torch.enable_grad():  # without gradients a pass ends at the last site
                garment_features(self.unet, _latent(size), GarmentsRole({}, "attn_input"))

        return flops(run)

    def garments_net(self, size: tuple[int, int]) -> int:
        """One garment's pass through GarmentsNet, with its LoRAs."""
        return flops(lambda: garment_features(self.unet, _latent(size), GarmentsRole(_loras(), "attn_input")))

    def cropped_net(self, size: tuple[int, int], run: Recorded) -> int:
        """The same of the part of its canvas in which a garment lies: attention goes with the square of the tokens, all else with
        their number, which two counts tell apart.
        """
        whole, quarter = self.garments_net(size), self.garments_net((size[0] // 2, size[1] // 2))
        linear = (16 * quarter - whole) / 3
        return round(linear * run.crop + (whole - linear) * run.squared)

    def reading(self, size: tuple[int, int]) -> int:
        """One garment's pass of reference mode, at one level of noise, up to the last site that is kept."""
        text = torch.empty(1, POSITIONS, SD15.cross_attention_dim, device="meta")
        role = ReadingRole(frozenset(site.key for site in reference_sites(SD15)), silent=False)
        return flops(lambda: read_tokens(self.unet, _latent(size), 0, text, role))

    def projection(self, garments: Garments) -> int:
        """All garments' K' and V' at all sites."""
        features = [features for site in SD15.sites for features in garments.features(site)]
        return flops(lambda: [schemes.project(each) for each in features])

    @cached_property
    def _plain_sites(self) -> int:
        return self._sites(schemes.plain)

    def _sites(self, layer: Layer, sites: Sequence[AttentionSite] = SD15.sites) -> int:
        def run() -> None:
            for site in sites:
                height, width = site.grid(*FULL)
                image = torch.empty(1, height * width, site.channels, device="meta")
                layer(site, self.unet.get_submodule(site.diffusers_name), image)

        return flops(run)


def _latent(size: tuple[int, int]) -> torch.Tensor:
    return torch.empty(1, 4, *size, device="meta")


def _loras() -> dict[str, dict[str, Lora]]:
    """One garment's LoRAs on q, k, v; under `attn_input` the last site has none."""

    def lora(channels: int) -> Lora:
        down, up = torch.empty(1, RANK, channels, device="meta"), torch.empty(1, channels, RANK, device="meta")
        return down, up, torch.empty(1, device="meta")

    return {site.key: {target: lora(site.channels) for target in "qkv"} for site in SD15.sites[:-1]}


def count(meter: Meter) -> list[Cost]:
    """Every line of the table."""
    base = Cost("base", 0, meter.base, 0, meter.base)
    return [
        base,
        *_as_run(meter),
        *_ours(meter),
        *_reference(meter),
        *_variants(meter),
        *_copies(meter),
        *_fastfit(meter),
    ]


def _ours(meter: Meter) -> list[Cost]:
    kinds = [(OURS, FULL, False), (OURS_NULL, FULL, True), (OURS_HALF, HALF, False), (OURS_HALF_NULL, HALF, True)]
    once = {size: meter.garments_net(size) + meter.projection(Garments(1, size)) for size in (FULL, HALF)}
    costs: list[Cost] = []
    for scheme, size, null_token in kinds:
        for number in NUMBERS:
            layer = partial(schemes.dressed, garments=Garments(number, size), null_token=null_token)
            costs.append(Cost(scheme, number, meter.plain_row + meter.row(layer), number * once[size], meter.base))
    return costs


def _reference(meter: Meter) -> list[Cost]:
    """Without a file: each garment passes at every level, once."""
    costs: list[Cost] = []
    for scheme, kept in ((REFERENCE, 1.0), (REFERENCE_FOREGROUND, 0.5)):
        for number in NUMBERS:
            row = meter.row(partial(schemes.by_reference, garments=Garments(number, kept=kept)))
            once = number * LEVELS * meter.reading(FULL)
            costs.append(Cost(scheme, number, meter.plain_row + row, once, meter.base))
    return costs


class Share(NamedTuple):
    """computed: of a site's queries. met: the same, times the share of the garments' tokens that they met."""

    computed: float
    met: float

    @property
    def of_tokens(self) -> float:
        """Which share of the garments' tokens a query that is computed meets."""
        return self.met / self.computed if self.computed else 1.0


@dataclass(frozen=True)
class Recorded:
    """What a run in the doll's world computed, mean over outfits (docs/evidence/worn.json).

    shares: by site of SD1.5, mean over the 30 steps of a picture. of_later_steps: the same of steps that compute, behind the
    whole ones. kept: of a garment's tokens. crop, squared: which share of its canvas is read, and the square of that.
    """

    shares: Mapping[str, Share]
    of_later_steps: Mapping[str, Share]
    kept: float
    crop: float
    squared: float

    @classmethod
    def of(cls, arm: str) -> Recorded:
        """Of SD1.5's finer grids the share is what the doll's maps would leave to compute there, by the same rule."""
        figures = {what: one[0] for what, one in json.loads(WORN.read_text())["arms"][arm]["figures"].items()}
        finest = {"down": ["down_1_0"], "up": ["up_1_0", "up_1_1"]}
        coarsest = {"down": ["down_2_0"], "mid": ["mid_0_0"], "up": ["up_0_0", "up_0_1"]}
        shares, later = dict[str, Share](), dict[str, Share]()
        for site in SD15.sites:
            grid = site.grid(*FULL)
            alike = (coarsest if grid[0] <= 12 else finest)[site.stage]
            names = [finer(one, grid) if grid in FINER else one for one in alike]
            told = [[figures.get(f"{which} at {name}, free", 0.0) for name in names] for which in Share._fields]
            means = [sum(of_sites) / len(names) for of_sites in told]
            # Without the first steps, which are whole.
            steps = Share(*((mean * RECORDED_STEPS - WHOLE_STEPS) / (RECORDED_STEPS - WHOLE_STEPS) for mean in means))
            later[site.key] = Share(*(ARMS[arm].every * share for share in steps))
            shares[site.key] = Share(*((WHOLE_STEPS + share * (STEPS - WHOLE_STEPS)) / STEPS for share in steps))
        crops = [figures[what] for what in ("canvas read", "canvas read, squared")]
        return cls(shares, later, figures["tokens kept"], *crops)

    def garments(self, size: tuple[int, int]) -> Garments:
        """Two, with their own tokens."""
        return Garments(2, size, self.kept)


def _as_run(meter: Meter) -> list[Cost]:
    """Two garments as artists have them."""
    costs: list[Cost] = []
    run = Recorded.of(WITH_FILE)
    for scheme, size in ((AS_RUN, FULL), (AS_RUN_ALL, FULL), (AS_RUN_HALF, HALF)):
        garments = Garments(2, size) if scheme == AS_RUN_ALL else run.garments(size)
        row = meter.row_as_run(lambda met: partial(schemes.dressed, garments=met, null_token=True), garments, run)
        net = meter.garments_net(size) if scheme == AS_RUN_ALL else meter.cropped_net(size, run)
        costs.append(Cost(scheme, 2, meter.plain_row + row, 2 * net + meter.projection(garments), meter.base))
    run = Recorded.of(BY_REFERENCE)
    for scheme, size in ((REFERENCE_AS_RUN, FULL), (REFERENCE_AS_RUN_HALF, HALF)):
        row = meter.row_as_run(lambda met: partial(schemes.by_reference, garments=met), run.garments(size), run)
        costs.append(Cost(scheme, 2, meter.plain_row + row, 2 * LEVELS * meter.reading(size), meter.base))
    return costs


def _variants(meter: Meter) -> list[Cost]:
    """Two full-size garments, one decision of ours taken otherwise."""
    two, half_kept = Garments(2), Garments(2, kept=0.5)
    foreground = meter.row(partial(schemes.dressed, garments=half_kept, null_token=False))
    from_features = meter.row(partial(schemes.dressed_from_features, garments=two))
    dressed = meter.row(partial(schemes.dressed, garments=two, null_token=False))
    encode = 2 * meter.garments_net(FULL)
    return [
        Cost(FOREGROUND, 2, meter.plain_row + foreground, encode + meter.projection(half_kept), meter.base),
        Cost(FEATURES, 2, meter.plain_row + from_features, encode, meter.base),
        Cost(BOTH_ROWS, 2, 2 * dressed, encode + meter.projection(two), meter.base),
    ]


def _copies(meter: Meter) -> list[Cost]:
    """One garment, read by a copy of the U-Net."""
    one, plain = Garments(1), meter.plain_row
    concatenated = meter.row(partial(schemes.concatenated, garments=one))
    from_features = meter.row(partial(schemes.dressed_from_features, garments=one))
    called_twice = meter.row(partial(schemes.called_twice, garments=one))
    return [
        Cost(MAGIC, 1, 2 * concatenated, plain, meter.base),
        Cost(MAGIC_JOINT, 1, 3 * concatenated, plain, meter.base),
        Cost(IMAG, 1, plain + from_features, 2 * plain, meter.base),
        Cost(STABLE, 1, plain + called_twice + plain, 0, meter.base),
    ]


@dataclass(frozen=True)
class Kept:
    """What Apply keeps of garments in 16 bit, in MB. own_tokens: half of each garment's tokens are its own, and alone count."""

    mode: str
    size: str
    garments: int
    all_tokens: float
    own_tokens: float


def kept() -> list[Kept]:
    """For each mode, size and number of garments."""

    def of_file(garments: Garments) -> int:
        return sum(_bytes(schemes.laid_out(site, garments, null_token=True, maps=True)) for site in SD15.sites)

    def of_reference(garments: Garments) -> int:
        return LEVELS * sum(_bytes(schemes.read(site, garments)) for site in reference_sites(SD15))

    rows: list[Kept] = []
    for mode, of in (("with a file", of_file), ("by reference", of_reference)):
        for size, name in ((FULL, "full"), (HALF, "half")):
            for number in (*NUMBERS, MOST_GARMENTS):
                every, own = (of(Garments(number, size, share)) / 1e6 for share in (1.0, 0.5))
                rows.append(Kept(mode, name, number, round(every, 1), round(own, 1)))
    return rows


def _bytes(garments: GarmentKV) -> int:
    return 2 * (garments.key.numel() + garments.value.numel())


def kept_table(rows: list[Kept]) -> str:
    """As Markdown."""
    lines = ["| mode | size | N | MB, all tokens | MB, half of them |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.mode} | {row.size} | {row.garments} | {row.all_tokens:.0f} | {row.own_tokens:.0f} |" for row in rows
    ]
    return "\n".join(lines)


def _fastfit(meter: Meter) -> list[Cost]:
    """Half-size garments in a U-Net without text, which is therefore their base."""
    row, encode = meter.textless_row(FULL), 2 * meter.textless_row(HALF)
    added = {number: meter.added(partial(schemes.extended, garments=Garments(number, HALF))) for number in NUMBERS}
    step = {number: 2 * (row + added[number]) for number in NUMBERS}
    return [
        *(Cost(FASTFIT, number, step[number], number * encode, 2 * row) for number in NUMBERS),
        *(Cost(FASTFIT_UNCACHED, number, step[number] + number * encode, 0, 2 * row) for number in NUMBERS),
    ]


def table(costs: list[Cost]) -> str:
    """The costs as text, in TFLOP and per cent, and what is counted for each scheme."""
    wide = max(map(len, COUNTED))
    lines = [f"{'scheme':{wide}}  N    step  over base    once  {STEPS} steps over base"]
    for cost in costs:
        numbers = f"{cost.garments}  {cost.step / 1e12:6.3f}  {cost.over_base:+7.1f} %  {cost.once / 1e12:6.3f}"
        lines.append(f"{cost.scheme:{wide}}  {numbers}  {cost.total_over_base:+16.1f} %")
    return "\n".join([*lines, "", *(f"{scheme:{wide}}  {counted}" for scheme, counted in COUNTED.items())])


def markdown(costs: list[Cost]) -> str:
    """The same as a table of the page."""
    usual = costs[0].base
    lines = ["| scheme | N | TFLOP a step | over base | once | 30 steps over base |", "|---|---|---|---|---|---|"]
    before = ""
    for cost in costs:
        name = "" if cost.scheme == before else cost.scheme
        if name and cost.base != usual:
            name += f" (base {cost.base / 1e12:.3f})"
        before, step = cost.scheme, f"{cost.step / 1e12:.3f}"
        once = f"{cost.once / 1e12:.3f}" if cost.once else "in the step"
        shown = [name, str(cost.garments), step, f"{cost.over_base:+.1f} %", once, f"{cost.total_over_base:+.1f} %"]
        lines.append(f"| {' | '.join(shown if cost.garments else [*shown[:3], '', '', ''])} |")
    return "\n".join(lines)


def written(page: str, tables: Mapping[str, str]) -> str:
    """A page with its tables between the lines that are theirs."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: written by `python -m benchmarks.flops --write` -->", f"<!-- end of {name} -->"
        head, tail = around(page, begin, end, PAGE.name, "the tables")
        page = f"{head}{begin}\n\n{table}\n\n{end}{tail}"
    return page


def as_json(costs: list[Cost], banks: list[Kept]) -> dict[str, Any]:
    """What flops.json holds; all numbers are FLOP."""
    return {
        "unet": "SD1.5 at 768x576, 2 FLOP per multiply-add",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "costs": [asdict(cost) for cost in costs],
        "kept": [asdict(row) for row in banks],
    }


def main() -> None:
    """Count, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"also write {RESULT.name} and {PAGE.name}")
    write = parser.parse_args().write
    costs, banks = count(Meter()), kept()
    print(f"SD1.5 at 768x576, TFLOP (2 FLOP per multiply-add); torch {torch.__version__}, meta tensors.")
    print(f"A step is one conditional and one unconditional row; `once` comes before the first of {STEPS} steps.\n")
    print(table(costs))
    print(f"\nMB kept of garments for 768 x 576 in 16 bit\n\n{kept_table(banks)}")
    if write:
        RESULT.write_text(json.dumps(as_json(costs, banks), indent=1) + "\n")
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(written(page, {"steps": markdown(costs), "kept": kept_table(banks)}), encoding="utf-8")


if __name__ == "__main__":
    main()
