# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing evaluate`: first the pictures, then what they are worth."""

from __future__ import annotations

from pathlib import Path

from ...anydressing_core.atomic_write import write_atomically
from ..base.model import load_base
from ..dressing.finished import dressing_model, load_file
from ..hardware import WantedHardware
from ..paper_doll.bench.measures import measure
from ..paper_doll.bench.pictures import BenchPlan, make_pictures
from ..paper_doll.networks.parser import load_parser
from ..paper_doll.networks.recogniser import load_recogniser
from ..progress import UNWATCHED, Course


def evaluate_paper_doll(
    file: Path,
    base: Path,
    out: Path,
    plan: BenchPlan,
    hardware: WantedHardware,
    *,
    judge: Path,
    parser: Path,
    course: Course = UNWATCHED,
) -> str:
    """Make the pictures below `out/pictures` and the figures `out/figures.json` and `.md`; returns the latter.

    file: an AnyDressing file or a run. judge, parser: the networks that look. Raises ValueError in the user's words,
    StoppedError when it is stopped.
    """
    checkpoint, judging, parsing = load_file(file), load_recogniser(judge), load_parser(parser)
    loaded = load_base(base, hardware.for_file(checkpoint.info.trained_in))
    pictures = out / "pictures"
    model = dressing_model(checkpoint, loaded)
    make_pictures(model, checkpoint.identity, loaded, pictures, plan, course=course)
    report = measure(pictures, loaded, judging, parsing, course.progress)
    write_atomically(out / "figures.json", report.to_json().encode())
    write_atomically(out / "figures.md", report.to_markdown().encode())
    return report.to_markdown()
