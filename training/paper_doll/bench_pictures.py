# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's pictures: held-out outfits dressed in several ways, each with what it was made from beside it.

    masked      a held-out person whose garments, and a margin, are made anew: the true picture is known
    shuffled    the same in somebody else's garments: what is gained by the right ones
    only-SLOT   one garment made anew alone, the others stay
    free        the same caption and garments from noise: nothing of the picture is given
    undressed   the caption alone, from the same noise

Pictures are made here and measured elsewhere (`bench_report`): a new measure needs no new sampling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.canvas import foreground_cells, garment_canvas
from ...anydressing_core.checkpoint import Checkpoint
from ...anydressing_core.safetensors_header import refusal
from ..base_model import BaseModel
from ..cache import BuildStoppedError
from ..previews import png_bytes
from ..sample_command import dressing_model
from ..sampling import Garment, Person, Picture, SamplingSettings, sample_people
from .garments import SLOTS
from .samples import Sample, sample

ABOUT = "about.json"
FIRST = 10_000  # the first outfit's seed in the held-out split
MARGIN = 8  # pixels around the garments that are made anew, too
CELL = 8


@dataclass(frozen=True)
class Outfit:
    """A held-out person, and the garments of others for the control."""

    seed: int
    truth: Sample
    others: dict[str, Sample]


def outfit(seed: int, slots: Sequence[str], size: tuple[int, int]) -> Outfit:
    """The outfit of a seed, in all of these slots; the control takes each garment from the next person who has one."""
    hats = float("hat" in slots)
    return Outfit(
        seed, sample(seed, "held_out", size, hats), dict.fromkeys(slots, sample(seed + 1, "held_out", size, hats))
    )


def anew_mask(masks: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """Which latent cells are made anew: those within MARGIN pixels of a garment. (1, h, w) bool."""
    together = torch.from_numpy(np.any(masks, axis=0)).float()[None, None]
    wide = functional.max_pool2d(together, 2 * MARGIN + 1, 1, MARGIN)
    return functional.max_pool2d(wide, CELL)[0] > 0


def make_pictures(
    checkpoint: Checkpoint,
    base: BaseModel,
    folder: Path,
    *,
    count: int,
    settings: SamplingSettings,
    seed: int = 0,
    at_once: int = 4,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Dress `count` held-out outfits in every way; those that are there already, made alike, are kept.

    Raises ValueError for a folder with pictures of another file or other settings, BuildStoppedError after `stop`.
    """
    slots = [slot for slot in SLOTS if slot in checkpoint.info.slots]
    made_from = {
        "file": checkpoint.identity,
        "base": base.sha256,
        "seed": seed,
        "slots": slots,
        "size": list(checkpoint.info.resolution),
        **asdict(settings),
    }
    todo = [one for one in range(FIRST, FIRST + count) if not _is_there(folder / str(one), made_from)]
    model, no_text, done = dressing_model(checkpoint, base), base.encode_text([""])[0], count - len(todo)
    for start in range(0, len(todo), at_once):
        progress("dressing held-out people", done, count)
        some = [outfit(one, slots, checkpoint.info.resolution) for one in todo[start : start + at_once]]
        ways = [_ways(one, slots, checkpoint, base) for one in some]
        people = [person for way in ways for person in way.values()]

        def halt(pictures: int) -> None:
            if stop():
                raise BuildStoppedError("The bench was stopped.")

        sampled = iter(
            sample_people(
                model,
                base,
                people,
                no_text,
                settings,
                seed=seed,
                size=checkpoint.info.resolution,
                batch=at_once,
                progress=halt,
            )
        )
        for one, way in zip(some, ways, strict=True):
            _write(folder / str(one.seed), {name: next(sampled) for name in way}, slots, made_from)
            done += 1
    progress("dressing held-out people", done, count)


def _ways(one: Outfit, slots: Sequence[str], checkpoint: Checkpoint, base: BaseModel) -> dict[str, Person]:
    truth = one.truth
    text = base.encode_text([truth.caption])[0]
    own = {slot: _garment(slot, truth, checkpoint, base) for slot in slots}
    others = [_garment(slot, one.others[slot], checkpoint, base) for slot in slots]
    clean = base.encode_mode(_image(truth.person)[None])[0]
    masks = {slot: truth.garments[slot].mask for slot in slots}
    all_anew, name = (clean, anew_mask(list(masks.values()))), str(one.seed)
    singles = {
        f"only-{slot}": Person(name, text, [own[slot]], (clean, anew_mask([masks[slot]])))
        for slot in slots
        if masks[slot].any()
    }
    return {
        "masked": Person(name, text, list(own.values()), all_anew),
        "shuffled": Person(name, text, others, all_anew),
        **singles,
        "free": Person(name, text, list(own.values())),
        "undressed": Person(name, text),
    }


def _garment(slot: str, worn: Sample, checkpoint: Checkpoint, base: BaseModel) -> Garment:
    canvas = garment_canvas(_image(worn.garments[slot].flat_lay)[None], *checkpoint.info.resolution)
    cells = foreground_cells(canvas) if checkpoint.info.garment_tokens == "foreground" else None
    return Garment(slot, base.encode_mode(canvas)[0], cells)


def _image(pixels: np.ndarray[Any, Any]) -> Tensor:
    """(H, W, 3) bytes as (3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def _write(folder: Path, pictures: dict[str, Picture], slots: Sequence[str], made_from: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.png", png_bytes(Image.fromarray(picture.pixels)))
    for name in ("masked", "free"):
        maps = pictures[name].maps
        assert maps is not None
        for slot, attention in zip(slots, maps, strict=True):
            grey = (attention.clamp(0, 1) * 255).round().byte().numpy()
            write_atomically(folder / f"{name}-attention-{slot}.png", png_bytes(Image.fromarray(grey)))
    write_atomically(folder / ABOUT, json.dumps(made_from, indent=1).encode())  # last: with it, all is there


def _is_there(folder: Path, made_from: dict[str, Any]) -> bool:
    about = folder / ABOUT
    if not about.is_file():
        return False
    if json.loads(about.read_text(encoding="utf-8")) != made_from:
        why = "They were made by another file, on another base model or with other settings."
        raise refusal(f"{str(folder)!r}", "holds other pictures", why, "choose another folder, or empty this one.")
    return True
