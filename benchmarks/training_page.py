# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/training-memory.md: what the counting and the timing of the training step say."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import torch
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.run.needs import GIB, MARGIN, Presets, StepMemory

from .training_counts import BATCHES, StepPart
from .training_speed import Measurement

GOAL = 10e9  # bytes, batch 1 with texture losses

TEXTURE_SHARE = 351 / 1000
"""How many samples have t <= 350 and with it texture losses."""


def page(
    presets: dict[str, TrainConfig],
    table: Presets,
    flops: dict[str, int],
    batches: dict[tuple[int, bool], StepMemory],
    counted: list[StepPart],
    of_half: list[StepPart],
    measured: Measurement | None,
) -> str:
    """docs/training-memory.md. counted: for garments that fill their pictures. of_half: for those that lie in half of them."""
    sections = [
        _INTRODUCTION.format(versions=versions(), margin=MARGIN),
        _presets_section(presets, table, flops),
        goal(table),
        _batches_section(batches),
        _parts_section(counted, of_half),
        measured_section(measured),
    ]
    return "\n\n".join(sections) + "\n"


_INTRODUCTION = """# What a training step needs

<!-- Written by `python -m benchmarks.training --write`; do not edit. -->

SD1.5 at 768x576, two garments a person, LoRA rank 64. **Everything before the last section is computed**: the trainer's
own step runs forward and backward on PyTorch's fake tensors, which have shapes and lifetimes but no content, and every tensor
is counted from its making to its freeing ({versions}). Attention counts as a fused kernel that stores no L x L matrix. Frozen networks compute in the stated precision without autocast, which would keep the norms'
results in fp32; the adapter, its gradients and AdamW are in fp32. With checkpointing both the U-Net and the autoencoder's
decoder compute their blocks again. Not counted: CUDA's context, the kernels' workspaces, the allocator's gaps. For these
a card should have {margin:g} times the peak."""


def _presets_section(presets: dict[str, TrainConfig], table: Presets, flops: dict[str, int]) -> str:
    lines = [
        "## The presets",
        "",
        "GiB, for garments that fill their pictures; of others less is read. The peak is frozen + trained + held + the larger",
        "of working and texture. `anydressing doctor` reads this table too (training/presets/memory.json).",
        "",
        "| preset | precision | batch | checkpointing | frozen | trained | held | working | texture | **peak** | card | TFLOP |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, by_precision in table.items():
        config = presets[name]
        for precision, memory in by_precision.items():
            flag = "yes" if config.memory.checkpointing else "no"
            numbers = (memory.frozen, memory.trained, memory.held, memory.working, memory.texture)
            cells = " | ".join(f"{number:.2f}" for number in numbers)
            lines.append(
                f"| {name} | {precision} | {config.data.batch} | {flag} | {cells} "
                f"| **{memory.peak:.2f}** | {memory.needed:.1f} | {flops[name] / 1e12:.1f} |"
            )
    lines += [
        "",
        "- **frozen**: U-Net, autoencoder, text encoder and DISTS' VGG16. **trained**: the adapter, its gradients and AdamW.",
        "- **held**: the batch and the activations that wait for the backward pass.",
        "- **working**: the most that a pass has beyond these; with checkpointing, the largest region computed again.",
        "- **texture**: one decode with its gradient and both pictures in DISTS. In two phases people are judged one at a",
        "  time, so it does not grow with the batch.",
        "- **TFLOP**: of a micro-batch whose people all have texture losses, what is computed again included.",
    ]
    return "\n".join(lines)


def goal(table: Presets) -> str:
    """Whether one person with texture losses fits into what we promise."""
    peak = table["12gb"]["bf16"].peak * GIB
    verdict = "kept" if peak <= GOAL else "MISSED"
    return f"Goal: at most {GOAL / 1e9:g} GB at batch 1 with texture losses. Computed: {peak / 1e9:.2f} GB. {verdict}."


def _batches_section(batches: dict[tuple[int, bool], StepMemory]) -> str:
    lines = ["## By batch", "", "Peak in GiB, bf16, texture losses in two phases.", ""]
    lines += ["| checkpointing | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |", "|---" * 5 + "|"]
    for checkpointing in (False, True):
        cells = " | ".join(f"{batches[batch, checkpointing].peak:.2f}" for batch in BATCHES)
        lines.append(f"| {'yes' if checkpointing else 'no'} | {cells} |")
    return "\n".join(lines)


def _parts_section(counted: list[StepPart], of_half: list[StepPart]) -> str:
    lines = [
        "## Where it goes",
        "",
        "One person, no checkpointing, bf16. TFLOP count 2 FLOP per multiply-add of linear layers, convolutions and",
        "attention. The undressed U-Net passes a gradient to its input, the least that any training through it costs.",
        "",
        "| part | forward, TFLOP | backward, TFLOP | held activations, GiB |",
        "|---|---|---|---|",
    ]
    base, encoded, attention, texture = counted
    less = [replace(part, name="the same, garments that lie in half of their pictures") for part in of_half]
    for part in (base, encoded, less[1], attention, less[2], texture):
        lines.append(
            f"| {part.name} | {part.forward / 1e12:.2f} | {part.backward / 1e12:.2f} | {part.held / GIB:.2f} |"
        )
    mean, mean_of_half = (_mean(parts) for parts in (counted, of_half))
    again = sum(part.forward for part in counted[:-1])
    lines += [
        "",
        f"A step takes {mean / 1e12:.1f} TFLOP a person on average, since {TEXTURE_SHARE:.1%} of the timesteps have texture",
        f"losses, {mean_of_half / 1e12:.1f} where garments lie in half of their pictures; that is {mean / (base.forward + base.backward):.1f} and "
        f"{mean_of_half / (base.forward + base.backward):.1f} times the undressed U-Net's.",
        f"Checkpointing computes up to {again / 1e12:.1f} TFLOP of the U-Net's forward passes again.",
    ]
    return "\n".join(lines)


def _mean(counted: list[StepPart]) -> float:
    """FLOP a person, in the mean over timesteps."""
    *dressed, texture = counted
    return sum(part.forward + part.backward for part in dressed) + TEXTURE_SHARE * (texture.forward + texture.backward)


def measured_section(measured: Measurement | None) -> str:
    lines = ["## Measured", ""]
    if measured is None:
        lines += ["Nothing has been measured on a GPU yet. Where there is one:", ""]
        return "\n".join([*lines, "    .venv/bin/python -m benchmarks.training --write --measure"])
    lines += [
        "    .venv/bin/python -m benchmarks.training --write --measure",
        "",
        f"{measured.device}; {measured.networks}. Samples a second of the whole step, texture losses of one person a step",
        "included, the optimizer's step left out; `base` is the undressed U-Net, measured in the same run. The share is that",
        f"of a large matrix product on the same device, {measured.product / 1e12:.2f} TFLOP/s.",
        "",
        "| batch | checkpointing | samples/s | base samples/s | base : full | peak GiB | TFLOP/s | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for speed in measured.speeds:
        flag = "yes" if speed.checkpointing else "no"
        lines.append(
            f"| {speed.batch} | {flag} | {speed.full:.2f} | {speed.base:.2f} | {speed.base / speed.full:.2f} "
            f"| {speed.peak / GIB:.2f} | {speed.flops / 1e12:.2f} | {speed.flops / measured.product:.1%} |"
        )
    lines += [
        "",
        "One person, part by part, forward and backward, nothing computed again:",
        "",
        "| part | samples/s | peak GiB | TFLOP/s | share |",
        "|---|---|---|---|---|",
    ]
    for part in measured.parts:
        lines.append(
            f"| {part.name} | {part.samples:.2f} | {part.peak / GIB:.2f} | {part.flops / 1e12:.2f} "
            f"| {part.flops / measured.product:.1%} |"
        )
    kernels = ", ".join(f"{width}: `{name}`" for width, name in measured.kernels.items())
    return "\n".join([*lines, "", f"Attention kernels by head width: {kernels}."])


def versions() -> str:
    return f"torch {torch.__version__.partition('+')[0]}, diffusers {diffusers.__version__}"
