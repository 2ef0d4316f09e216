# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing evaluate`: first the pictures, then what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from ...anydressing_core.atomic_write import write_atomically
from ..base.model import load_base
from ..model.sampling import SamplingSettings
from ..paper_doll.bench.measures import measure
from ..paper_doll.bench.pictures import make_pictures
from ..paper_doll.networks.parser import load_parser
from ..paper_doll.networks.recogniser import load_recogniser
from .sample import dressing_model, load_file


def evaluate_paper_doll(
    file: Path,
    base: Path,
    out: Path,
    *,
    judge: Path,
    parser: Path,
    count: int,
    seed: int,
    slots: Sequence[str],
    settings: SamplingSettings,
    progress: Callable[[str, int, int], None],
    stop: Callable[[], bool],
) -> str:
    """Make the pictures below `out/pictures` and the figures `out/figures.json` and `.md`; returns the latter.

    Raises ValueError in the user's words, BuildStoppedError after `stop`.
    """
    checkpoint, judging, parsing = load_file(file), load_recogniser(judge), load_parser(parser)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(base, device=device, dtype=torch.float32)
    nn.Module.to(loaded.unet, dtype=torch.bfloat16)  # half the time on a CPU
    pictures = out / "pictures"
    make_pictures(
        dressing_model(checkpoint, loaded),
        checkpoint.identity,
        loaded,
        pictures,
        count=count,
        settings=settings,
        slots=slots,
        seed=seed,
        progress=progress,
        stop=stop,
    )
    report = measure(pictures, loaded, judging, parsing, progress)
    write_atomically(out / "figures.json", report.to_json().encode())
    write_atomically(out / "figures.md", report.to_markdown().encode())
    return report.to_markdown()
