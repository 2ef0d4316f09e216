# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes samples as a data set on disk, in the trainer's own manifest format: `manifest.jsonl` beside its pictures.

Every file appears under its final name only when it is complete, and a sample's line is written after its pictures, so
that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .fabrics import Split
from .samples import HATS, SIZE, Labels, Sample, sample

Entry: TypeAlias = dict[str, Any]  # one line of the manifest
MANIFEST = "manifest.jsonl"


def write_dataset(
    folder: Path | str,
    count: int,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    split: Split = "train",
    hats: float = HATS,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the samples of the seeds `seed` to `seed + count - 1` and return the manifest's path.

    size: height, width. hats: share of people who wear one. workers: processes that paint. progress: called with how
    many of these samples are there and how many there will be. Samples that an earlier run finished are not painted
    again; other splits, seeds and counts can be added to the same folder. Raises ValueError where the folder holds the
    same samples painted at another size or with another share of hats.
    """
    folder = Path(folder)
    for part in ("img", "g", "m"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    finished = _repaired_entries(manifest)
    seeds = range(seed, seed + count)
    _refuse_other_settings(finished, size, hats)
    todo = [one for one in seeds if sample_id(split, one) not in finished]
    done = count - len(todo)
    if progress:
        progress(done, count)
    with manifest.open("a", encoding="utf-8") as lines:
        for entry in _painted(partial(write_sample, folder, split=split, size=size, hats=hats), todo, workers):
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
            lines.flush()
            done += 1
            if progress:
                progress(done, count)
        os.fsync(lines.fileno())
    return manifest


def sample_id(split: Split, seed: int) -> str:
    """The name of a sample in a data set."""
    return f"{split}-{seed:07d}"


def write_sample(folder: Path, seed: int, split: Split, size: tuple[int, int], hats: float) -> Entry:
    """Paint a sample, write its pictures below `folder`, and return its line of the manifest."""
    painted, name = sample(seed, split, size, hats), sample_id(split, seed)
    for path, picture in _pictures(name, painted):
        write_picture(folder / path, picture)
    garments = [
        {"slot": slot, "image": f"g/{name}_{slot}.png", "kind": "inshop", "mask": f"m/{name}_{slot}.png"}
        for slot in painted.garments
    ]
    return {
        "id": name,
        "image": f"img/{name}.png",
        "caption": painted.caption,
        "split": split,
        "garments": garments,
        "person_mask": f"m/{name}_person.png",
        "size": list(size),
        "hats": hats,
        "labels": _plain(painted.labels),
    }


def read_manifest(manifest: Path | str) -> list[Entry]:
    """The entries of a manifest, one for each finished sample."""
    return [json.loads(line) for line in Path(manifest).read_text(encoding="utf-8").splitlines()]


def write_picture(path: Path, picture: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    """Write a PNG under its final name only when it is complete. Masks become black and white."""
    if picture.dtype == np.bool_:
        picture = np.where(picture, np.uint8(255), np.uint8(0))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(picture).save(unfinished, format="PNG", compress_level=3)
    unfinished.replace(path)


def _plain(labels: Labels) -> Entry:
    """The labels as JSON knows them."""
    return vars(labels) | {"garments": {slot: asdict(garment) for slot, garment in labels.garments.items()}}


def _pictures(name: str, painted: Sample) -> Iterator[tuple[str, NDArray[np.uint8] | NDArray[np.bool_]]]:
    yield f"img/{name}.png", painted.person
    yield f"m/{name}_person.png", painted.person_mask
    for slot, garment in painted.garments.items():
        yield f"g/{name}_{slot}.png", garment.flat_lay
        yield f"m/{name}_{slot}.png", garment.mask


def _painted(paint: Callable[[int], Entry], seeds: list[int], workers: int) -> Iterator[Entry]:
    """The entries of these seeds, in order."""
    if workers <= 1 or len(seeds) <= 1:
        yield from map(paint, seeds)
        return
    # `fork` is quicker to start but unsafe once torch has started threads in this process.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(seeds)), _one_thread) as pool:
        yield from pool.imap(paint, seeds, chunksize=4)


def _one_thread() -> None:
    """Keep OpenCV to one thread in each worker: the workers are what runs in parallel."""
    import cv2

    cv2.setNumThreads(1)


def _repaired_entries(manifest: Path) -> dict[str, Entry]:
    """The finished samples by id; a last line that was cut off is taken away, so that new ones start on their own."""
    if not manifest.exists():
        return {}
    text = manifest.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        unfinished = manifest.with_name(f".{manifest.name}.{os.getpid()}")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(manifest)
    return {entry["id"]: entry for entry in map(json.loads, text.splitlines())}


def _refuse_other_settings(finished: dict[str, Entry], size: tuple[int, int], hats: float) -> None:
    for entry in finished.values():
        if (entry["size"], entry["hats"]) != (list(size), hats):
            there, wanted = (entry["size"], entry["hats"]), (list(size), hats)
            raise ValueError(
                f"This folder already holds samples of size and share of hats {there}, but {wanted} were asked for. "
                "Ask for the same, or choose another folder."
            )
