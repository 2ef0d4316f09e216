# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrites docs/evidence/dressing.md: how well the paper doll is dressed by the AnyDressing file that comes with the pack.

anydressing evaluate demo/anydressing/paper_doll.safetensors ... --out FOLDER
python -m benchmarks.dressing_evidence FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint
from comfyui_anydressing.dev.comfyui import CHECKOUT
from comfyui_anydressing.training.paper_doll.bench.pictures import FIRST

from .outfit_sheet import outfit_sheet

FILE = CHECKOUT / "demo" / "anydressing" / "paper_doll.safetensors"
PAGE = CHECKOUT / "docs" / "evidence"
SHOWN = 12
COLUMNS = {
    "masked": "masked",
    "shuffled": "others'",
    "only-upper": "upper alone",
    "only-lower": "lower alone",
    "free": "free",
    "undressed": "undressed",
}


def main(folder: Path) -> int:
    """Write the page; 1 when the folder's pictures were made by another file than the one that is shipped."""
    about: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))["about"]
    file = load_checkpoint(FILE)
    if about["file"] != file.identity:
        print(f"{folder} was measured with another file than {FILE.relative_to(CHECKOUT)}.", file=sys.stderr)
        return 1
    columns = {head: partial(_picture, folder, name) for name, head in COLUMNS.items()}
    sheet = outfit_sheet(range(FIRST, FIRST + SHOWN), about["slots"], tuple(about["size"]), columns)
    sheet.save(PAGE / "dressing.jpg", quality=88)
    (PAGE / "dressing.md").write_text(page(about, (folder / "figures.md").read_text("utf-8"), file.info.steps), "utf-8")
    return 0


def _picture(folder: Path, name: str, seed: int) -> Path:
    return folder / "pictures" / str(seed) / f"{name}.png"


def page(about: dict[str, Any], table: str, steps: int) -> str:
    """docs/evidence/dressing.md."""
    return f"""# How well the paper doll is dressed

<!-- Written by `python -m benchmarks.dressing_evidence FOLDER`; do not edit. -->

`demo/anydressing/paper_doll.safetensors` after {steps} steps, on {about["outfits"]} held-out outfits: people that no training showed, in fabrics
(a texture, its colours and its print together) that none showed. Both garments are flat-lays, as in its training; the paper trains
with one of two cut out of the person, and tests like this. DDIM {about["steps"]} steps, guidance {about["guidance"]:g}, strength {about["strength"]:g}.
The first {SHOWN}, not chosen:

![Outfits, and what the file makes of them](dressing.jpg)

- **masked**: her garments and a margin are made anew in the true picture, so that every pixel's truth is known.
  **others'**: the same with somebody else's garments (*shuffled* below), the control. **alone**: one of the two made anew.
- **free**: the same caption and garments from noise. Here the control is how near what she wears comes to somebody else's flat-lays.
  **undressed**: the caption alone from the same noise.

Means over outfits with 95 % bootstrap intervals. *floor* is what the autoencoder alone loses, *true picture* what a figure says
of a perfect one. Where a picture was made freely, `paper_doll_parser` finds the garments; how well it does so on real renders stands
among the figures. What each figure says: [README](README.md#figures).

{table}"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dressing_evidence", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `anydressing evaluate` wrote")
    sys.exit(main(parser.parse_args().folder))
