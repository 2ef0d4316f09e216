# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing data photos | dresscode | ... | captions | masks`: from pictures to a manifest, and its stages again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from ...anydressing_core.pixels import as_unit
from ...anydressing_core.refusals import refusal
from ..data.parsing import Mask, Parser
from ..data.pictures import Source, upright
from ..hardware import choose_device
from ..paper_doll.networks.parser import load_parser as load_doll_parser
from ..paper_doll.world.garments import SLOTS
from ..places import require_there
from ..progress import Course
from ..text_files import read_text
from ..wardrobes import dresscode, dresscode_mr, garments2look, photos, viton_hd
from ..wardrobes.convert import Mix, Plan, convert
from ..wardrobes.looks import Layout
from ..wardrobes.stages import caption_again, mask_again

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "photos": photos.LAYOUT,
        "dresscode": dresscode.LAYOUT,
        "dresscode-mr": dresscode_mr.LAYOUT,
        "viton-hd": viton_hd.LAYOUT,
        "garments2look": garments2look.LAYOUT,
    }
)


def convert_to_folder(
    layout: str,
    root: Path,
    out: Path,
    *,
    resolution: tuple[int, int],
    mix: Mix,
    held_out: float,
    captions: Path | None,
    parser: Path | None,
    device: str,
    skip_bad: bool,
    course: Course,
) -> tuple[str, int]:
    """Convert a folder; what is to be told of it, and the exit status. Under torchrun this is one process of several."""
    sees = None if parser is None else parser_at(parser, choose_device(device))
    plan = Plan(
        LAYOUTS[layout],
        require_there(root),
        out,
        resolution,
        mix,
        held_out,
        None if captions is None else read_captions(captions),
        skip_bad,
        int(os.environ.get("RANK", "0")),
        int(os.environ.get("WORLD_SIZE", "1")),
        sees,
    )
    report = convert(plan, course)
    told = report.render()
    if report.by_hand is not None:
        told += f"\n\nLook at {out / 'sheet.png'}, then: anydressing data check {out / 'manifest.jsonl'} --root {root}"
    return told, report.status


class DollParser:
    """The paper doll's own parser, which sees dolls alone. digest: of its file."""

    def __init__(self, path: Path) -> None:
        self._parser, self.digest = load_doll_parser(path), hashlib.sha256(path.read_bytes()).hexdigest()

    def parse(self, person: Source) -> Mapping[str, Mask]:
        """As `wardrobes.masks.Parser` has it."""
        parts = self._parser.parse(as_unit(np.array(upright(person))))
        return {slot: mask.numpy() for slot, mask in parts.items() if slot in SLOTS}


def parser_at(path: Path, device: torch.device) -> Parser:
    """A folder of transformers, or the file of the doll's parser."""
    from ..wardrobes.parser import load_parser  # transformers takes seconds, and most data sets need none

    return DollParser(path) if path.is_file() else load_parser(path, device)


def caption_with(
    manifest: Path,
    model: Path | None,
    prompt: str | None,
    *,
    root: Path | None,
    only_missing: bool,
    device: str,
    course: Course,
) -> str:
    """Caption a manifest's people, and say how many."""
    says = None
    if model is not None:
        from ..wardrobes.captioner import load_captioner  # transformers takes seconds

        says = load_captioner(require_there(model, "--model"), choose_device(device), prompt)
    return caption_again(manifest, says, root=root, only_missing=only_missing, course=course).render()


def mask_with(
    manifest: Path, parser: Path, *, root: Path | None, only_missing: bool, device: str, course: Course
) -> str:
    """Make a manifest's masks, and say how many."""
    sees = parser_at(require_there(parser, "--parser"), choose_device(device))
    return mask_again(manifest, sees, root=root, only_missing=only_missing, course=course).render()


def read_captions(path: Path) -> dict[str, str]:
    """Captions by id, of a file of lines {"id": ..., "caption": ...}. Raises ValueError naming the line."""
    captions: dict[str, str] = {}
    for number, line in enumerate(read_text(require_there(path, "--captions")).split("\n"), 1):
        try:
            told = json.loads(line) if line.strip() else None
            if told is not None:
                captions[told["id"]] = str(told["caption"])
        except (ValueError, KeyError, TypeError) as error:
            why = 'A line is one JSON object, {"id": "0001", "caption": "a woman in a park"}.'
            raise refusal(f"Line {number} of {path.name!r}", "cannot be read", why, "correct that line.") from error
    return captions
