# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing evaluate`: first the pictures, then what they are worth."""

from __future__ import annotations

from pathlib import Path

from ...anydressing_core.atomic_write import write_atomically
from ..dressing.finished import Way, make_ready
from ..hardware import WantedHardware
from ..paper_doll.bench.measures import measure
from ..paper_doll.bench.pictures import BenchPlan, make_pictures
from ..paper_doll.networks.parser import load_parser
from ..paper_doll.networks.recogniser import load_recogniser
from ..progress import UNWATCHED, Course


def evaluate_paper_doll(
    way: Way,
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

    judge, parser: the networks that look. Raises ValueError in the user's words, StoppedError when it is stopped.
    """
    judging, parsing = load_recogniser(judge), load_parser(parser)
    ready, pictures = make_ready(way, base, hardware), out / "pictures"
    make_pictures(ready.dresser, ready.identity, ready.base, pictures, plan, course=course)
    report = measure(pictures, ready.base, judging, parsing, course.progress)
    write_atomically(out / "figures.json", report.to_json().encode())
    write_atomically(out / "figures.md", report.to_markdown().encode())
    return report.to_markdown()
