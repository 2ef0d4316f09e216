# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a training step needs: the parts, their sum, and the shipped table of the presets.

The numbers are computed, not measured: `benchmarks/rehearsal.py` runs the step on tensors without content and counts them.
`python -m benchmarks.training --write` renews the table. Only the standard library is imported here, so that `doctor`
can read the table where the training packages are missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from ...anydressing_core.atomic_write import write_atomically

GIB = 2**30

MARGIN = 1.2
"""What a card should have for each counted byte: the rest is CUDA's context, kernels' workspaces and the allocator's gaps."""

TABLE = Path(__file__).parents[1] / "presets" / "memory.json"


@dataclass(frozen=True)
class StepMemory:
    """What a training step of one micro-batch holds at its fullest, in GiB.

    frozen: U-Net, autoencoder, text encoder and feature network. trained: the adapter, its gradients, AdamW's two
    moments and the running average, if one is kept. held: the batch and the activations that wait for the backward
    pass. working: the most that the forward or backward pass has beyond them, with checkpointing the largest region that
    is computed again. texture: the most that decoding and judging have beyond `held`, 0 without texture losses.
    """

    frozen: float
    trained: float
    held: float
    working: float
    texture: float

    def rounded(self) -> StepMemory:
        """To three digits, as the table keeps it."""
        return StepMemory(**{name: round(value, 3) for name, value in asdict(self).items()})

    @property
    def peak(self) -> float:
        """The sum. In two phases the texture losses are done before the backward pass: the larger of the two counts."""
        return self.frozen + self.trained + self.held + max(self.working, self.texture)

    @property
    def without_texture(self) -> StepMemory:
        """The same step with losses.texture = 0."""
        return replace(self, texture=0.0)

    @property
    def needed(self) -> float:
        """The memory of a card on which the step should fit: the peak times `MARGIN`."""
        return self.peak * MARGIN


HalfPrecision = Literal["bf16", "fp16"]

Presets = dict[str, dict[HalfPrecision, StepMemory]]
"""What each preset for SD1.5 at 768x576 needs, by its name and by the precision of the frozen networks."""


def read_table(path: Path = TABLE) -> Presets:
    """Read the shipped table."""
    presets = json.loads(path.read_text(encoding="utf-8"))["presets"]
    return {
        name: {precision: StepMemory(**parts) for precision, parts in by_precision.items()}
        for name, by_precision in presets.items()
    }


def write_table(presets: Presets, made_with: str, path: Path = TABLE) -> None:
    """Write the table. made_with: the versions that computed it."""
    parts = {name: {each: asdict(memory) for each, memory in known.items()} for name, known in presets.items()}
    content = {"unit": "GiB", "made_with": made_with, "presets": parts}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def best_preset(needs: Mapping[str, StepMemory], gib: float) -> str | None:
    """The largest preset that fits into so much memory, None when even the smallest does not.

    One that is named after a kind of card, such as `24gb`, is not for smaller kinds; the smallest is for any it fits.
    """
    fitting = [name for name, need in needs.items() if need.needed <= gib]
    made_for = [name for name in fitting if name == smallest_preset(needs) or _made_for(name) * 0.9 <= gib]
    return max(made_for, key=lambda name: needs[name].needed, default=None)


def smallest_preset(needs: Mapping[str, StepMemory]) -> str:
    """The preset that needs least."""
    return min(needs, key=lambda name: needs[name].needed)


def what_fits(presets: Presets, precision: HalfPrecision, gib: float) -> str:
    """What to do, in words, when a run for SD1.5 did not fit into so much memory."""
    needs = {name: by_precision[precision] for name, by_precision in presets.items()}
    best = best_preset(needs, gib)
    if best is not None:
        return (
            f'start from preset = "{best}", which should have {needs[best].needed:.1f} of the {gib:.1f} GiB here. '
            "If this run is no larger, end what else uses the card, set losses.texture = 0, or lower data.resolution."
        )
    smallest = smallest_preset(needs)
    without = needs[smallest].without_texture.needed
    if without <= gib:
        return (
            f'start from preset = "{smallest}" with losses.texture = 0, which should have {without:.1f} of the '
            f"{gib:.1f} GiB here, or lower data.resolution."
        )
    return f"use a card with more than {gib:.1f} GiB, or lower data.resolution."


def _made_for(name: str) -> float:
    """GiB of the cards after which a preset is named, 0 for another name; one sold as 24 GB has 22 to 24 GiB."""
    named = re.fullmatch(r"(?:1x-)?(\d+)gb(?:-evening)?", name)
    return float(named[1]) if named else 0.0
