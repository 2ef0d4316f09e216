# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of a bench by one way of dressing, each with what it was made from beside it.

    OUT/BENCH/pictures/METHOD/ID.png   ID.json   attention/PLACE/ID.png          OUT/BENCH/methods/METHOD.json

Whatever measures them reads these files alone. Another method's pictures stay in their own folder, named ID.png or ID.jpg.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.pixels import bytes_of
from ...anydressing_core.refusals import quote, refusal
from ..base.model import BaseModel as FrozenModel
from ..data.manifest import file_stem
from ..model.dresser import Dresser
from ..model.people import EncodedGarment, Person, Picture, sample_people
from ..model.sampling import SamplingSettings
from ..picture_files import png_bytes
from ..progress import UNWATCHED, Course, StoppedError
from ..text_files import read_text
from .items import BenchItem, WornPicture

PICTURES, METHODS = "pictures", "methods"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG", ".WEBP")
LONGEST_NAME = 60

Row = Literal["base", "gfe", "igl", "gtl"]
"""A row of the paper's Table 3."""


ORDER = ("plain", "other", "reference", "base", "gfe", "igl", "gtl", "file")
"""Kinds of methods, as tables list them."""


@dataclass(frozen=True)
class Method:
    """A way of making a bench's pictures, in `folder`. name: what tables call it. is_ours: whether all start from our noise.

    row: of Table 3 that it stands in. made_from: what is told of it.
    """

    name: str
    folder: Path
    is_ours: bool
    row: Row | None = None
    made_from: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def kind(self) -> str:
        """One of ORDER."""
        return self.row or (self.made_from["way"] if self.is_ours else "other")

    def picture(self, item: str) -> Path | None:
        """Where the picture of an item lies; None while there is none. Others may name theirs by the id as it is."""
        stems = dict.fromkeys([file_stem(item), *([] if self.is_ours else [item])])
        paths = (self.folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def attention(self, item: str, place: int) -> Path:
        """Where the map of an item's garment lies, A_k, which other methods do not have."""
        return self.folder / "attention" / str(place) / f"{file_stem(item)}.png"


class _Told(BaseModel):
    """What stands in a method's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    folder: str | None
    row: Row | None
    made_from: dict[str, Any]


def named(name: str) -> str:
    """A method's name, as it may be a file's. Raises ValueError for others."""
    if not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME or name != name.strip() or name.startswith("."):
        why = f"It is a line of 1 to {LONGEST_NAME} visible characters that does not begin with a dot."
        raise refusal(f"--name {quote(name)}", "cannot be a method's name", why, "choose another.")
    return name


def open_method(bench: Path, method: Method) -> Method:
    """Say in a bench's folder what a method is; a row that it had stays where none is named.

    Raises ValueError where another has its name or its row.
    """
    others = {one.name: one for one in methods_of(bench)}
    there = others.pop(method.name, None)
    if there is not None:
        device = {"device": None}  # another one changes the rounding alone
        same_folder = there.is_ours == method.is_ours and (method.is_ours or _at(there) == _at(method))
        if not same_folder or {**there.made_from, **device} != {**method.made_from, **device}:
            why = "They were made by another file, on another base model or with other settings."
            remedy = "give this one another --name."
            raise refusal(f"The method {quote(method.name)}", "has other pictures there", why, remedy)
        method = replace(method, row=method.row or there.row)
    for other in others.values():
        if method.row is not None and other.row == method.row:
            why = f"It is that of {quote(other.name)}."
            raise refusal(f"--row {method.row}", "is taken", why, "leave --row out, or evaluate into another --out.")
    folder = None if method.is_ours else _at(method)
    told = _Told(name=method.name, folder=folder, row=method.row, made_from=method.made_from)
    path = bench / METHODS / f"{file_stem(method.name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, told.model_dump_json(indent=1).encode())
    return method


def _at(method: Method) -> str:
    return str(method.folder.absolute())


def methods_of(bench: Path) -> list[Method]:
    """All methods that a bench's folder knows: nobody dressed, others', reference, rows of Table 3, files."""
    methods: list[Method] = []
    for path in sorted((bench / METHODS).glob("*.json")):
        try:
            told = _Told.model_validate_json(read_text(path))
        except ValidationError as error:
            why = "It should say what a method's pictures were made from."
            raise refusal(f"{str(path)!r}", "cannot be read", why, "take it away and evaluate again.") from error
        folder = bench / PICTURES / path.stem if told.folder is None else Path(told.folder)
        methods.append(Method(told.name, folder, told.folder is None, told.row, told.made_from))
    return sorted(methods, key=lambda method: (ORDER.index(method.kind), method.name))


Encode = Callable[[WornPicture], EncodedGarment]
"""Makes a garment of an item ready to be worn."""


@dataclass(frozen=True)
class Share:
    """Which of how many processes this is."""

    rank: int = 0
    ranks: int = 1

    def of(self, items: Sequence[BenchItem]) -> Sequence[BenchItem]:
        """Its items."""
        return items[self.rank :: self.ranks]


ALONE = Share()


def dress_items(
    model: Dresser,
    base: FrozenModel,
    items: Sequence[BenchItem],
    method: Method,
    settings: SamplingSettings,
    encode: Encode | None,
    *,
    at_once: int = 4,
    share: Share = ALONE,
    course: Course = UNWATCHED,
) -> None:
    """Make the pictures of this process' share that are not there yet, each in the company in which it would be made with all: what a
    picture is made beside changes its rounding.

    encode: None leaves everybody undressed. An item's seed alone decides its noise, whatever settings' is. Raises StoppedError, between two steps,
    when it is stopped.
    """
    own = share.of(items)
    todo = {item.id for item in own if not _is_made(method, item)}
    no_text, done, what = base.encode_text([""])[0], len(own) - len(todo), f"dressing by {method.name}"

    def tick(pictures: int) -> None:
        if course.stop():
            raise StoppedError(what, done, len(own))

    method.folder.mkdir(parents=True, exist_ok=True)
    if share.ranks == 1:  # nobody else is writing: these are what a kill left behind
        for path in method.folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
    for start in range(0, len(own), at_once):
        some = own[start : start + at_once]
        if not any(item.id in todo for item in some):
            continue
        course.go_on(what, done, len(own))
        worn: dict[WornPicture, EncodedGarment] = {}
        if encode is not None:
            worn = {
                garment: encode(garment) for garment in dict.fromkeys(one for item in some for one in item.garments)
            }
        texts = base.encode_text([item.prompt for item in some])
        people = [
            Person(f"seed {item.seed}", text, [worn[one] for one in item.garments] if worn else ())
            for item, text in zip(some, texts, strict=True)
        ]
        size = model.preparation.resolution
        noised = replace(settings, seed=0)
        pictures = sample_people(model, base, people, no_text, noised, size=size, batch=at_once, tick=tick)
        for item, picture in zip(some, pictures, strict=True):
            if item.id in todo:
                _write(method, item, picture)
                done += 1
    course.progress(what, done, len(own))


def _is_made(method: Method, item: BenchItem) -> bool:
    beside = method.folder / f"{file_stem(item.id)}.json"
    return beside.is_file() and method.picture(item.id) is not None


def _write(method: Method, item: BenchItem, picture: Picture) -> None:
    write_atomically(method.folder / f"{file_stem(item.id)}.png", png_bytes(Image.fromarray(picture.pixels)))
    for place, attention in enumerate([] if picture.maps is None else picture.maps):
        method.attention(item.id, place).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(method.attention(item.id, place), png_bytes(Image.fromarray(bytes_of(attention))))
    beside = {**item.model_dump(), **method.made_from}
    path = method.folder / f"{file_stem(item.id)}.json"
    write_atomically(path, json.dumps(beside, indent=1).encode())  # last: with it, all is there
