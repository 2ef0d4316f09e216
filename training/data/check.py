# SPDX-License-Identifier: GPL-3.0-or-later
"""What `anydressing data check` says: what in a data set cannot be used, what looks wrong, and how much there is.

Every file is opened to its last byte by the functions that fill the cache, so that what passes here is cached later.
Training sets people with problems aside, and refuses when they are many; a warning stops nothing.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from transformers import CLIPTokenizer

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.heat_maps import COLOURS
from ...anydressing_core.safetensors_header import quote, refusal
from ...anydressing_core.word_table import POSITIONS, WIDTH, WORDS
from ..base.tokenizer import load_tokenizer
from ..dressing.previews import (
    BETWEEN,
    GAP,
    GREY,
    HEADER,
    INK,
    MARGIN,
    PAPER,
    PICTURE_HEIGHT,
    draw_flat_lays,
    draw_legend,
    png_bytes,
    typeface,
    write_line,
)
from ..model.sampling import as_pixels
from .manifest import Item, Manifest, WornGarment, read_manifest
from .pictures import (
    BadPictureError,
    Size,
    Source,
    cut_out,
    flat_lay,
    grey_share,
    person_picture,
    picture_size,
    worn_mask,
)

Level = Literal["problem", "warning"]
Progress = Callable[[str, int, int], None]
T = TypeVar("T")

MOST_BAD = 0.05
"""The share of a split's people that may have problems, as `data.most_bad_items` is when nobody changes it."""

MOST_TOKENS = POSITIONS - 2  # without CLIP's first and last
MOST_OVERLAP = 0.05  # of the smaller mask
MASK_AREA = (0.01, 0.6)  # of the picture
MOST_GREY = 0.02  # of a mask; smooth outlines have less
MOST_CROPPED = 0.1  # of a picture
MOST_ENLARGED = 2.0

EXAMPLES = 3
READ_AT_ONCE = 64


@dataclass(frozen=True)
class Kind:
    """A sort of finding. what: completes a list's heading. remedy: what to do about it."""

    level: Level
    what: str
    remedy: str


KINDS = {
    "unreadable": Kind(
        "problem",
        "files that are missing, damaged or no pictures",
        "copy or export them again, as PNG or JPEG, or take these people out of the manifest.",
    ),
    "link": Kind("problem", "files behind a link that leads out of the data folder or nowhere", "copy them there."),
    "mask size": Kind(
        "problem",
        "masks of another size than their picture",
        "export both together: a mask lies on the upright picture, pixel on pixel.",
    ),
    "empty mask": Kind(
        "problem",
        "empty masks",
        "paint white where the garment shows, or leave the garment out of the manifest.",
    ),
    "cut off": Kind(
        "problem",
        "garments that are no longer seen once the picture is cropped",
        "train at a resolution shaped like the pictures, or leave these garments out of the manifest.",
    ),
    "blank": Kind(
        "problem",
        "garment pictures on which no garment is seen",
        "name the right pictures; a garment lies on white and is not all white itself.",
    ),
    "leak": Kind(
        "warning",
        "people of held_out who are in train, too",
        "keep each in one split; what is measured on held_out is worth nothing otherwise.",
    ),
    "shared garment": Kind(
        "warning",
        "garments of held_out that are in train, too",
        "give all wearers of a garment the same split, or held_out measures memory instead of skill.",
    ),
    "duplicate": Kind(
        "warning",
        "people whose picture another one of their split has",
        "keep one of each, unless they are to count twice; all garments of a picture stand in one line.",
    ),
    "no in-shop": Kind(
        "warning",
        "no garment with a picture of its own",
        "add pictures of garments laid flat. Cut-outs already lie as they are worn: expect weaker results with pictures"
        " from a shop.",
    ),
    "overlap": Kind(
        "warning",
        f"pairs of masks of one person that share more than {MOST_OVERLAP:.0%} of the smaller one",
        "let every mask show only what is seen of its garment, not what another garment covers.",
    ),
    "small mask": Kind(
        "warning",
        f"masks that cover less than {MASK_AREA[0]:.0%} of the picture",
        "look whether they are complete; of so little, little is learned.",
    ),
    "large mask": Kind(
        "warning",
        f"masks that cover more than {MASK_AREA[1]:.0%} of the picture",
        "look whether they show the whole person, or the background instead of the garment.",
    ),
    "grey mask": Kind(
        "warning",
        f"masks that are grey in more than {MOST_GREY:.0%} of their pixels",
        "export them in black and white; brighter than the middle counts as garment. Labels of a segmentation must be"
        " split into one mask a garment.",
    ),
    "small picture": Kind(
        "warning",
        "pictures that must be enlarged more than twice",
        "use larger ones or a smaller resolution; blur would be learned.",
    ),
    "cropped": Kind(
        "warning",
        f"people of whom more than {MOST_CROPPED:.0%} is cropped to fit the resolution",
        "choose a resolution shaped like the pictures, or crop them yourself to where the person is.",
    ),
    "long caption": Kind(
        "warning", f"captions longer than {MOST_TOKENS} tokens", "shorten them; what comes after these is not read."
    ),
    "parentheses": Kind(
        "warning",
        "captions with parentheses",
        "take them out: ComfyUI reads them as emphasis, training as plain text.",
    ),
}
"""All sorts of findings, in the order of a report: those of `pictures.Fault` first."""


# --- the report ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    """Something found on one person. text: which file, and why."""

    kind: str
    person: str
    text: str


@dataclass(frozen=True)
class Report:
    """facts: what there is, by name. people, bad: how many there are and have problems, by split."""

    facts: Sequence[tuple[str, str]]
    notes: Sequence[Note]
    people: Counter[str]
    bad: Counter[str]

    @property
    def status(self) -> int:
        """The exit status: 1 when more than `MOST_BAD` of the people of a split have problems, or all."""
        return int(any(self.bad[split] > MOST_BAD * count for split, count in self.people.items()))

    def render(self) -> str:
        """The report as text: facts, findings with a few examples each, and a verdict."""
        width = 2 + max(len(name) for name, _ in self.facts)
        lines = [f"{name:{width}}{value}" for name, value in self.facts]
        for name, kind in KINDS.items():
            notes = [note for note in self.notes if note.kind == name]
            if notes:
                lines += ["", f"{kind.level.upper()}: {len(notes)} x {kind.what}"]
                lines += [f"  {note.person}: {note.text}" for note in notes[:EXAMPLES]]
                lines += [f"  and {len(notes) - EXAMPLES} more"] if len(notes) > EXAMPLES else []
                lines += [f"  What to do: {kind.remedy}"]
        return "\n".join([*lines, "", self._verdict()])

    def _verdict(self) -> str:
        if not self.notes:
            return "Nothing is wrong with this data."
        if not self.bad.total():
            return "All of it can be trained on; see the warnings above."
        bad, everyone = self.bad.total(), self.people.total()
        judged = "too many: " if self.status else ""
        return f"{bad} of {everyone} people have problems; {judged}{MOST_BAD:.0%} of a split may."


def check_data(
    manifest: Path,
    resolution: Size,
    *,
    tokenizer: Path | None = None,
    sheet: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Open every file of a data set and say what is wrong with it.

    resolution: what it will be trained at, height and width in pixels, multiples of 8. tokenizer: the folder of CLIP's;
    None looks in the usual places, and captions are not counted when it is in none. sheet: a PNG file, in which some of
    the people are drawn. progress: told (what, done, total).

    Raises ValueError for a manifest that cannot be read, for a tokenizer that was named and cannot be, and for a sheet
    that could not be written; OSError as the disk does.
    """
    _refuse_sheet(sheet)
    data, words = read_manifest(manifest), _find_tokenizer(manifest, tokenizer)
    people = _open_all(data, resolution, progress or (lambda what, done, total: None))
    notes = [note for person in people for note in person.notes]
    notes += [*_about_copies(people), *_about_kinds(people), *_about_parentheses(data.items)]
    captions = f"not counted: {words}"
    if not isinstance(words, str):
        lengths = _token_counts(words, data.items)
        captions = f"{min(lengths)} to {max(lengths)} tokens"
        notes += _about_lengths(data.items, lengths)
    facts = [*_facts(people, resolution), ("captions", captions)]
    if sheet is not None:
        drawn = _evenly([person for person in people if person.usable], MOST_DRAWN)
        facts.append(("sheet", f"{len(drawn)} of {len(people)} people in {sheet}"))
        write_atomically(sheet, png_bytes(_draw_sheet(manifest, resolution, drawn, notes)))
    bad = Counter(person.item.split for person in people if not person.usable)
    return Report(facts, notes, Counter(item.split for item in data.items), bad)


def _refuse_sheet(sheet: Path | None) -> None:
    if sheet is not None and not (sheet.suffix.lower() == ".png" and sheet.parent.is_dir()):
        why = "It is written as a PNG file into a folder that exists."
        raise refusal(f"The sheet {quote(str(sheet))}", "cannot be written", why, "name, for example, sheet.png.")


# --- what is opened --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Garment:
    """mask, flat_lay: their files; None for those that cannot be used, and for the flat-lay of a crop."""

    worn: WornGarment
    mask: Source | None
    flat_lay: Source | None
    size: Size | None


@dataclass(frozen=True)
class _Person:
    """picture: the file; None when it cannot be used."""

    item: Item
    picture: Source | None
    size: Size | None
    garments: tuple[_Garment, ...]
    notes: tuple[Note, ...]

    @property
    def usable(self) -> bool:
        return all(KINDS[note.kind].level != "problem" for note in self.notes)


def _open_all(manifest: Manifest, resolution: Size, progress: Progress) -> list[_Person]:
    people: list[_Person] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(manifest.items), READ_AT_ONCE):
            progress("checking people", start, len(manifest.items))
            some = manifest.items[start : start + READ_AT_ONCE]
            people += pool.map(lambda item: _Opening(manifest, resolution, item).person(), some)
    progress("checking people", len(people), len(people))
    return people


@dataclass(frozen=True)
class _Opening:
    """One person's files being opened. notes: by kind and file, since a file may meet the same fault twice."""

    manifest: Manifest
    resolution: Size
    item: Item
    notes: dict[tuple[str, str], Note] = field(default_factory=dict)

    def person(self) -> _Person:
        picture, size = self._pictured(self.item.image, person_picture)
        if size is not None:
            self._look_at_shape(size)
        if self.item.person_mask is not None:
            self._attempt(worn_mask, self._found(self.item.person_mask), picture)
        shapes: list[tuple[WornGarment, Tensor]] = []
        garments = [self._garment(worn, picture, shapes) for worn in self.item.garments]
        for (one, shape), (other, second) in combinations(shapes, 2):
            shared = int((shape & second).sum()) / min(int(shape.sum()), int(second.sum()))
            if shared > MOST_OVERLAP:
                self._note("overlap", other.mask, f"shares {shared:.0%} with {quote(one.mask)}", of=one.mask)
        return _Person(self.item, picture, size, tuple(garments), tuple(self.notes.values()))

    def _garment(self, worn: WornGarment, picture: Source | None, shapes: list[tuple[WornGarment, Tensor]]) -> _Garment:
        flat, size = (None, None) if worn.image is None else self._pictured(worn.image, flat_lay)
        if size is not None and worn.image is not None:
            self._look_at_size(worn.image, size, min)
        mask = self._found(worn.mask)
        shape = self._attempt(worn_mask, mask, picture)
        if mask is None or shape is None:
            return _Garment(worn, None, flat, size)
        if worn.image is None:
            self._attempt(cut_out, picture, mask)
        shapes.append((worn, shape))
        self._look_at_mask(mask, shape)
        return _Garment(worn, mask, flat, size)

    def _look_at_mask(self, mask: Source, shape: Tensor) -> None:
        smallest, largest = MASK_AREA
        area, grey = float(shape.float().mean()), grey_share(mask)
        if not smallest <= area <= largest:
            self._note("small mask" if area < smallest else "large mask", mask.name, f"covers {area:.1%}")
        if grey > MOST_GREY:
            self._note("grey mask", mask.name, f"{grey:.0%} of it is grey")

    def _look_at_shape(self, size: Size) -> None:
        (height, width), (wanted_height, wanted_width) = size, self.resolution
        scale = max(wanted_height / height, wanted_width / width)
        lost = 1 - wanted_height * wanted_width / (scale**2 * height * width)
        if lost > MOST_CROPPED:
            self._note("cropped", self.item.image, f"{_by(size)} loses {lost:.0%}")
        self._look_at_size(self.item.image, size, max)

    def _look_at_size(self, name: str, size: Size, fit: Callable[[Iterable[float]], float]) -> None:
        """fit: which side decides the scale, max for pictures that are cropped and min for those that are padded."""
        if fit(wanted / side for wanted, side in zip(self.resolution, size, strict=True)) > MOST_ENLARGED:
            self._note("small picture", name, _by(size))

    def _pictured(self, name: str, make: Callable[[Source, Size], object]) -> tuple[Source | None, Size | None]:
        """A picture's file and size when everything that training makes of it can be made."""
        source = self._found(name)
        if source is None or self._attempt(make, source) is None:
            return None, None
        return source, picture_size(source)

    def _found(self, name: str) -> Source | None:
        try:
            path = self.manifest.path(name)
        except (ValueError, RuntimeError):  # the latter before Python 3.13, for links in a circle
            return self._note("link", name, "it leads out of the data folder or nowhere")
        try:
            return Source.find(name, path)
        except BadPictureError as error:
            return self._note(error.fault, error.file, error.why)

    def _attempt(self, make: Callable[..., T], *sources: Source | None) -> T | None:
        """What is made of files at the resolution; None when one of them is missing or bad."""
        if None in sources:
            return None
        try:
            return make(*sources, self.resolution)
        except BadPictureError as error:
            return self._note(error.fault, error.file, error.why)

    def _note(self, kind: str, file: str, why: str, of: str = "") -> None:
        self.notes.setdefault((kind, file + of), Note(kind, self.item.id, f"{quote(file)}: {why}"))


# --- what only all of it can tell ------------------------------------------------------------------------------------


def _about_copies(people: Sequence[_Person]) -> Iterator[Note]:
    first: defaultdict[str, dict[str, _Person]] = defaultdict(dict)  # a picture's sha256 -> split -> who has it first
    for person in people:
        if person.picture is not None:
            other = first[person.picture.sha256].setdefault(person.item.split, person)
            if other is not person:
                yield Note("duplicate", person.item.id, f"{quote(person.item.image)}: {other.item.id} has the same")
    for splits in first.values():
        if len(splits) > 1:
            one, other = splits["held_out"].item, splits["train"].item
            yield Note("leak", one.id, f"{quote(one.image)}: {other.id} of train has the same")
    garments: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for person in people:
        for garment in person.garments:
            if garment.flat_lay is not None:
                wearer = person.item.id, garment.flat_lay.name
                garments[garment.flat_lay.sha256].setdefault(person.item.split, wearer)
    for wearers in garments.values():
        if len(wearers) > 1:
            (person, file), (other, _) = wearers["held_out"], wearers["train"]
            yield Note("shared garment", person, f"{quote(file)}: {other} of train wears the same")


def _about_kinds(people: Sequence[_Person]) -> Iterator[Note]:
    if all(garment.worn.kind == "crop" for person in people for garment in person.garments):
        yield Note("no in-shop", "everybody", "wears garments of kind 'crop'")


def _about_parentheses(items: Sequence[Item]) -> Iterator[Note]:
    for item in items:
        if "(" in item.caption or ")" in item.caption:
            yield Note("parentheses", item.id, quote(item.caption))


def _about_lengths(items: Sequence[Item], lengths: Sequence[int]) -> Iterator[Note]:
    for item, length in zip(items, lengths, strict=True):
        if length > MOST_TOKENS:
            yield Note("long caption", item.id, f"{length} tokens: {quote(item.caption)}")


def _find_tokenizer(manifest: Path, given: Path | None) -> CLIPTokenizer | str:
    """CLIP's tokenizer, or why there is none."""
    try:
        return load_tokenizer(manifest, given, WORDS)
    except ValueError as error:
        if given is not None:
            raise
        return f"{str(error).splitlines()[0]} Name its folder with --tokenizer."


def _token_counts(tokenizer: CLIPTokenizer, items: Sequence[Item]) -> list[int]:
    encoded: Any = tokenizer([item.caption for item in items], add_special_tokens=False, verbose=False)
    return [len(tokens) for tokens in encoded["input_ids"]]


# --- facts -----------------------------------------------------------------------------------------------------------

HEADER_BYTES = 256  # of a cache entry, roughly
BLOCK = 4096  # bytes, of most disks


def _facts(people: Sequence[_Person], resolution: Size) -> Iterator[tuple[str, str]]:
    splits = Counter(person.item.split for person in people)
    yield "people", ", ".join(f"{splits[split]:,} in {split}" for split in ("train", "held_out"))
    worn = Counter((garment.worn.slot, garment.worn.kind) for person in people for garment in person.garments)
    for slot in dict.fromkeys(slot for slot, _ in sorted(worn, key=lambda key: -worn[key])):
        yield slot, ", ".join(f"{worn[slot, kind]:,} {kind}" for kind in ("inshop", "crop") if worn[slot, kind])
    yield "person sizes", _range(person.size for person in people)
    yield "garment sizes", _range(garment.size for person in people for garment in person.garments)
    trained = [person for person in people if person.usable and person.item.split == "train"]
    count = sum(len(person.garments) for person in trained)
    yield "trained", f"{len(trained):,} people in {count:,} garments, at {_by(resolution)} (height x width)"
    yield "cache", f"about {_cache_bytes(trained, resolution) / 2**20:,.1f} MiB for these, with SD1.5's text encoder"


def _range(sizes: Iterable[Size | None]) -> str:
    known = sorted({size for size in sizes if size is not None}, key=lambda size: size[0] * size[1])
    if not known:
        return "none"
    return _by(known[0]) if len(known) == 1 else f"{_by(known[0])} to {_by(known[-1])}, {len(known)} different ones"


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _cache_bytes(people: Sequence[_Person], resolution: Size) -> int:
    """What the cache's entries of these people take on disk; equal sources share theirs."""
    height, width = resolution
    cells = (height // 8) * (width // 8)
    latent, bits, text = 4 * 4 * cells, height * (width // 8), 4 * POSITIONS * WIDTH
    entries: dict[tuple[str, ...], int] = {("text", ""): text}
    for person in people:
        assert person.picture is not None
        whole = person.picture.sha256
        entries |= {("text", person.item.caption): text, ("person", whole): latent, ("edges", whole): bits}
        for garment in person.garments:
            assert garment.mask is not None
            mask = garment.mask.sha256
            own = (garment.flat_lay.sha256,) if garment.flat_lay else (whole, mask)
            entries |= {("mask", whole, mask): bits, ("garment", *own): latent + cells}
    return sum(-(-(size + HEADER_BYTES) // BLOCK) * BLOCK for size in entries.values())


# --- the sheet -------------------------------------------------------------------------------------------------------

MOST_DRAWN = 24
SHEET_WIDTH = 1800  # pixels, at most, unless one person alone takes more
TEXT = 22  # the height of a line
WARNING = COLOURS[0]
HALVES = [255 if value >= 128 else 0 for value in range(256)]
WITHIN_SIGMA = [255 if 0.16 < value / 255 < 0.84 else 0 for value in range(256)]


def _evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, from the first to the last at equal distances."""
    indices = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[index] for index in indices]


def _draw_sheet(manifest: Path, resolution: Size, people: Sequence[_Person], notes: Sequence[Note]) -> Image.Image:
    """Draw people as they are trained on: each with outlined masks, and beside them the garments of the same colours."""
    cards = [_draw_card(person, resolution, [n.kind for n in notes if n.person == person.item.id]) for person in people]
    cards = cards or [Image.new("RGB", (SHEET_WIDTH // 3, TEXT), PAPER)]
    width, height = cards[0].size
    columns = max(1, min(len(cards), SHEET_WIDTH // (width + BETWEEN)))
    rows = -(-len(cards) // columns)
    across, down = columns * (width + BETWEEN) - BETWEEN, rows * (height + BETWEEN) - BETWEEN
    sheet = Image.new("RGB", (across + 2 * MARGIN, HEADER + down + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    note = f"{len(people)} people as they are trained on, at {_by(resolution)}"
    left = sheet.width - MARGIN - round(pen.textlength(note, typeface(16)))
    pen.text((left, MARGIN + 24), note, GREY, typeface(16), anchor="ls")
    write_line(pen, (MARGIN, MARGIN - 4), f"{manifest.parent.name}/{manifest.name}", INK, 28, left - 2 * MARGIN)
    for index, card in enumerate(cards):
        row, column = divmod(index, columns)
        sheet.paste(card, (MARGIN + column * (width + BETWEEN), MARGIN + HEADER + row * (height + BETWEEN)))
    return sheet


def _draw_card(person: _Person, resolution: Size, warnings: Sequence[str]) -> Image.Image:
    """The name and what is odd about this person, over the picture and the garments, over slots and caption."""
    assert person.picture is not None
    masks: list[Tensor] = []
    lays: list[Any] = []
    for garment in person.garments:
        assert garment.mask is not None
        masks.append(worn_mask(garment.mask, person.picture, resolution))
        if garment.flat_lay is not None:
            canvas, _ = flat_lay(garment.flat_lay, resolution)
        else:
            canvas, _ = cut_out(person.picture, garment.mask, resolution)
        lays.append(as_pixels(canvas))
    width = round(PICTURE_HEIGHT * resolution[1] / resolution[0])
    beside = max(width // 2, 96)
    card = Image.new("RGB", (width + GAP + beside, PICTURE_HEIGHT + 4 * TEXT), PAPER)
    pen = ImageDraw.Draw(card)
    item = person.item
    name = item.id if item.split == "train" else f"{item.id}, {item.split}"
    write_line(pen, (0, 0), name, GREY, 14, card.width)
    left = round(pen.textlength(name, typeface(14))) + GAP
    write_line(pen, (left, 0), ", ".join(dict.fromkeys(warnings)), WARNING, 14, card.width - left)
    picture = Image.fromarray(as_pixels(person_picture(person.picture, resolution)))
    picture = picture.resize((width, PICTURE_HEIGHT), Image.Resampling.LANCZOS)
    card.paste(_outlined(picture, masks), (0, TEXT))
    card.paste(draw_flat_lays(lays, beside), (width + GAP, TEXT))
    below = TEXT + PICTURE_HEIGHT
    names = [one.worn.slot if one.flat_lay else f"{one.worn.slot} (cut out)" for one in person.garments]
    draw_legend(pen, (0, below + 3), names)
    first, rest = _broken(pen, item.caption, card.width)
    write_line(pen, (0, below + TEXT), first, INK, 14, card.width)
    write_line(pen, (0, below + 2 * TEXT - 2), rest, INK, 14, card.width)
    return card


def _outlined(picture: Image.Image, masks: Sequence[Tensor]) -> Image.Image:
    """A line in its garment's colour around each mask, on a fine white one that keeps it apart from the picture."""
    fine = (2 * picture.width, 2 * picture.height)
    shapes = [Image.fromarray(mask.numpy()).convert("L").resize(fine, Image.Resampling.BICUBIC) for mask in masks]

    def band(shape: Image.Image, pixels: int) -> Image.Image:
        """So many fine pixels on both sides of the edge: there a blurred edge is within one sigma of its middle."""
        blurred = shape.point(HALVES).filter(ImageFilter.GaussianBlur(pixels))
        return blurred.point(WITHIN_SIGMA).resize(picture.size, Image.Resampling.BOX)

    for shape in shapes:
        picture.paste("white", mask=band(shape, 4))
    for shape, colour in zip(shapes, COLOURS, strict=False):
        picture.paste(colour, mask=band(shape, 2))
    return picture


def _broken(pen: ImageDraw.ImageDraw, text: str, width: int) -> tuple[str, str]:
    """A text's words in two lines, as many as fit in the first."""
    words = text.split()
    count = len(words)
    while count > 1 and pen.textlength(" ".join(words[:count]), typeface(14)) > width:
        count -= 1
    return " ".join(words[:count]), " ".join(words[count:])
