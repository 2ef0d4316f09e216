# SPDX-License-Identifier: GPL-3.0-or-later
"""What `anydressing data check` says: what in a data set cannot be used, what looks wrong, and how much there is.

Every file is opened to its last byte by the functions that fill the cache, so that what passes here is cached later.
Training sets people with problems aside, and refuses when they are many; a warning stops nothing.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.latents import Size, latent_size
from ...anydressing_core.refusals import quote, refusal
from ...anydressing_core.word_table import POSITIONS, WIDTH, WORDS
from ..base.tokenizer import load_tokenizer
from ..picture_files import png_bytes
from ..progress import Course, Progress, untold
from .check_page import check_page
from .check_sheet import MOST_DRAWN, draw_check_sheet, evenly
from .findings import MOST_TOKENS, DataReport, Note
from .manifest import Item, read_manifest
from .opening import OpenedPerson, by, open_all

PAGES = (".html", ".htm")


def check_data(
    manifest: Path,
    resolution: Size,
    *,
    root: Path | None = None,
    tokenizer: Path | None = None,
    sheet: Path | None = None,
    progress: Progress = untold,
) -> DataReport:
    """Open every file of a data set and say what is wrong with it.

    resolution: what it will be trained at, height and width in pixels, multiples of 8. root: where pictures lie that
    are not beside the manifest. tokenizer: the folder of CLIP's; None looks in the usual places, and captions are not
    counted when it is in none. sheet: an HTML page with everybody of
    whom something was found and some others, or a PNG file with a few. progress: told (what, done,
    total).

    Raises ValueError for a manifest that cannot be read, for a tokenizer that was named and cannot be, and for a sheet
    that could not be written; OSError as the disk does.
    """
    _refuse_sheet(sheet)
    data, words = read_manifest(manifest, root), _find_tokenizer(manifest, tokenizer)
    people = open_all(data, resolution, Course(progress))
    notes = [note for person in people for note in person.notes]
    notes += [
        *_about_copies(people),
        *_about_persons_as_garments(people),
        *_about_kinds(people),
        *_about_parentheses(data.items),
        *_about_letters(data.items),
    ]
    captions = f"not counted: {words}"
    if not isinstance(words, str):
        lengths = _token_counts(words, data.items)
        captions = f"{min(lengths)} to {max(lengths)} tokens"
        notes += _about_lengths(data.items, lengths)
    facts = [*_facts(people, resolution), ("captions", captions)]
    if sheet is not None:
        facts.append(("sheet", _write_sheet(sheet, manifest, resolution, people, notes, facts)))
    bad = Counter(person.item.split for person in people if not person.usable)
    return DataReport(facts, notes, Counter(item.split for item in data.items), bad)


def _write_sheet(
    sheet: Path,
    manifest: Path,
    resolution: Size,
    people: Sequence[OpenedPerson],
    notes: Sequence[Note],
    facts: Sequence[tuple[str, str]],
) -> str:
    """Draw some of the people, or write a page with many of them; says how many."""
    if sheet.suffix.lower() in PAGES:
        html, shown = check_page(manifest, resolution, people, notes, facts)
        write_atomically(sheet, html.encode())
        return f"{shown} of {len(people)} people in {sheet}"
    drawn = evenly([person for person in people if person.usable], MOST_DRAWN)
    write_atomically(sheet, png_bytes(draw_check_sheet(manifest, resolution, drawn, notes)))
    return f"{len(drawn)} of {len(people)} people in {sheet}"


def _refuse_sheet(sheet: Path | None) -> None:
    if sheet is not None and not (sheet.suffix.lower() in (".png", *PAGES) and sheet.parent.is_dir()):
        why = "It is written as an HTML or PNG file into a folder that exists."
        raise refusal(f"The sheet {quote(str(sheet))}", "cannot be written", why, "name, for example, sheet.html.")


# --- what only all of it can tell ------------------------------------------------------------------------------------


def _about_copies(people: Sequence[OpenedPerson]) -> Iterator[Note]:
    # a picture's sha256 -> split -> who has it first
    first: defaultdict[str, dict[str, OpenedPerson]] = defaultdict(dict)
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


def _about_persons_as_garments(people: Sequence[OpenedPerson]) -> Iterator[Note]:
    pictures = {person.picture.sha256: person.item.id for person in people if person.picture is not None}
    for person in people:
        for garment in person.garments:
            if garment.flat_lay is not None and garment.flat_lay.sha256 in pictures:
                whose = pictures[garment.flat_lay.sha256]
                yield Note(
                    "same picture", person.item.id, f"{quote(garment.flat_lay.name)}: it is the picture of {whose}"
                )


def _about_kinds(people: Sequence[OpenedPerson]) -> Iterator[Note]:
    if all(garment.worn.kind == "crop" for person in people for garment in person.garments):
        yield Note("no in-shop", "everybody", "wears garments of kind 'crop'")


def _about_parentheses(items: Sequence[Item]) -> Iterator[Note]:
    for item in items:
        if "(" in item.caption or ")" in item.caption:
            yield Note("parentheses", item.id, quote(item.caption))


def _about_letters(items: Sequence[Item]) -> Iterator[Note]:
    for item in items:
        letters = [letter for letter in item.caption if letter.isalpha()]
        if sum(letter.isascii() for letter in letters) < len(letters) / 2:
            yield Note("other letters", item.id, quote(item.caption))


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


def _facts(people: Sequence[OpenedPerson], resolution: Size) -> Iterator[tuple[str, str]]:
    splits = Counter(person.item.split for person in people)
    yield "people", ", ".join(f"{splits[split]:,} in {split}" for split in ("train", "held_out"))
    worn = Counter((garment.worn.slot, garment.worn.kind) for person in people for garment in person.garments)
    for slot in dict.fromkeys(slot for slot, _ in sorted(worn, key=lambda key: -worn[key])):
        yield slot, ", ".join(f"{worn[slot, kind]:,} {kind}" for kind in ("inshop", "crop") if worn[slot, kind])
    yield "adapter.slots", json.dumps(list(dict.fromkeys(slot for slot, _ in sorted(worn, key=lambda key: -worn[key]))))
    yield "person sizes", _range(person.size for person in people)
    yield "garment sizes", _range(garment.size for person in people for garment in person.garments)
    shares = [garment.share for person in people for garment in person.garments if garment.share is not None]
    if shares:
        yield "garments take", f"{min(shares):.0%} to {max(shares):.0%} of their pictures, the rest is plain ground"
    trained = [person for person in people if person.usable and person.item.split == "train"]
    count = sum(len(person.garments) for person in trained)
    yield "trained", f"{len(trained):,} people in {count:,} garments, at {by(resolution)} (height x width)"
    yield "cache", f"about {_cache_bytes(trained, resolution) / 2**20:,.1f} MiB for these, with SD1.5's text encoder"


def _range(sizes: Iterable[Size | None]) -> str:
    known = sorted({size for size in sizes if size is not None}, key=lambda size: size[0] * size[1])
    if not known:
        return "none"
    return by(known[0]) if len(known) == 1 else f"{by(known[0])} to {by(known[-1])}, {len(known)} different ones"


def _cache_bytes(people: Sequence[OpenedPerson], resolution: Size) -> int:
    """What the cache's entries of these people take on disk; equal sources share theirs."""
    height, width = resolution
    cells = math.prod(latent_size(resolution))
    latent, bits, text = 4 * 4 * cells, height * width // 8, 4 * POSITIONS * WIDTH  # a mask's pixels are bits
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
