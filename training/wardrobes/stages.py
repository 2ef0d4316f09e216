# SPDX-License-Identifier: GPL-3.0-or-later
"""Doing one stage of a manifest again: its captions, or its masks. What a hand made is never written over.

What a stage made is written down beside the manifest, in outcomes/: whatever is not written down there was made by a hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.places import words_for
from ..data.manifest import Item, Manifest, read_manifest
from ..data.parsing import Parser
from ..data.pictures import BadPictureError, Source
from ..picture_files import png_bytes
from ..progress import UNWATCHED, Course
from .convert import caption_of, is_template
from .outcomes import FOLDER, LineLog, read_lines, write_lines

AT_ONCE = 8


class SaysWhat(Protocol):
    """Says what a picture shows; what it said is kept by its digest."""

    @property
    def digest(self) -> str: ...

    def caption(self, person: Source) -> str:
        """One line of visible text. Raises BadPictureError."""
        ...


@dataclass(frozen=True)
class StageReport:
    """made: how many captions or masks were. kept: how many were left as they are. bad: whose picture told nothing, and why."""

    what: str
    made: int
    kept: int
    bad: tuple[str, ...]

    def render(self) -> str:
        """The report as text."""
        lines = [f"{self.made:,} {self.what} made, {self.kept:,} left as they are."]
        lines += [f"  {one}" for one in self.bad[:3]]
        lines += [f"  and {len(self.bad) - 3:,} more"] if len(self.bad) > 3 else []
        return "\n".join(lines)


def caption_again(
    manifest: Path, model: SaysWhat | None, *, root: Path | None, only_missing: bool, course: Course = UNWATCHED
) -> StageReport:
    """Caption a manifest's people anew: those whose caption is the template's, or a stage's own unless `only_missing`.

    model: None gives everybody the template's. What was said before a stop or a kill is not asked again.
    """
    data, log = read_manifest(manifest, root), LineLog(manifest.parent / FOLDER / "captions.jsonl")
    said = {entry["id"]: entry for entry in log.read()}

    def is_ours(item: Item) -> bool:
        if is_template(item.caption):
            return True
        told = said.get(item.id)
        return not only_missing and told is not None and told["caption"] == item.caption

    todo = [item for item in data.items if is_ours(item)]
    digest = "template" if model is None else model.digest
    fresh = {item.id: said[item.id]["caption"] for item in todo if said.get(item.id, {}).get("by") == digest}
    bad: list[str] = []
    for some in course.batches("captions", [item for item in todo if item.id not in fresh], AT_ONCE):
        for item in some:
            try:
                fresh[item.id] = _template(item) if model is None else model.caption(_picture(data, item))
                log.add({"id": item.id, "caption": fresh[item.id], "by": digest})
            except BadPictureError as error:
                bad.append(f"{item.id}: {error}")
    told = [line | {"caption": fresh.get(line["id"], line["caption"])} for line in read_lines(manifest)]
    write_lines(manifest, told)
    return StageReport("captions", len(fresh), len(data.items) - len(fresh), tuple(bad))


def mask_again(
    manifest: Path, parser: Parser, *, root: Path | None, only_missing: bool, course: Course = UNWATCHED
) -> StageReport:
    """Make masks anew: those that are not there, or a stage's or a conversion's own unless `only_missing`.

    What the parser does not see is not written, and told.
    """
    data, log = read_manifest(manifest, root), LineLog(manifest.parent / FOLDER / "masks.jsonl")
    written = {(entry["file"], entry["sha256"]): entry["by"] for entry in [*log.read(), *_converted(manifest.parent)]}
    made, kept, bad = 0, 0, list[str]()
    for some in course.batches("masks", data.items, AT_ONCE):
        for item in some:
            wanted = [one for one in item.garments if _is_wanted(data, one.mask, written, parser.digest, only_missing)]
            kept += len(item.garments) - len(wanted)
            try:
                seen = parser.parse(_picture(data, item)) if wanted else {}
            except BadPictureError as error:
                bad.append(f"{item.id}: {error}")
                continue
            for one in wanted:
                mask = seen.get(one.slot)
                if mask is None or not mask.any():
                    bad.append(f"{item.id}: no {one.slot} is seen")
                    continue
                content = png_bytes(Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))))
                path = manifest.parent / one.mask
                path.parent.mkdir(parents=True, exist_ok=True)
                log.add({"file": one.mask, "sha256": hashlib.sha256(content).hexdigest(), "by": parser.digest})
                write_atomically(path, content)
                made += 1
    return StageReport("masks", made, kept, tuple(bad))


def _template(item: Item) -> str:
    """Hers, as a conversion made it of labels, or what her slots say."""
    if is_template(item.caption):
        return item.caption
    return caption_of([words_for(garment.slot) for garment in item.garments])


def _picture(data: Manifest, item: Item) -> Source:
    try:
        return Source.find(item.image, data.path(item.image))
    except BadPictureError:
        raise
    except ValueError as error:
        raise BadPictureError(item.image, str(error)) from error


def _is_wanted(data: Manifest, name: str, written: Mapping[tuple[str, str], str], by: str, only_missing: bool) -> bool:
    """Whether a mask is to be made: it is not there, or it is what another parser, or a conversion, made of it."""
    path = data.path(name)
    if not path.exists():
        return True
    maker = written.get((name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return not only_missing and maker is not None and maker != by


def _converted(folder: Path) -> Iterator[dict[str, str]]:
    """What a conversion made."""
    for path in sorted((folder / FOLDER).glob("rank-*.jsonl")):
        for line in LineLog(path).read():
            for file, sha in (line.get("made") or {}).items():
                yield {"file": file, "sha256": sha, "by": "conversion"}
