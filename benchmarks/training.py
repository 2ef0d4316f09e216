# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training step costs: memory and FLOPs by counting, and on a GPU its speed.

`python -m benchmarks.training` counts and prints; `--write` also writes the presets' table, which `anydressing doctor`
reads, and docs/training-memory.md. `--measure` times the step on this machine's GPU; with `--tiny`, or without a GPU, it
times small networks, which rehearses the measuring and says nothing about SD1.5.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.training.run.needs import write_table

from .rehearsal import sd15_presets
from .training_counts import by_batch, parts, preset_flops, preset_memory, step_config
from .training_page import measured_section, page, versions
from .training_speed import measure

PAGE = Path(__file__).parents[1] / "docs" / "training-memory.md"


def main() -> None:
    """Count, measure if asked, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--write", action="store_true", help="also write the presets' table and the page")
    parser.add_argument("--measure", action="store_true", help="also time the step; on a CPU always the tiny one")
    parser.add_argument("--tiny", action="store_true", help="only time tiny networks: a rehearsal, never written")
    arguments = parser.parse_args()
    if arguments.tiny:
        print(measured_section(measure(tiny=True)))
        return
    measured = measure(tiny=False) if arguments.measure and torch.cuda.is_available() else None
    presets = sd15_presets()
    table = preset_memory(presets)
    counted, of_half = (parts(step_config(1, False), shown=shown) for shown in (1.0, 0.5))
    text = page(presets, table, preset_flops(presets), by_batch(), counted, of_half, measured)
    print(text)
    if arguments.measure and measured is None:
        print(f"\nNo GPU here; the measuring itself works:\n\n{measured_section(measure(tiny=True))}")
    if arguments.write:
        write_table(table, versions())
        write_atomically(PAGE, text.encode())


if __name__ == "__main__":
    main()
