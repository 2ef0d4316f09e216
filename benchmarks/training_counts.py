# SPDX-License-Identifier: GPL-3.0-or-later
"""The training step counted, on tensors without content: FLOP and held memory, part by part and preset by preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.dressing.step import Texture
from comfyui_anydressing.training.run.needs import Presets, StepMemory
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .rehearsal import (
    GARMENTS,
    LiveMemory,
    Networks,
    Rehearsal,
    fake_rehearsal,
    preset_config,
    sd15_networks,
    step_memory,
)

BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class StepPart:
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

    def dressed() -> Tensor:
        predicted = rehearsal.step.predict(batch)
        return rehearsal.step.total(predicted, Texture(torch.zeros(())))

    def texture() -> Tensor:
        latents = torch.randn(batch.latents[:1].shape, device=batch.latents.device).requires_grad_()
        return rehearsal.step.texture_of_row(batch)(latents, 0).sum()

    return {
        BASE: lambda: undressed(rehearsal),
        GARMENTS_NET: garments,
        DRESSED: dressed,
        TEXTURE: texture,
    }


def parts(
    config: TrainConfig, networks: Callable[[str], Networks] = sd15_networks, shown: float = 1.0
) -> list[StepPart]:
    """Take one person's step apart. Dressing-Attention is what the dressed U-Net has beyond the undressed one. shown: as of
    `Rehearsal`.
    """
    rehearsal = fake_rehearsal(config, networks, shown)
    counted = {name: _part(name, rehearsal, run) for name, run in calls(rehearsal).items()}
    base, encoded, whole = (counted[name] for name in (BASE, GARMENTS_NET, DRESSED))
    attention = StepPart(
        "Dressing-Attention, L_LDM and L_loc",
        whole.forward - base.forward - encoded.forward,
        whole.backward - base.backward - encoded.backward,
        whole.held - base.held - encoded.held,
    )
    return [base, encoded, attention, counted[TEXTURE]]


def preset_flops(presets: dict[str, TrainConfig]) -> dict[str, int]:
    """FLOP of a preset's micro-batch, what is computed again included, with as many texture losses as it decodes."""
    return {name: flops_of(fake_rehearsal(config, sd15_networks).run) for name, config in presets.items()}


def undressed(rehearsal: Rehearsal) -> Tensor:
    """The frozen U-Net alone, a gradient passing to its input: the least that training anything before it costs."""
    batch = rehearsal.batch()
    unet = rehearsal.networks.unet
    latents, text = batch.latents.to(unet.dtype).requires_grad_(), batch.text.to(unet.dtype)
    noise: Any = unet(latents, batch.timestep, encoder_hidden_states=text).sample
    return noise.float().square().mean()


def _part(name: str, rehearsal: Rehearsal, run: Callable[[], Tensor]) -> StepPart:
    weights = [each for module in (*rehearsal.networks.modules, rehearsal.model) for each in module.parameters()]
    with LiveMemory(weights) as live:
        with counter() as forward:
            loss = run()
        held = live.now
        with counter() as backward:
            loss.backward()
    return StepPart(name, forward.get_total_flops(), backward.get_total_flops(), held)


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
        (batch, checkpointing): step_memory(step_config(batch, checkpointing))
        for checkpointing in (False, True)
        for batch in BATCHES
    }


def step_config(batch: int, checkpointing: bool, *overrides: str) -> TrainConfig:
    flag = str(checkpointing).lower()
    return preset_config("12gb", f"data.batch={batch}", f"memory.checkpointing={flag}", *overrides)
