# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bench asks for, method after method: garments and a prompt, item by item (Sec. 5.1).

    single         one garment of a data set's held-out ones             300 of them, 7 prompts each
    dressing-pair  every one of 10 uppers with every one of 25 lowers    250 outfits, 7 prompts each
    three          an upper, a lower and a hat                           50 outfits, 7 prompts each
    pairs          one's own items, a line each:
                   {"id": "a1", "prompt": "a woman in a park", "seed": 1, "garments": [{"slot": "upper", "image": "a.png"}]}

OUT/BENCH holds `items.jsonl` in that same form and the `garments/` that it names, which is all another method needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.defaults import RESOLUTION
from ...anydressing_core.digests import content_key
from ...anydressing_core.refusals import quote, refusal
from ..data.manifest import Manifest, Name, Slot, plain_caption, safe_relative_path
from ..data.pictures import BadPictureError, Source, flat_lay
from ..places import require_there
from ..text_files import read_text

ITEMS, GARMENTS, DATA = "items.jsonl", "garments", "data.txt"
BenchName = Literal["single", "dressing-pair", "three", "pairs"]

PROMPTS = (
    "a woman standing in a park on a sunny day",
    "a woman walking through a city street at night",
    "a woman on a beach at sunset",
    "a man sitting in a cafe",
    "a man standing in a library",
    "a person in a garden full of flowers",
    "a person in front of a plain studio wall, full body",
)
"""Seven, as the paper has them; it does not print its own."""

SINGLES, UPPERS, LOWERS, THREES = 300, 10, 25, 50
MOST_ITEMS = 100_000
MOST_SEED = 2**63 - 1


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WornPicture(_Line):
    """A garment. image: its picture, beside the items. words: what it is called where it is dressed by reference."""

    slot: Slot
    image: Annotated[str, AfterValidator(safe_relative_path)]
    words: Annotated[str, Field(max_length=200)] = ""


class BenchItem(_Line):
    """One picture that is asked for. outfit: what items in the same garments have in common; its id when left out."""

    id: Name
    prompt: Annotated[str, AfterValidator(plain_caption)]
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    garments: Annotated[tuple[WornPicture, ...], Field(min_length=1, max_length=8)]
    outfit: str = ""

    @property
    def worn_as(self) -> str:
        """Which outfit it is of."""
        return self.outfit or self.id


@dataclass(frozen=True)
class Garment:
    """A garment laid flat, to make items of. name: as the manifest spells its picture."""

    slot: str
    name: str
    path: Path


@dataclass(frozen=True)
class Asked:
    """Items, and where the picture of each name in them lies. of: what they are made of, in words."""

    items: Sequence[BenchItem]
    pictures: Mapping[str, Path]
    of: str = "not told"


def make_items(
    bench: BenchName, garments: Sequence[Garment], prompts: Sequence[str], seed: int, most: int | None
) -> Asked:
    """The items of a bench from the garments of a data set, the same for the same data.

    seed: of the first item, each has its own. most: outfits, fewer than the paper's. Raises ValueError when nothing fits.
    """
    outfits = _outfits(bench, garments, most)
    if not 0 <= seed <= MOST_SEED - MOST_ITEMS:
        raise refusal(f"--seed {seed}", "is impossible", f"It is 0 to {MOST_SEED - MOST_ITEMS}.", "choose another.")
    if not outfits:
        needs = {"single": "an upper, a lower or a dress", "dressing-pair": "an upper and a lower"}
        why = f"It needs {needs.get(bench, 'an upper, a lower and a hat')} laid flat, held out from training."
        remedy = "name the manifest of a converted data set, or --bench pairs with items of your own."
        raise refusal(f"--bench {bench}", "finds no garments", why, remedy)
    worn = dict.fromkeys(garment for outfit in outfits for garment in outfit)
    kept = {garment: _kept_as(garment.name, garment.path) for garment in worn}
    items = [
        BenchItem(
            id=f"{place:04d}-{number}",
            prompt=prompt,
            seed=seed + place * len(prompts) + number,
            garments=tuple(WornPicture(slot=one.slot, image=kept[one]) for one in outfit),
            outfit=f"{place:04d}",
        )
        for place, outfit in enumerate(outfits)
        for number, prompt in enumerate(prompts)
    ]
    return Asked(items, {name: garment.path for garment, name in kept.items()})


def _outfits(bench: BenchName, garments: Sequence[Garment], most: int | None) -> list[tuple[Garment, ...]]:
    """In an order that chance chose once for all, so that the first few are as good a sample as any."""
    drawn = sorted(garments, key=lambda one: content_key("bench", one.name))
    of = {slot: [one for one in drawn if one.slot == slot] for slot in ("upper", "lower", "hat", "dress")}
    outfits: list[tuple[Garment, ...]]
    if bench == "single":
        outfits = [(one,) for one in drawn if one.slot in ("upper", "lower", "dress")][:SINGLES]
    elif bench == "dressing-pair":
        outfits = list(product(of["upper"][:UPPERS], of["lower"][:LOWERS]))
        outfits.sort(key=lambda pair: content_key("pair", pair[0].name, pair[1].name))
    else:
        outfits = list(zip(of["upper"], of["lower"], of["hat"], strict=False))[:THREES]
    return outfits[:most]


def garments_of(manifest: Manifest) -> list[Garment]:
    """Every garment laid flat of a manifest's held-out people, once; none that anybody was trained in."""
    trained = {worn.image for item in manifest.of_split("train") for worn in item.garments}
    found = {
        worn.image: Garment(worn.slot, worn.image, manifest.path(worn.image))
        for item in manifest.of_split("held_out")
        for worn in item.garments
        if worn.image is not None and worn.image not in trained
    }
    return list(found.values())


def own_items(path: Path, root: Path | None = None) -> Asked:
    """Somebody's own items. root: where their garments lie, beside the file when left out."""
    items = read_items(require_there(path))
    folder, pictures = root or path.parent, dict[str, Path]()
    kept: list[BenchItem] = []
    for item in items:
        worn: list[WornPicture] = []
        for garment in item.garments:
            place = require_there(folder / garment.image, f"Item {quote(item.id)}")
            worn.append(garment.model_copy(update={"image": _kept_as(garment.image, place)}))
            pictures[worn[-1].image] = place
        kept.append(item.model_copy(update={"garments": tuple(worn)}))
    return Asked(kept, pictures)


def read_items(path: Path) -> list[BenchItem]:
    """The items of a file. Raises ValueError that names the line."""
    items: dict[str, BenchItem] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        item = _item(line)
        if isinstance(item, str) or item.id in items or len(items) == MOST_ITEMS:
            form = '{"id": "a1", "prompt": "a woman in a park", "garments": [{"slot": "upper", "image": "a.png"}]}'
            twice = "Its id stands there twice." if len(items) < MOST_ITEMS else f"There are more than {MOST_ITEMS}."
            why = item if isinstance(item, str) else twice
            raise refusal(f"Line {number} of {path.name!r}", "is no item", why, f"write {form}.")
        items[item.id] = item
    if not items:
        raise refusal(f"{path.name!r}", "holds no item", "A line is one picture that is asked for.", "add some.")
    return list(items.values())


def _item(line: str) -> BenchItem | str:
    """The item of a line, or why it is none."""
    try:
        return BenchItem.model_validate(json.loads(line))
    except ValidationError as error:
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc'])) or 'it'}: {found['msg']}."
    except (ValueError, RecursionError):
        return "It is not one JSON object."


def lay_down(asked: Asked, folder: Path) -> list[BenchItem]:
    """Write items and the pictures of their garments into a bench's folder, if they are not there; returns the items.

    Raises ValueError where it holds other items, whose pictures could not be compared with these.
    """
    text = "".join(item.model_dump_json() + "\n" for item in asked.items)
    there = folder / ITEMS
    if there.is_file() and read_text(there) != text:
        why = "They came of other data, prompts, seeds or another count; pictures of both cannot stand in one table."
        raise refusal(f"{str(folder)!r}", "holds other items", why, "ask for the same, or name another --out.")
    if not there.is_file():
        for path in asked.pictures.values():
            _require_garment(path)
    for name, path in asked.pictures.items():
        kept = folder / name
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, path.read_bytes())
    if not there.is_file():
        write_atomically(folder / DATA, asked.of.encode())
        write_atomically(there, text.encode())
    return list(asked.items)


def _require_garment(path: Path) -> None:
    try:
        flat_lay(Source.find(path.name, path), RESOLUTION)
    except BadPictureError as error:
        raise refusal(
            f"The garment {str(path)!r}", "cannot be worn", f"{error.why}.", "choose another picture."
        ) from error


def data_of(folder: Path) -> str:
    """What a bench's items are made of, in words."""
    path = folder / DATA
    return read_text(path) if path.is_file() else "not told"


def _kept_as(name: str, path: Path) -> str:
    """How a garment's picture is called in a bench's folder: by its bytes, so that two of one name stay apart."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return f"{GARMENTS}/{digest}{Path(name).suffix.lower() or '.png'}"


BENCH_WORDS: Mapping[BenchName, str] = MappingProxyType(
    {
        "single": "one garment",
        "dressing-pair": "upper and lower",
        "three": "upper, lower and hat",
        "pairs": "items of one's own",
    }
)
