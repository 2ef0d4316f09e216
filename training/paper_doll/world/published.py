# SPDX-License-Identifier: GPL-3.0-or-later
"""Painted people in the layouts of published data sets, down to file names and numbers: to walk a real road on dolls.

DressCode (two of its categories) and VITON-HD, as `training/wardrobes` reads them. Nobody of either is in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....anydressing_core.atomic_write import write_atomically
from ...picture_files import jpeg_bytes, png_bytes
from ...progress import UNWATCHED, Course
from .fabrics import Split
from .samples import HATS, SIZE, Sample, sample

PublishedLayout = Literal["dresscode", "viton-hd"]

HELD_OUT_FROM = 500_000
"""Held-out people are numbered from here, so that both splits of a folder have numbers of their own."""

ATR: Mapping[str, int] = {"person": 11, "hat": 1, "upper": 4, "skirt": 5, "lower": 6}
CIHP: Mapping[str, int] = {"person": 13, "hat": 1, "upper": 5, "skirt": 12, "lower": 9}
CAPTIONS = "captions.jsonl"
"""What neither publishes: captions, by the ids that a conversion gives. `data dresscode --captions` reads them."""

CATEGORIES = (("upper_body", "upper"), ("lower_body", "lower"))


def write_published(
    folder: Path,
    count: int,
    layout: PublishedLayout,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    split: Split = "train",
    hats: float = HATS,
    course: Course = UNWATCHED,
) -> Path:
    """Write the samples of the seeds `seed` to `seed + count - 1`, and the split's lists, which name these alone.

    size: height, width. Both splits may lie in one folder. Returns the folder. Raises StoppedError.
    """
    write = _write_dresscode if layout == "dresscode" else _write_viton_hd
    people: list[tuple[str, str]] = []
    captions = _captions(folder / CAPTIONS)
    for (one,) in course.batches("painting people", range(seed, seed + count), 1):
        painted = sample(one, split, size, hats)
        people.append(write(folder, one, split, painted))
        captions["-".join(people[-1])] = painted.caption
    _write(folder / CAPTIONS, "".join(_line(name, told) for name, told in sorted(captions.items())).encode())
    lists = _lists_of_dresscode(people, split) if layout == "dresscode" else _lists_of_viton_hd(people, split)
    for name, lines in lists.items():
        _write(folder / name, "".join(f"{line}\n" for line in lines).encode())
    return folder


def _write_dresscode(folder: Path, seed: int, split: Split, painted: Sample) -> tuple[str, str]:
    """Every other person with the upper garment laid flat, the others with the lower one. Returns category and number."""
    category, slot = CATEGORIES[seed % 2]
    number = f"{seed + HELD_OUT_FROM * (split == 'held_out'):06d}"
    below = folder / category
    _write(below / "images" / f"{number}_0.jpg", jpeg_bytes(Image.fromarray(painted.person)))
    _write(below / "images" / f"{number}_1.jpg", jpeg_bytes(Image.fromarray(painted.garments[slot].flat_lay)))
    _write(below / "label_maps" / f"{number}_4.png", _label_map(painted, ATR))
    return category, number


def _lists_of_dresscode(people: Sequence[tuple[str, str]], split: Split) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for category, _ in CATEGORIES:
        numbers = [number for of, number in people if of == category]
        paired = [f"{number}_0.jpg\t{number}_1.jpg" for number in numbers]
        if split == "train":
            lists[f"{category}/train_pairs.txt"] = paired
        else:
            others = [*numbers[1:], *numbers[:1]]
            unpaired = [f"{one}_0.jpg\t{other}_1.jpg" for one, other in zip(numbers, others, strict=True)]
            lists[f"{category}/test_pairs_paired.txt"] = paired
            lists[f"{category}/test_pairs_unpaired.txt"] = unpaired
    return lists


def _write_viton_hd(folder: Path, seed: int, split: Split, painted: Sample) -> tuple[str, str]:
    part, name = "train" if split == "train" else "test", f"{seed:05d}_00"
    below = folder / part
    _write(below / "image" / f"{name}.jpg", jpeg_bytes(Image.fromarray(painted.person)))
    _write(below / "cloth" / f"{name}.jpg", jpeg_bytes(Image.fromarray(painted.garments["upper"].flat_lay)))
    _write(below / "image-parse-v3" / f"{name}.png", _label_map(painted, CIHP))
    return part, name


def _lists_of_viton_hd(people: Sequence[tuple[str, str]], split: Split) -> dict[str, list[str]]:
    names = [name for _, name in people]
    if split == "train":
        return {"train_pairs.txt": [f"{name}.jpg {name}.jpg" for name in names]}
    others = [*names[1:], *names[:1]]
    return {"test_pairs.txt": [f"{one}.jpg {other}.jpg" for one, other in zip(names, others, strict=True)]}


def _label_map(painted: Sample, classes: Mapping[str, int]) -> bytes:
    """A picture of numbers with a palette, as both publish them."""
    numbers: NDArray[np.uint8] = np.where(painted.person_mask, np.uint8(classes["person"]), np.uint8(0))
    for slot, garment in painted.garments.items():
        kind = painted.labels.garments[slot].kind
        numbers[garment.mask] = classes["skirt" if "skirt" in kind else slot]
    picture = Image.fromarray(numbers)
    picture.putpalette([channel for number in range(64) for channel in (number * 37 % 256, number * 91 % 256, 40)])
    return png_bytes(picture)


def _captions(path: Path) -> dict[str, str]:
    """Those of an earlier run, by id."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {told["id"]: told["caption"] for told in map(json.loads, lines)}


def _line(name: str, caption: str) -> str:
    return json.dumps({"id": name, "caption": caption}) + "\n"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
