# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a training step needs: the parts, their sum, and the shipped table of the presets.

The numbers are computed, not measured: `rehearsal.py` runs the step on tensors without content and counts them.
`python -m benchmarks.training --write` renews the table. Only the standard library is imported here, so that `doctor`
can read the table where the training packages are missing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..anydressing_core.atomic_write import write_atomically

GIB = 2**30

MARGIN = 1.2
"""What a card should have for each counted byte: the rest is CUDA's context, kernels' workspaces and the allocator's gaps."""

TABLE = Path(__file__).parent / "presets" / "memory.json"


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
    def needed(self) -> float:
        """The memory of a card on which the step should fit: the peak times `MARGIN`."""
        return self.peak * MARGIN


Precision = Literal["bf16", "fp16"]

Presets = dict[str, dict[Precision, StepMemory]]
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
