# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper's own mix of training data (Sec. 7.2) on the paper-doll world: what never seeing two garments laid flat costs. And
once more, on fewer people than the ablation's, what the garments' own tokens alone are worth, and what reading nothing around them costs.

python -m benchmarks.ablation train FOLDER --data MANIFEST --mixed MANIFEST --only full --only mix --only mix_jitter --only foreground --only cropped
python -m benchmarks.ablation measure FOLDER --outfits 100 --only full --only mix --only mix_jitter --only foreground --only cropped
python -m benchmarks.mix page FOLDER
"""

from __future__ import annotations

from pathlib import Path

import typer
from comfyui_anydressing.training.evaluation.arms import ARMS

from .ablation import PAGE, sheet
from .study import StudyPage

SAW_PAIRS = "full"
SEEN = (SAW_PAIRS, *(name for name, arm in ARMS.items() if arm.mix))
"""The arms whose pictures the page shows."""

CHANGES = (
    ("full", "mix"),
    ("full", "mix_jitter"),
    ("mix", "mix_jitter"),
    ("full", "foreground"),
    ("full", "cropped"),
    ("foreground", "cropped"),
)
PAGE_OF_MIX = StudyPage("mix", {name: ARMS[name].title for name in (*SEEN, "foreground", "cropped")}, CHANGES)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """What the paper's own mix of training data is worth."""


@app.command()
def page(folder: Path) -> None:
    """Write mix.json and mix.jpg in docs/evidence from the figures in FOLDER, and their tables into mix.md there."""
    pictures = all((folder / "pictures" / f"{name}-0").is_dir() for name in SEEN)
    print(PAGE_OF_MIX.write(folder, PAGE, lambda names: sheet(folder, SEEN) if pictures else None))


if __name__ == "__main__":
    app()
