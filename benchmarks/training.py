# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training step costs: memory and FLOPs by counting, and on a GPU its speed.

`python -m benchmarks.training` counts and prints; `--write` also writes the presets' table, which `anydressing doctor`
reads, and docs/training-memory.md. `--measure` times the step on this machine's GPU; with `--tiny`, or without a GPU, it
times small networks, which rehearses the measuring and says nothing about SD1.5.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.training.run.config import TrainConfig
from comfyui_anydressing.training.run.needs import GIB, MARGIN, Presets, StepMemory, write_table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .rehearsal import (
    GARMENTS,
    LiveMemory,
    Networks,
    Rehearsal,
    fake_rehearsal,
    preset_config,
    sd15_networks,
    sd15_presets,
    step_memory,
    tiny_networks,
)

PAGE = Path(__file__).parents[1] / "docs" / "training-memory.md"
GOAL = 10e9  # bytes, batch 1 with texture losses
BATCHES = (1, 2, 4, 8)
HEAD_WIDTHS = (40, 48, 80, 88, 160, 168)
"""SD1.5's, and what they grow to with the spare columns of Dressing-Attention."""
TINY = ("data.resolution=[64, 48]", "adapter.rank=4")
TEXTURE_SHARE = 351 / 1000
"""How many samples have t <= 350 and with it texture losses."""

# ---- counting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One part of a step for one person, nothing computed again. forward, backward: FLOP. held: bytes."""

    name: str
    forward: int
    backward: int
    held: int


def counter() -> FlopCounterMode:
    """Counts 2 FLOP per multiply-add of linear layers, convolutions and attention, also the CPU's attention."""
    aten = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def flops_of(run: Callable[[], object]) -> int:
    """FLOPs of a call, backward passes included."""
    with counter() as count:
        run()
    return count.get_total_flops()


BASE, GARMENTS_NET = "U-Net, undressed", f"GarmentsNet, {GARMENTS} garments"
DRESSED, TEXTURE = "dressed step without texture", "L_texture: decode, DISTS, L_hf"


def calls(rehearsal: Rehearsal) -> dict[str, Callable[[], Tensor]]:
    """What a step is made of, each by itself: what it returns is to be passed backwards."""
    batch = rehearsal.batch()

    def garments() -> Tensor:
        sites = rehearsal.model.garments(batch.outfits).values()
        return torch.stack([(site.key.float().sum() + site.value.float().sum()) for site in sites]).sum()

    def texture() -> Tensor:
        latents = torch.randn(batch.noisy[:1].shape, device=batch.noisy.device).requires_grad_()
        return rehearsal.judge(batch, latents, slice(0, 1)).sum()

    return {
        BASE: lambda: undressed(rehearsal),
        GARMENTS_NET: garments,
        DRESSED: lambda: rehearsal.predict(batch)[1],
        TEXTURE: texture,
    }


def parts(config: TrainConfig, networks: Callable[[str], Networks] = sd15_networks) -> list[Part]:
    """Take one person's step apart. Dressing-Attention is what the dressed U-Net has beyond the undressed one."""
    rehearsal = fake_rehearsal(config, networks)
    counted = {name: _part(name, rehearsal, run) for name, run in calls(rehearsal).items()}
    base, encoded, whole = (counted[name] for name in (BASE, GARMENTS_NET, DRESSED))
    attention = Part(
        "Dressing-Attention, L_LDM and L_loc",
        whole.forward - base.forward - encoded.forward,
        whole.backward - base.backward - encoded.backward,
        whole.held - base.held - encoded.held,
    )
    return [base, encoded, attention, counted[TEXTURE]]


def preset_flops(presets: dict[str, TrainConfig]) -> dict[str, int]:
    """FLOP of a preset's micro-batch, what is computed again included, with as many texture losses as it decodes."""
    return {name: flops_of(fake_rehearsal(config, sd15_networks).step) for name, config in presets.items()}


def undressed(rehearsal: Rehearsal) -> Tensor:
    """The frozen U-Net alone, a gradient passing to its input: the least that training anything before it costs."""
    batch = rehearsal.batch()
    noise: Any = rehearsal.networks.unet(
        batch.noisy.requires_grad_(), batch.timestep, encoder_hidden_states=batch.text
    ).sample
    return noise.float().square().mean()


def _part(name: str, rehearsal: Rehearsal, run: Callable[[], Tensor]) -> Part:
    weights = [each for module in (*rehearsal.networks.modules, rehearsal.model) for each in module.parameters()]
    with LiveMemory(weights) as live:
        with counter() as forward:
            loss = run()
        held = live.now
        with counter() as backward:
            loss.backward()
    return Part(name, forward.get_total_flops(), backward.get_total_flops(), held)


def preset_memory(presets: dict[str, TrainConfig]) -> Presets:
    """What each preset needs, in both precisions."""
    table: Presets = {}
    for name, config in presets.items():
        fp16 = preset_config(name, 'memory.precision="fp16"')
        table[name] = {"bf16": step_memory(config).rounded(), "fp16": step_memory(fp16).rounded()}
    return table


def by_batch() -> dict[tuple[int, bool], StepMemory]:
    """(batch, checkpointing) -> what the step needs."""
    return {
        (batch, checkpointing): step_memory(_config(batch, checkpointing))
        for checkpointing in (False, True)
        for batch in BATCHES
    }


def _config(batch: int, checkpointing: bool, *overrides: str) -> TrainConfig:
    flag = str(checkpointing).lower()
    return preset_config("12gb", f"data.batch={batch}", f"memory.checkpointing={flag}", *overrides)


# ---- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """One measured configuration. full, base: samples a second of the whole step and of the undressed U-Net's.

    peak: bytes that PyTorch allocated at most, 0 on a CPU. flops: FLOP a second, what is computed again included.
    """

    batch: int
    checkpointing: bool
    full: float
    base: float
    peak: int
    flops: float


@dataclass(frozen=True)
class PartSpeed:
    """One part of a step for one person, forward and backward, nothing computed again: as in `Speed`."""

    name: str
    samples: float
    peak: int
    flops: float


@dataclass(frozen=True)
class Measurement:
    """product: FLOP a second of a large matrix product, the most that can be hoped for. kernels: head width -> name."""

    device: str
    networks: str
    product: float
    kernels: dict[int, str]
    parts: list[PartSpeed]
    speeds: list[Speed]


def measure(tiny: bool) -> Measurement:
    """Time the step on the GPU, or on the CPU when there is none. Batches that do not fit are left out."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = "bf16" if device.type == "cuda" else "fp32"
    overrides = (f'memory.precision="{precision}"', *(TINY if tiny else ()))
    if device.type == "cpu":
        torch.set_num_threads(1)  # a rehearsal, which other processes on the machine should not stall
    networks = (tiny_networks if tiny else sd15_networks)(precision).fill(device)
    speeds: list[Speed] = []
    for checkpointing in (False, True):
        for batch in BATCHES[:2] if tiny else BATCHES:
            try:
                rehearsal = Rehearsal(_config(batch, checkpointing, *overrides), networks)
                speeds.append(_speed(rehearsal, device))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
    alone = Rehearsal(_config(1, False, *overrides), networks)
    by_part = [_part_speed(name, run, device) for name, run in calls(alone).items()]
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    kernels = {width: attention_kernel(width, device, networks.unet.dtype) for width in HEAD_WIDTHS}
    product = _product(512 if tiny else 8192, device, networks.unet.dtype)
    what = "tiny networks at 64x48" if tiny else "SD1.5's shapes, random weights, 768x576"
    return Measurement(name, f"{what}, {precision}", product, kernels, by_part, speeds)


def _part_speed(name: str, run: Callable[[], Tensor], device: torch.device) -> PartSpeed:
    def both_ways() -> None:
        run().backward()

    flops = flops_of(both_ways)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(both_ways, device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return PartSpeed(name, 1 / seconds, peak, flops / seconds)


def _speed(rehearsal: Rehearsal, device: torch.device) -> Speed:
    memory = rehearsal.config.memory
    flops = flops_of(rehearsal.step)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(rehearsal.step, device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    base = _seconds(lambda: undressed(rehearsal).backward(), device)
    batch = rehearsal.config.data.batch
    return Speed(batch, memory.checkpointing, batch / seconds, batch / base, peak, flops / seconds)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Mean seconds of a call, after two that do not count."""
    run()
    run()
    _wait(device)
    repeats = 5 if device.type == "cuda" else 1
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait(device)
    return (time.perf_counter() - begin) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _product(size: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: left @ right, device)


def attention_kernel(width: int, device: torch.device, dtype: torch.dtype) -> str:
    """Which of PyTorch's attention kernels is chosen for heads of this width, as its name in the profiler."""
    query, key, value = (torch.randn(1, 8, 64, width, device=device, dtype=dtype, requires_grad=True) for _ in "qkv")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        torch.nn.functional.scaled_dot_product_attention(query, key, value)
    prefix = "aten::_scaled_dot_product_"
    return next((event.key.removeprefix(prefix) for event in seen.key_averages() if event.key.startswith(prefix)), "?")


# ---- the page -------------------------------------------------------------------------------------------------------


def page(
    presets: dict[str, TrainConfig],
    table: Presets,
    flops: dict[str, int],
    batches: dict[tuple[int, bool], StepMemory],
    counted: list[Part],
    measured: Measurement | None,
) -> str:
    """docs/training-memory.md."""
    sections = [
        _INTRODUCTION.format(versions=versions(), margin=MARGIN),
        _presets_section(presets, table, flops),
        goal(table),
        _batches_section(batches),
        _parts_section(counted),
        _measured_section(measured),
    ]
    return "\n\n".join(sections) + "\n"


_INTRODUCTION = """# What a training step needs

<!-- Written by `python -m benchmarks.training --write`; do not edit. -->

SD1.5 at 768x576, two garments a person, LoRA rank 64. **Everything before the last section is computed**: the trainer's
own parts (DressingModel, losses, two-phase texture) run forward and backward on PyTorch's fake tensors, which have shapes
and lifetimes but no content, and every tensor is counted from its making to its freeing ({versions}). Attention counts as a fused kernel that
stores no L x L matrix. Frozen networks compute in the stated precision without autocast, which would keep the norms'
results in fp32; the adapter, its gradients and AdamW are in fp32. With checkpointing both the U-Net and the autoencoder's
decoder compute their blocks again. Not counted: CUDA's context, the kernels' workspaces, the allocator's gaps. For these
a card should have {margin:g} times the peak."""


def _presets_section(presets: dict[str, TrainConfig], table: Presets, flops: dict[str, int]) -> str:
    lines = [
        "## The presets",
        "",
        "GiB. The peak is frozen + trained + held + the larger of working and texture. `anydressing doctor` reads this",
        "table too (training/presets/memory.json).",
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


def _parts_section(counted: list[Part]) -> str:
    lines = [
        "## Where it goes",
        "",
        "One person, no checkpointing, bf16. TFLOP count 2 FLOP per multiply-add of linear layers, convolutions and",
        "attention. The undressed U-Net passes a gradient to its input, the least that any training through it costs.",
        "",
        "| part | forward, TFLOP | backward, TFLOP | held activations, GiB |",
        "|---|---|---|---|",
    ]
    for part in counted:
        lines.append(
            f"| {part.name} | {part.forward / 1e12:.2f} | {part.backward / 1e12:.2f} | {part.held / GIB:.2f} |"
        )
    base, *_, texture = counted
    dressed = sum(part.forward + part.backward for part in counted[:-1])
    mean = dressed + TEXTURE_SHARE * (texture.forward + texture.backward)
    again = sum(part.forward for part in counted[:-1])
    lines += [
        "",
        f"A step takes {mean / 1e12:.1f} TFLOP a person on average, since {TEXTURE_SHARE:.1%} of the timesteps have texture",
        f"losses; that is {mean / (base.forward + base.backward):.1f} times the undressed U-Net's. Checkpointing computes up to",
        f"{again / 1e12:.1f} TFLOP of the U-Net's forward passes again.",
    ]
    return "\n".join(lines)


def _measured_section(measured: Measurement | None) -> str:
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


def main() -> None:
    """Count, measure if asked, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--write", action="store_true", help="also write the presets' table and the page")
    parser.add_argument("--measure", action="store_true", help="also time the step; on a CPU always the tiny one")
    parser.add_argument("--tiny", action="store_true", help="only time tiny networks: a rehearsal, never written")
    arguments = parser.parse_args()
    if arguments.tiny:
        print(_measured_section(measure(tiny=True)))
        return
    measured = measure(tiny=False) if arguments.measure and torch.cuda.is_available() else None
    presets = sd15_presets()
    table = preset_memory(presets)
    text = page(presets, table, preset_flops(presets), by_batch(), parts(_config(1, False)), measured)
    print(text)
    if arguments.measure and measured is None:
        print(f"\nNo GPU here; the measuring itself works:\n\n{_measured_section(measure(tiny=True))}")
    if arguments.write:
        write_table(table, versions())
        write_atomically(PAGE, text.encode())


if __name__ == "__main__":
    main()
