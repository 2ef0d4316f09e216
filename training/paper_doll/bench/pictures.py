# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's pictures: held-out outfits dressed in several ways, each with what it was made from beside it.

    masked      a held-out person whose garments, and a margin, are made anew: the true picture is known
    shuffled    the same in somebody else's garments: what is gained by the right ones
    only-SLOT   one garment made anew alone, the others stay
    free        the same caption and garments from noise: nothing of the picture is given
    undressed   the caption alone, from the same noise

Pictures are made here and measured elsewhere (`measures`): a new measure needs no new sampling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ....anydressing_core.atomic_write import write_atomically
from ....anydressing_core.canvas import lay_out
from ....anydressing_core.latents import CELL, half_size
from ....anydressing_core.pixels import as_signed, bytes_of
from ....anydressing_core.places import words_for
from ....anydressing_core.refusals import quote, refusal
from ...base.model import BaseModel
from ...model.dresser import Dresser, Preparation
from ...model.people import EncodedGarment, Person, Picture, sample_people
from ...model.sampling import SamplingSettings
from ...picture_files import png_bytes
from ...progress import UNWATCHED, Course, StoppedError
from ...text_files import read_text
from ..world.garments import SLOTS
from ..world.samples import Sample, sample

WAYS = ("masked", "shuffled", "only", "free", "undressed")
ABOUT = "about.json"
FIRST = 10_000  # the first outfit's seed in the held-out split
MARGIN = 8  # pixels around the garments that are made anew, too


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


def encode_garment(
    slot: str, worn: Sample, wearer: Sample, preparation: Preparation, base: BaseModel, half: bool
) -> EncodedGarment:
    """A garment laid flat, called by its slot's own word. worn: whose it is. wearer: who is dressed in it. half: at half its size."""
    height, width = half_size(preparation.resolution) if half else preparation.resolution
    canvas = lay_out(as_signed(worn.garments[slot].flat_lay)[None], height, width)
    words = base.encode_words(words_for(slot))
    return EncodedGarment(slot, base.encode_mode(canvas.picture)[0], canvas.cells, words)


EncodeGarment = Callable[[str, Sample, Sample, Preparation, BaseModel, bool], EncodedGarment]


@dataclass(frozen=True)
class BenchPlan:
    """How many held-out outfits are dressed, and how.

    slots: what is worn, all that the model knows when empty. half: garments are read at half their size. at_once: how
    many pictures, which changes them by rounding only. encode: how a garment is made ready.
    """

    count: int
    settings: SamplingSettings
    slots: Sequence[str] = ()
    ways: Sequence[str] = WAYS
    half: bool = False
    at_once: int = 4
    encode: EncodeGarment = encode_garment


def make_pictures(
    model: Dresser,
    identity: str,
    base: BaseModel,
    folder: Path,
    plan: BenchPlan,
    *,
    course: Course = UNWATCHED,
) -> None:
    """Dress held-out outfits in every way of a plan; those that are there already, made alike, are kept.

    identity: what tells the model's weights from any others. Raises ValueError for slots that the model does not know
    and for a folder with pictures of other weights or settings, StoppedError, between two steps, when it is stopped.
    """
    info = model.preparation
    plan = replace(plan, slots=_known(plan.slots, info))
    made_from = _made_from(identity, base, info, plan)
    todo = [one for one in range(FIRST, FIRST + plan.count) if not _is_there(folder / str(one), made_from)]
    no_text, done, what = base.encode_text([""])[0], plan.count - len(todo), "dressing held-out people"

    def tick(pictures: int) -> None:
        if course.stop():
            raise StoppedError(what, done, plan.count)

    for start in range(0, len(todo), plan.at_once):
        course.go_on(what, done, plan.count)
        some = [outfit(one, plan.slots, info.resolution) for one in todo[start : start + plan.at_once]]
        dressed = [_dressed(one, plan, info, base) for one in some]
        people = [person for way in dressed for person in way.values()]
        size, batch = info.resolution, plan.at_once
        sampled = iter(sample_people(model, base, people, no_text, plan.settings, size=size, batch=batch, tick=tick))
        for one, way in zip(some, dressed, strict=True):
            _write(folder / str(one.seed), {name: next(sampled) for name in way}, plan.slots, made_from)
            done += 1
    course.progress(what, done, plan.count)


def _known(slots: Sequence[str], info: Preparation) -> list[str]:
    """The slots in their order, all that are known when none is named."""
    known = info.slots or SLOTS
    for slot in slots:
        if slot not in known:
            why = f"The file was trained for {', '.join(known)}."
            raise refusal(f"--slots: {quote(slot)}", "is no garment kind of this file", why, "choose among these.")
    return [slot for slot in SLOTS if slot in (slots or known)]


def _made_from(identity: str, base: BaseModel, info: Preparation, plan: BenchPlan) -> dict[str, Any]:
    return {
        "file": identity,
        "base": base.sha256,
        "slots": list(plan.slots),
        "ways": list(plan.ways),
        "half": plan.half,
        "size": list(info.resolution),
        **base.hardware.told(),
        **plan.settings.told(),
    }


def _dressed(one: Outfit, plan: BenchPlan, info: Preparation, base: BaseModel) -> dict[str, Person]:
    """The person of each picture, by its name."""
    truth, slots, ways = one.truth, plan.slots, plan.ways
    text = base.encode_text([truth.caption])[0]
    own = {slot: plan.encode(slot, truth, truth, info, base, plan.half) for slot in slots}
    clean = base.encode_mode(as_signed(truth.person)[None])[0]
    masks = {slot: truth.garments[slot].mask for slot in slots}
    all_anew, name = (clean, anew_mask(list(masks.values()))), str(one.seed)
    people: dict[str, Person] = {}
    if "masked" in ways:
        people["masked"] = Person(name, text, list(own.values()), all_anew)
    if "shuffled" in ways:
        others = [plan.encode(slot, one.others[slot], truth, info, base, plan.half) for slot in slots]
        people["shuffled"] = Person(name, text, others, all_anew)
    for slot in slots if "only" in ways else ():
        if masks[slot].any():
            people[f"only-{slot}"] = Person(name, text, [own[slot]], (clean, anew_mask([masks[slot]])))
    if "free" in ways:
        people["free"] = Person(name, text, list(own.values()))
    if "undressed" in ways:
        people["undressed"] = Person(name, text)
    return people


def _write(folder: Path, pictures: dict[str, Picture], slots: Sequence[str], made_from: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.png", png_bytes(Image.fromarray(picture.pixels)))
        if picture.computed:
            write_atomically(folder / f"{name}-computed.json", json.dumps(picture.computed, indent=1).encode())
    for name in sorted({"masked", "free"} & pictures.keys()):
        maps = pictures[name].maps
        assert maps is not None
        for slot, attention in zip(slots, maps, strict=True):
            write_atomically(folder / f"{name}-attention-{slot}.png", png_bytes(Image.fromarray(bytes_of(attention))))
    write_atomically(folder / ABOUT, json.dumps(made_from, indent=1).encode())  # last: with it, all is there


def _is_there(folder: Path, made_from: dict[str, Any]) -> bool:
    about = folder / ABOUT
    if not about.is_file():
        return False
    there = json.loads(read_text(about))
    if {**there, "device": None} != {**made_from, "device": None}:  # another device changes the rounding alone
        why = "They were made by another file, on another base model or with other settings."
        raise refusal(f"{str(folder)!r}", "holds other pictures", why, "choose another folder, or empty this one.")
    return True
