# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrites what docs/ shows of the code itself: docs/configuration.md and docs/architecture.svg.

`python -m benchmarks.pages`; a test holds both equal to the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.paper_doll.networks.config import PaperDollConfig
from comfyui_anydressing.training.run.explain import page

from .house import draw, module_arrows

ROOT = Path(__file__).parents[1]
KINDS = {"train": TrainConfig, "train-base": PaperDollConfig}
"""The command -> the configuration that it reads."""


def pages() -> dict[Path, str]:
    """What each page should be."""
    docs = ROOT / "docs"
    return {docs / "configuration.md": page(KINDS), docs / "architecture.svg": draw(module_arrows(ROOT))}


def main() -> int:
    """Write every page."""
    for path, text in pages().items():
        write_atomically(path, text.encode())
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
