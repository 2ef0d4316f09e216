# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes samples as a data set on disk, in the trainer's own manifest format: `manifest.jsonl` beside its pictures.

Every file appears under its final name only when it is complete, and a sample's line is written after its pictures, so
that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....anydressing_core.atomic_write import write_atomically
from ....anydressing_core.refusals import refusal
from ...data.manifest import MANIFEST, Item, read_manifest
from ...progress import UNWATCHED, Course, StoppedError
from . import painter
from .fabrics import Split
from .samples import HATS, SIZE, Labels, Sample, sample

Entry: TypeAlias = dict[str, Any]  # one line of the manifest
Mix: TypeAlias = Literal["as-is", "paper"]
FLAT_IN_TURN = ("upper", "lower")
"""Which garment is laid flat in the paper's mix; hats are always cut out (Sec. 8)."""

PAINTING = "painting people"


def write_dataset(
    folder: Path | str,
    count: int,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    split: Split = "train",
    hats: float = HATS,
    workers: int = 1,
    course: Course = UNWATCHED,
    *,
    mix: Mix = "as-is",
) -> Path:
    """Write the samples of the seeds `seed` to `seed + count - 1` and return the manifest's path.

    size: height, width. hats: share of people who wear one. workers: processes that paint. course: told how many of
    these samples are there and how many there will be; once it is to stop, those begun are finished and no other is
    painted. Samples that an earlier run finished are not painted again; other splits, seeds and counts can be added to
    the same folder. mix: "paper" lays one garment of each person flat, the others are cut out of her (Sec. 7.2).
    Raises ValueError where the folder holds samples painted at another size, in another mix or with another share of hats,
    StoppedError when it was stopped.
    """
    folder = Path(folder)
    for part in ("img", "g", "m"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    finished = _finished_items(manifest)
    _refuse_other_settings(finished, size, hats, mix)
    there = {item.id for item in finished}
    todo = [one for one in range(seed, seed + count) if sample_id(split, one) not in there]
    done = count - len(todo)
    course.progress(PAINTING, done, count)
    with manifest.open("a", encoding="utf-8") as lines:
        settings = {"folder": str(folder), "split": split, "size": size, "hats": hats, "mix": mix}
        for entry in _painted(settings, todo, min(workers, len(todo)), course.stop):
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
            lines.flush()
            done += 1
            course.progress(PAINTING, done, count)
        os.fsync(lines.fileno())
    if done < count:
        raise StoppedError(PAINTING, done, count)
    return manifest


def sample_id(split: Split, seed: int) -> str:
    """The name of a sample in a data set."""
    return f"{split}-{seed:07d}"


def write_sample(seed: int, folder: str, split: Split, size: tuple[int, int], hats: float, mix: Mix = "as-is") -> Entry:
    """Paint a sample, write its pictures below `folder`, and return its line of the manifest."""
    height, width = size  # a list when it comes from JSON
    painted, name = sample(seed, split, (height, width), hats), sample_id(split, seed)
    slots = list(painted.garments)
    laid_flat = slots if mix == "as-is" else [FLAT_IN_TURN[seed % 2]]
    for path, picture in _pictures(name, painted, laid_flat):
        write_picture(Path(folder, path), picture)
    garments = [
        {
            "slot": slot,
            "image": f"g/{name}_{slot}.png" if slot in laid_flat else None,
            "kind": "inshop" if slot in laid_flat else "crop",
            "mask": f"m/{name}_{slot}.png",
        }
        for slot in slots
    ]
    return {
        "id": name,
        "image": f"img/{name}.png",
        "caption": painted.caption,
        "split": split,
        "garments": garments,
        "person_mask": f"m/{name}_person.png",
        "size": [height, width],
        "hats": hats,
        "labels": _plain(painted.labels),
    }


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


def _pictures(
    name: str, painted: Sample, laid_flat: Collection[str]
) -> Iterator[tuple[str, NDArray[np.uint8] | NDArray[np.bool_]]]:
    yield f"img/{name}.png", painted.person
    yield f"m/{name}_person.png", painted.person_mask
    for slot, garment in painted.garments.items():
        if slot in laid_flat:
            yield f"g/{name}_{slot}.png", garment.flat_lay
        yield f"m/{name}_{slot}.png", garment.mask


def _painted(settings: dict[str, Any], seeds: list[int], workers: int, stop: Callable[[], bool]) -> Iterator[Entry]:
    """The entries of these seeds, in order, until `stop` says True."""
    if workers > 1:
        yield from _painted_by_others(settings, seeds, workers, stop)
        return
    for seed in seeds:
        if stop():
            return
        yield write_sample(seed, **settings)


def _painted_by_others(
    settings: dict[str, Any], seeds: list[int], workers: int, stop: Callable[[], bool]
) -> Iterator[Entry]:
    command = [sys.executable, painter.__file__, json.dumps(settings)]
    painters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        for _ in range(workers)
    ]
    todo, busy = iter(seeds), deque[subprocess.Popen[str]]()  # busy: whose entry is due next

    def give_work(one: subprocess.Popen[str]) -> None:
        seed = None if stop() else next(todo, None)
        if seed is not None:
            with suppress(OSError):  # it has died: its missing line will tell
                print(seed, file=one.stdin, flush=True)
            busy.append(one)

    try:
        for one in 2 * painters:  # a second seed each, so that nobody waits for work
            give_work(one)
        while busy:
            one = busy.popleft()
            assert one.stdout is not None
            line = one.stdout.readline()
            if not line:
                why = "The samples that it had begun are missing; all others are kept."
                remedy = "see its own message above, then start again; finished samples are not painted twice."
                raise RuntimeError(
                    str(refusal("A painting process", f"ended early, with status {one.wait()}", why, remedy))
                )
            yield json.loads(line)
            give_work(one)
    finally:
        for one in painters:
            one.communicate()  # no more work for you; waits for its end


def _finished_items(manifest: Path) -> list[Item]:
    """What an earlier run finished; a last line that was cut off is taken away, so that new ones start on their own."""
    if not manifest.exists():
        return []
    data = manifest.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        write_atomically(manifest, whole)
    return read_manifest(manifest).items if whole else []


def _refuse_other_settings(finished: list[Item], size: tuple[int, int], hats: float, mix: Mix) -> None:
    cut_out = any(garment.image is None for item in finished for garment in item.garments)
    flat = any(sum(garment.image is not None for garment in item.garments) > 1 for item in finished)
    if (cut_out and mix == "as-is") or (flat and mix == "paper"):
        problem, why = "already holds samples of another mix", f"Samples of mix {mix} would make it uneven."
        raise refusal("The folder", problem, why, "ask for the same as before, or choose another folder.")
    for item in finished:
        if (item.size, item.hats) != (tuple(size), hats):
            problem = f"already holds samples of size {item.size} and share of hats {item.hats}"
            why = f"Samples of size {tuple(size)} and share of hats {hats} would make it uneven."
            raise refusal("The folder", problem, why, "ask for the same as before, or choose another folder.")
