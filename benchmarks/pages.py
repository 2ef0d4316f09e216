# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrites what docs/ shows of the code itself: docs/configuration.md, docs/architecture.svg, and the
tables of docs/composition.md.

`python -m benchmarks.pages`; a test holds all of them equal to the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.paper_doll.networks.config import PaperDollConfig
from comfyui_anydressing.training.run.explain import page

from .composition import composition
from .house import draw, module_arrows

ROOT = Path(__file__).parents[1]
KINDS = {"train": TrainConfig, "train-base": PaperDollConfig}
"""The command -> the configuration that it reads."""


def pages() -> dict[Path, str]:
    """What each page should be."""
    docs = ROOT / "docs"
    return {
        docs / "configuration.md": page(KINDS),
        docs / "architecture.svg": draw(module_arrows(ROOT)),
        docs / "composition.md": composition(ROOT),
    }


def main() -> int:
    """Write every page."""
    for path, text in pages().items():
        write_atomically(path, text.encode())
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
