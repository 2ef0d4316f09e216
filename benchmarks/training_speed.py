# SPDX-License-Identifier: GPL-3.0-or-later
"""The training step timed on a GPU, beside the undressed U-Net in the same run; on a CPU small networks rehearse it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfyui_anydressing.training.hardware import choose_device, training_precision
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from .rehearsal import Rehearsal, sd15_networks, tiny_networks
from .training_counts import BATCHES, calls, flops_of, step_config, undressed

HEAD_WIDTHS = (40, 48, 80, 88, 160, 168)
"""SD1.5's, and what they grow to with the spare columns of Dressing-Attention."""

TINY = ("data.resolution=[64, 48]", "adapter.rank=4")


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
    device = choose_device("auto")
    precision = training_precision("auto", device)
    overrides = (f'memory.precision="{precision}"', *(TINY if tiny else ()))
    if device.type == "cpu":
        torch.set_num_threads(1)  # a rehearsal, which other processes on the machine should not stall
    networks = (tiny_networks if tiny else sd15_networks)(precision).fill(device)
    speeds: list[Speed] = []
    for checkpointing in (False, True):
        for batch in BATCHES[:2] if tiny else BATCHES:
            try:
                rehearsal = Rehearsal(step_config(batch, checkpointing, *overrides), networks)
                speeds.append(speed_of(rehearsal, device))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
    alone = Rehearsal(step_config(1, False, *overrides), networks)
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


def speed_of(rehearsal: Rehearsal, device: torch.device) -> Speed:
    memory = rehearsal.config.memory
    flops = flops_of(rehearsal.run)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(rehearsal.run, device)
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
