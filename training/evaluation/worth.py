# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pictures of a bench are worth: the paper's scores (Sec. 5.1), and where garments went wrong.

    CLIP-T, CLIP-AS    of the whole picture: the prompt, and LAION's mark
    CLIP-I             cos(garment, whole picture), the mean over garments
    CLIP-I*            cos(garment, its region), the mean over garments that are found
    garments found     the share that has a region
    own nearest of N   whether a region looks more like its own garment than like any other of the bench
    swapped            whether two garments of one picture look more like each other's regions
    colour, DISTS      between region and garment: sorted colours in CIE Lab, and the texture network's distance
    leakage            what dressing changes outside all garments, against the same noise undressed

It reads pictures, and what stands beside them; nothing here samples. Each picture's figures are kept in
OUT/BENCH/figures/METHOD/ID.json and made again when the picture or a judge is another. Of a picture that cannot be used it
says why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.digests import content_key
from ...anydressing_core.latents import CELL, Size
from ...anydressing_core.pixels import Pixels, as_unit, unit_of
from ..data.manifest import file_stem
from ..data.parsing import Mask, Parser
from ..data.pictures import BadPictureError, Source, flat_lay, upright
from ..losses.dists import Dists
from ..progress import UNWATCHED, Course
from ..text_files import read_text
from .clip import AestheticHead, Clip
from .dressed import ALONE, Method, Share
from .items import BenchItem, WornPicture
from .metrics import is_swapped, leakage, palette_error, rank_among, texture_distance
from .regions import RegionsBy, regions_by_pose

FIGURES, JUDGES = "figures", "judges.json"
VERSION = 1
"""To be raised whenever this module measures otherwise."""

DISTRACTORS = 32
LEAST_REGION = 0.002
"""The share of a picture below which a parser's region is taken for nothing."""

CLOSE = 8
"""Pixels around a garment that may change with it."""


@dataclass(frozen=True)
class Judges:
    """Who measures. head, parser, dists: None leaves out what they would say. by: what finds regions."""

    clip: Clip
    head: AestheticHead | None = None
    parser: Parser | None = None
    dists: Dists | None = None
    by: RegionsBy = "parser"

    @cached_property
    def told(self) -> dict[str, str | None]:
        """Names and hashes of all of them, which every table carries."""
        parser = None if self.parser is None else f"parser {self.parser.digest[:12]}"
        return {
            "CLIP": f"{self.clip.name} {self.clip.sha256[:12]}",
            "aesthetic head": None if self.head is None else self.head.sha256[:12],
            "regions by": "pose (OpenPose)" if self.by == "pose" else parser,
            "texture network": None if self.dists is None else self.dists.fingerprint[:12],
        }


@dataclass(frozen=True)
class _Lain:
    """A garment laid flat. look: CLIP's of its picture, (D,). picture: (3, H, W) in [0, 1]. mask: (H, W) bool."""

    look: Tensor
    picture: Tensor
    mask: Tensor


class BenchMeasurer:
    """Items, their garments as the judges see them, and where all of it lies."""

    def __init__(self, folder: Path, items: Sequence[BenchItem], judges: Judges, size: Size) -> None:
        self.folder, self.items, self.judges = folder, items, judges
        worn = list(dict.fromkeys(garment for item in items for garment in item.garments))
        sources = {one: Source.find(one.image, folder / one.image) for one in worn}
        looks = [judges.clip.of_pictures([np.array(upright(source))])[0] for source in sources.values()]
        self._lain = {one: _lain(sources[one], look, size) for one, look in zip(worn, looks, strict=True)}
        self._others = {garment: self._distractors(garment) for garment in worn}
        self._texts: dict[str, Tensor] = {}
        self._undressed: tuple[Path, tuple[Pixels, list[Mask]] | None] | None = None  # the last one

    def measure(self, methods: Sequence[Method], share: Share = ALONE, course: Course = UNWATCHED) -> None:
        """Measure what is there and not yet measured of this process' share, and keep it."""
        plain = next((one for one in methods if one.kind == "plain"), None)
        # From now on figures of other judges are void.
        write_atomically(self.folder / JUDGES, json.dumps(self.judges.told, indent=1).encode())
        todo = [
            (method, item, path)
            for item in share.of(self.items)
            for method in methods  # of one item, since all of ours are compared with the same picture undressed
            if (path := method.picture(item.id)) is not None
        ]
        for some in course.batches("measuring", todo, 8):
            for method, item, path in some:
                self._keep(method, item, path, plain)

    def _keep(self, method: Method, item: BenchItem, path: Path, plain: Method | None) -> None:
        undressed = (
            plain.picture(item.id) if plain is not None and method.is_ours and method.name != plain.name else None
        )
        files = [path, *([undressed] if undressed else []), *_existing(_pose_of(path))]
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        key = content_key("worth", VERSION, json.dumps(self.judges.told), item.model_dump_json(), *digests)
        kept = _figures_of(self.folder, method, item)
        there = _read(kept)
        if there is not None and there["key"] == key:
            return
        measured: dict[str, Any] = {"key": key, "judges": _digest(self.judges.told), "figures": {}}
        try:
            measured["figures"] = self._of_picture(item, path, undressed)
        except BadPictureError as error:
            measured["bad"] = error.why
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(measured, indent=1).encode())

    def _of_picture(self, item: BenchItem, path: Path, undressed: Path | None) -> dict[str, float]:
        source, judges = Source.find(path.name, path), self.judges
        picture = np.array(upright(source))
        lain = [self._lain[garment] for garment in item.garments]
        found = self._regions(item, source, path, picture)
        looks = judges.clip.of_pictures([picture, *(_alone(picture, mask) for mask in found.values())])
        whole, parts = looks[0], dict(zip(found, looks[1:], strict=True))
        figures = {
            "CLIP-T": float(whole @ self._text(item.prompt)),
            "CLIP-I": float(np.mean([float(whole @ one.look) for one in lain])),
        }
        if judges.head is not None:
            figures["CLIP-AS"] = float(judges.head.marks(whole[None])[0])
        if judges.by == "parser" and judges.parser is None:
            return figures
        figures["garments found"] = len(found) / len(item.garments)
        if found:
            figures |= self._of_garments(item, picture, found, parts)
        if undressed is not None:
            figures |= self._leakage(item, picture, undressed, found)
        return figures

    def _of_garments(
        self, item: BenchItem, picture: Pixels, found: Mapping[int, Mask], parts: Mapping[int, Tensor]
    ) -> dict[str, float]:
        unit, dists = as_unit(picture), self.judges.dists
        lain = {place: self._lain[item.garments[place]] for place in found}
        masks = {place: torch.from_numpy(mask) for place, mask in found.items()}
        palettes = [palette_error(unit, masks[place], one.picture, one.mask) for place, one in lain.items()]
        others = {place: self._others[item.garments[place]] for place in lain}
        first = [
            float(rank_among(parts[place], one.look, others[place]) == 0)
            for place, one in lain.items()
            if others[place]
        ]
        figures = {
            "CLIP-I*": float(np.mean([float(parts[place] @ one.look) for place, one in lain.items()])),
            "colour difference": float(np.mean(palettes)),
        }
        if first:  # among others of its kind; a bench of one garment has none
            figures["own garment nearest"] = float(np.mean(first))
        if dists is not None:
            distances = [
                texture_distance(unit, masks[place], one.picture, one.mask, dists) for place, one in lain.items()
            ]
            figures["DISTS"] = float(np.mean(distances))
        pairs = list(combinations(found, 2))
        if pairs:
            swaps = [is_swapped((parts[a], parts[b]), (lain[a].look, lain[b].look)) for a, b in pairs]
            figures["swapped"] = float(np.mean(swaps))
        return figures

    def _regions(self, item: BenchItem, source: Source, path: Path, picture: Pixels) -> dict[int, Mask]:
        """By a garment's place in its item, where it shows. Two of one slot share its region."""
        size, slots = (picture.shape[0], picture.shape[1]), [garment.slot for garment in item.garments]
        if self.judges.by == "pose":
            poses = _existing(_pose_of(path))
            if not poses:
                raise BadPictureError(path.name, f"its pose, {_pose_of(path).name}, is not beside it")
            seen = regions_by_pose(poses[0], slots, size)
        elif self.judges.parser is not None:
            seen = self.judges.parser.parse(source)
            seen = {slot: mask for slot, mask in seen.items() if mask.mean() >= LEAST_REGION}
        else:
            seen = {}
        return {place: seen[slot] for place, slot in enumerate(slots) if slot in seen}

    def _leakage(
        self, item: BenchItem, picture: Pixels, undressed: Path, found: Mapping[int, Mask]
    ) -> dict[str, float]:
        """Against the picture undressed, away from where garments are in either."""
        if self.judges.by == "pose":
            return {}
        if self._undressed is None or self._undressed[0] != undressed:
            self._undressed = (undressed, self._seen_undressed(item, undressed))
        seen = self._undressed[1]
        if seen is None or seen[0].shape != picture.shape:
            return {}
        plain, before = seen
        masks = [*found.values(), *before]
        if not masks:
            return {}
        together = torch.from_numpy(np.logical_or.reduce(masks)).float()[None, None]
        near = torch.nn.functional.max_pool2d(together, 2 * CLOSE + 1, 1, CLOSE)[0, 0] > 0
        return {"leakage": leakage(as_unit(picture), as_unit(plain), near)}

    def _seen_undressed(self, item: BenchItem, path: Path) -> tuple[Pixels, list[Mask]] | None:
        """The picture and where garments show in it; None where it cannot be used, which is told of it, itself."""
        try:
            source = Source.find(path.name, path)
            plain = np.array(upright(source))
        except BadPictureError:
            return None
        return plain, list(self._regions(item, source, path, plain).values())

    def _distractors(self, garment: WornPicture) -> list[Tensor]:
        """At most DISTRACTORS looks of other garments of the same slot."""
        own = garment.image
        others = {
            one.image: self._lain[one].look for one in self._lain if one.slot == garment.slot and one.image != own
        }
        return [others[image] for image in sorted(others, key=lambda image: content_key(own, image))[:DISTRACTORS]]

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            self._texts[prompt] = self.judges.clip.of_texts([prompt])[0]
        return self._texts[prompt]


def judges_of(folder: Path) -> dict[str, str | None] | None:
    """Who measured a bench last; None where nobody did."""
    return _read(folder / JUDGES)


def figures_of(folder: Path, method: Method, items: Sequence[BenchItem]) -> dict[str, dict[str, float]]:
    """What was measured of a method's pictures in a bench's folder, by item."""
    kept = _kept(folder, method, items)
    return {item: one["figures"] for item, one in kept.items() if "bad" not in one}


def bad_of(folder: Path, method: Method, items: Sequence[BenchItem]) -> dict[str, str]:
    """Which of a method's pictures cannot be used, by item, and why."""
    return {item: one["bad"] for item, one in _kept(folder, method, items).items() if "bad" in one}


def _kept(folder: Path, method: Method, items: Sequence[BenchItem]) -> dict[str, dict[str, Any]]:
    """What the judges of now have measured of pictures that are there."""
    judges = judges_of(folder)
    kept = {item.id: _read(_figures_of(folder, method, item)) for item in items if method.picture(item.id) is not None}
    by_now = None if judges is None else _digest(judges)
    return {item: one for item, one in kept.items() if one is not None and one.get("judges") == by_now}


def _figures_of(folder: Path, method: Method, item: BenchItem) -> Path:
    return folder / FIGURES / file_stem(method.name) / f"{file_stem(item.id)}.json"


def _digest(judges: Mapping[str, str | None]) -> str:
    return content_key("judges", json.dumps(judges, sort_keys=True))


def _lain(source: Source, look: Tensor, size: Size) -> _Lain:
    canvas = flat_lay(source, size)
    cells = _inner(canvas.cells if bool(canvas.cells.any()) else ~canvas.cells)
    return _Lain(look, unit_of(canvas.picture[0]), cells.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1))


def _inner(cells: Tensor) -> Tensor:
    """Cells without those at the rim, which show the ground as well; all where nothing else is."""
    rimless = torch.nn.functional.max_pool2d((~cells)[None].float(), 3, 1, 1)[0] == 0
    return rimless if bool(rimless.any()) else cells


def _alone(picture: Pixels, mask: Mask) -> Pixels:
    """What is within a mask, on white, cut to its box."""
    rows, columns = (np.flatnonzero(mask.any(axis=side)) for side in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.where(mask[box][..., None], picture[box], np.uint8(255))


def _pose_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_keypoints.json")


def _existing(path: Path) -> list[Path]:
    return [path] if path.is_file() else []


def _read(path: Path) -> dict[str, Any] | None:
    """What is kept in a file; None where it is not there, or damaged and to be made again."""
    try:
        kept: Any = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return kept if isinstance(kept, dict) else None  # pyright: ignore[reportUnknownVariableType]
