# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrites docs/evidence/base.md: what the paper doll's base model draws in ComfyUI, and how well.

`python -m benchmarks.base_evidence RUN ...` takes the folders of the runs whose curves it shows, in their order. The pictures are
sampled by the real server; everything else is measured on people and garments that no training ever showed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfyui_anydressing.anydressing_core.defaults import GUIDANCE, STEPS
from comfyui_anydressing.anydressing_core.pixels import Pixels, as_unit
from comfyui_anydressing.anydressing_core.safetensors_header import read_header
from comfyui_anydressing.dev.client import Prompt
from comfyui_anydressing.dev.comfyui import CHECKOUT, find_or_fetch
from comfyui_anydressing.dev.server import BASE, ComfyServer, has_accelerator
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.paper_doll.bench import evidence
from comfyui_anydressing.training.paper_doll.networks.parser import load_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import load_recogniser
from comfyui_anydressing.training.paper_doll.world import Labels, Recipe, Sample, draw_recipe, sample
from comfyui_anydressing.training.sheets import INK, PAPER, grid
from PIL import Image, ImageDraw, ImageFont, ImageOps

DEMO = CHECKOUT / "demo"
FOLDER = CHECKOUT / "docs" / "evidence"
SIZE = (384, 288)  # height, width
PROMPTS, SEEDS = range(5000, 5024), (1, 2)
HELD_OUT = range(200)  # whose renders are measured
RENDERS, RECONSTRUCTIONS = "held-out renders", "their reconstructions"  # columns of the page


def main(runs: list[Path]) -> int:
    """Sample, measure and write the page."""
    recipes = [draw_recipe(seed, "held_out") for seed in PROMPTS]
    pictures = sampled([recipe.caption for recipe in recipes])
    FOLDER.mkdir(parents=True, exist_ok=True)
    sheet(recipes, pictures).save(FOLDER / "base_samples.jpg", quality=88)

    print("Painting held-out people", flush=True)
    real = [sample(seed, "held_out", SIZE) for seed in HELD_OUT]
    base = load_base(DEMO / "paper_doll_base.safetensors")
    print("Measuring", flush=True)
    autoencoder_sheet(base, real[:6]).save(FOLDER / "base_autoencoder.jpg", quality=90)
    found = measured(base, real, recipes, pictures)
    curves = [curve(run) for run in runs]
    if curves:
        plot(curves).save(FOLDER / "base_curves.png")
    (FOLDER / "base.md").write_text(page(found, facts(), bool(curves)), encoding="utf-8")
    print(f"Written: {(FOLDER / 'base.md').relative_to(CHECKOUT)}")
    return 0


@dataclass(frozen=True)
class Found:
    """What was measured. columns: by heading, then by row. iou: by slot. psnr: of people and of flat-lays, in dB."""

    columns: dict[str, dict[str, evidence.Score]]
    flat_lays: dict[str, evidence.Score]
    iou: dict[str, float]
    psnr: dict[str, float]


def measured(base: Any, real: list[Sample], recipes: list[Recipe], pictures: list[list[Pixels]]) -> Found:
    """What the judge and the parser find in renders, in their reconstructions and in samples."""
    judge = load_recogniser(DEMO / "paper_doll_recogniser_judge.safetensors")
    parser = load_parser(DEMO / "paper_doll_parser.safetensors")
    truths = [one.labels for one in real]
    pictures_of = {
        RENDERS: ([one.person for one in real], truths),
        RECONSTRUCTIONS: ([evidence.reconstructed(base, one.person) for one in real], truths),
        "samples": ([picture for pair in pictures for picture in pair], repeated([one.labels for one in recipes])),
    }
    columns: dict[str, dict[str, evidence.Score]] = {}
    found = {heading: [parser.parse(as_unit(one)) for one in people] for heading, (people, _) in pictures_of.items()}
    for heading, (people, labels) in pictures_of.items():
        columns[heading] = {
            **evidence.recognised(judge, people, labels),
            "garment kind, where the parser finds it": evidence.kinds_recognised(judge, people, labels, found[heading]),
        }
    true = [{slot: torch.from_numpy(worn.mask) for slot, worn in one.garments.items()} for one in real]
    for heading in (RENDERS, RECONSTRUCTIONS):
        people, _ = pictures_of[heading]
        columns[heading]["garment kind, by its true mask"] = evidence.kinds_recognised(judge, people, truths, true)
    psnr = {
        "people": evidence.autoencoder_psnr(base, [one.person for one in real]),
        "flat-lays": evidence.autoencoder_psnr(base, [lay.flat_lay for one in real for lay in one.garments.values()]),
    }
    iou = evidence.places_iou(found[RENDERS], real)
    return Found(columns, evidence.garments_recognised(judge, real), iou, psnr)


def repeated(truths: Sequence[Labels]) -> list[Labels]:
    """Every truth once for each seed."""
    return [labels for labels in truths for _ in SEEDS]


# ---- samples --------------------------------------------------------------------------------------------------------


def sampled(captions: Sequence[str]) -> list[list[Pixels]]:
    """A picture for each caption and seed, by ComfyUI's own nodes on the demo checkpoint."""
    flags = [] if has_accelerator() else ["--use-pytorch-cross-attention"]
    pictures: list[list[Pixels]] = []
    with ComfyServer(find_or_fetch(), BASE, flags=flags) as server:
        for number, caption in enumerate(captions):
            print(f"Sampling {number + 1} of {len(captions)}: {caption}", flush=True)
            made = [server.run(graph(caption, seed)).check().images["7"][0] for seed in SEEDS]
            pictures.append([np.array(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in made])
    return pictures


def graph(caption: str, seed: int) -> Prompt:
    """ComfyUI's plainest workflow, with our checkpoint."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "1": node("AnyDressingDemoCheckpoint"),
        "2": node("CLIPTextEncode", clip=["1", 1], text=caption),
        "3": node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": node("EmptyLatentImage", width=SIZE[1], height=SIZE[0], batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=seed,
            steps=STEPS,
            cfg=GUIDANCE,
            sampler_name="ddim",
            scheduler="normal",
            denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="anydressing_base_evidence"),
    }


# ---- pictures of the page -------------------------------------------------------------------------------------------

CELL, GAP, WORDS = (144, 192), 10, 44  # width and height, pixels


def sheet(recipes: Sequence[Recipe], pictures: Sequence[Sequence[Pixels]], columns: int = 6) -> Image.Image:
    """Both pictures of every prompt side by side, the prompt below."""
    return ImageOps.expand(grid([_cell(*one) for one in zip(recipes, pictures, strict=True)], columns, GAP), GAP, PAPER)


def _cell(recipe: Recipe, pair: Sequence[Pixels]) -> Image.Image:
    small = [Image.fromarray(picture).resize(CELL, Image.Resampling.LANCZOS) for picture in pair]
    words = Image.new("RGB", (CELL[0] * len(pair), WORDS), PAPER)
    text = "\n".join(textwrap.wrap(recipe.caption, 50)[:3])
    ImageDraw.Draw(words).multiline_text((0, 3), text, INK, ImageFont.load_default(11), spacing=1)
    return grid([grid(small, len(small)), words], 1)


def autoencoder_sheet(base: Any, people: Sequence[Sample]) -> Image.Image:
    """People and their garments, as painted above, as they come back below."""
    pictures = [one.person for one in people] + [one.garments["upper"].flat_lay for one in people[:3]]
    decoded = [evidence.reconstructed(base, picture) for picture in pictures]
    return grid([Image.fromarray(picture) for picture in (*pictures, *decoded)], len(pictures))


def curve(run: Path) -> tuple[str, list[tuple[int, float]]]:
    """The loss of a run over its steps, in means of fifty."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {event["step"]: event["loss"] for event in events if event["event"] == "step"}
    steps = sorted(losses)
    groups = [steps[start : start + 50] for start in range(0, len(steps), 50)]
    return run.name, [(group[-1], float(np.mean([losses[step] for step in group]))) for group in groups]


def plot(curves: Sequence[tuple[str, list[tuple[int, float]]]], size: tuple[int, int] = (420, 300)) -> Image.Image:
    """Each curve in a frame of its own; the loss on a logarithmic scale."""
    width, height = size
    canvas = Image.new("RGB", (width * len(curves), height), PAPER)
    pen, small = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for place, (name, points) in enumerate(curves):
        left, right, top, bottom = place * width + 56, (place + 1) * width - 18, 40, height - 34
        lows = np.log([value for _, value in points])
        low, high, last = float(lows.min()), float(lows.max()) + 1e-6, points[-1][0]
        pen.rectangle((left, top, right, bottom), "white", "#c9c5bd")
        pen.text((left, 14), f"{name}: loss", INK, ImageFont.load_default(16))
        line = [
            (left + (right - left) * step / last, bottom - (bottom - top) * (float(np.log(value)) - low) / (high - low))
            for step, value in points
        ]
        pen.line(line, "#2f6db5", 2)
        pen.text((left - 6, top), f"{np.exp(high):.3g}", INK, small, anchor="rt")
        pen.text((left - 6, bottom), f"{np.exp(low):.3g}", INK, small, anchor="rb")
        pen.text((right, bottom + 6), f"step {last}", INK, small, anchor="rt")
    return canvas


# ---- the page -------------------------------------------------------------------------------------------------------


def facts() -> dict[str, str]:
    """What the base model's file says of itself."""
    return dict(read_header(DEMO / "paper_doll_base.safetensors").metadata)


def page(found: Found, about: dict[str, str], curves: bool) -> str:
    """docs/evidence/base.md."""
    widths = "-".join(map(str, json.loads(about["unet_config"])["block_out_channels"]))
    sizes = {path.name: path.stat().st_size / 2**20 for path in sorted(DEMO.glob("*.safetensors"))}
    lines = [
        "# The paper doll's base model",
        "",
        "<!-- Written by `python -m benchmarks.base_evidence RUN ...`; do not edit. -->",
        "",
        f"`demo/paper_doll_base.safetensors`: U-Net {widths}, whose last run took {about['steps']} steps.",
        "",
        f"{len(PROMPTS)} captions of held-out people, seeds {SEEDS[0]} and {SEEDS[1]}, sampled by ComfyUI's own KSampler",
        f"(ddim, normal, {STEPS} steps, cfg {GUIDANCE:g}, {SIZE[1]} x {SIZE[0]}):",
        "",
        "![Two pictures for each of 24 prompts](base_samples.jpg)",
        "",
        *_recognised(found),
        *_autoencoder(found),
    ]
    if curves:
        lines += ["## How it was trained", "", "![The losses over the steps](base_curves.png)", ""]
    lines += ["## Files", "", *(f"- `demo/{name}`: {size:.1f} MiB" for name, size in sizes.items()), ""]
    return "\n".join(lines)


def _recognised(found: Found) -> list[str]:
    places = ", ".join(f"{slot} {one:.2f}" for slot, one in found.iou.items())
    return [
        "## What is recognised",
        "",
        "By `paper_doll_recogniser_judge`, on which nothing is trained. A garment's kind is chosen among those of its slot: at one",
        "look at the whole picture, and from the garment alone, cut out as `paper_doll_parser` finds it or by its true mask, which",
        f"samples do not have. The parser's IoU on these renders: {places}.",
        "",
        evidence.table(found.columns),
        "",
        f"The judge on {found.flat_lays['kind'].of} held-out flat-lays:",
        "",
        evidence.table({"held-out flat-lays": found.flat_lays}),
        "",
    ]


def _autoencoder(found: Found) -> list[str]:
    people, flat_lays = found.psnr["people"], found.psnr["flat-lays"]
    return [
        "## The autoencoder",
        "",
        f"On {len(HELD_OUT)} held-out people: **{people:.1f} dB**; on their flat-lays: **{flat_lays:.1f} dB**.",
        "Painted above, decoded below:",
        "",
        "![People and garments before and after the autoencoder](base_autoencoder.jpg)",
        "",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base_evidence", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a run folder whose curve is shown")
    sys.exit(main(parser.parse_args().runs))
