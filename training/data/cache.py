# SPDX-License-Identifier: GPL-3.0-or-later
"""What training reads instead of pictures and words: latents, text embeddings, masks and edges, computed once.

Every entry lies under a key made of its sources' bytes, the resolution, `VERSION` and the weights that encode it: a
changed picture, size or autoencoder never meets an old entry, and only what is missing is built. All entries are
verified when the cache is opened and again whenever they are read. Nothing removes old ones; the folder may be deleted
at any time. There is no lock: files appear whole and equal keys have equal content, so two builders do no harm.

Latents do not depend on device and batch but for rounding, so neither is in the key.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.safetensors_header import quote, refusal
from .edges import THRESHOLDS, canny_edges
from .entries import Entries, content_key, tensor_digest, unwritable
from .manifest import Item, Manifest, WornGarment
from .pictures import BadPictureError, Size, Source, cut_out, flat_lay, person_picture, worn_mask

if TYPE_CHECKING:
    from ..base.model import BaseModel

VERSION = 1
"""To be raised whenever this module or `pictures` makes other entries of the same files."""

CELL = 8  # pixels of a latent cell
READ_AT_ONCE = 64
NAMED_BAD = 3

Progress = Callable[[str, int, int], None]
Tensors = dict[str, Tensor]
T = TypeVar("T")

logger = logging.getLogger(__name__)


class BuildStoppedError(Exception):
    """Building was stopped on request; what was built is kept, and the next build goes on from there."""


class Encoders(Protocol):
    """What fills the cache. The fingerprints change with whatever changes the encodings."""

    latent_fingerprint: str
    text_fingerprint: str

    def encode_mode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to scaled latents (B, 4, h, w)."""
        ...

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts: (B, 77, C), float32."""
        ...


class BaseEncoders:
    """The encoders of a base model."""

    def __init__(self, base: BaseModel) -> None:
        vae, words = base.vae, base.tokenizer.get_vocab()
        scale = [type(vae).__name__, str(vae.config["scaling_factor"]), str(vae.config["shift_factor"])]
        self.latent_fingerprint = tensor_digest(vae.state_dict(), *scale)
        # CLIP's words stand in the order of its merges, so they tell those, too.
        self.text_fingerprint = tensor_digest(base.text_encoder.state_dict(), json.dumps(words, sort_keys=True))
        self.encode_mode, self.encode_text = base.encode_mode, base.encode_text


# --- what training reads ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CachedGarment:
    """A garment. latent: of its canvas, (4, h, w) float32. cells: which of them show it, (h, w) bool, never none.

    mask: where it shows on the person, M_k, (H, W) bool, never nowhere.
    """

    slot: str
    latent: Tensor
    cells: Tensor
    mask: Tensor


@dataclass(frozen=True)
class CachedPerson:
    """A person. latent: (4, h, w) float32. text: (77, C) float32. edges: P of Eq. 13, (H, W) bool; None if not built."""

    id: str
    caption: str
    latent: Tensor
    text: Tensor
    garments: tuple[CachedGarment, ...]
    edges: Tensor | None


@dataclass(frozen=True)
class GarmentKeys:
    """Where a garment's entries are."""

    slot: str
    latent: str
    mask: str


@dataclass(frozen=True)
class PersonKeys:
    """Where a person's entries are. picture: the file of the person."""

    id: str
    caption: str
    picture: Source
    latent: str
    text: str
    edges: str | None
    garments: tuple[GarmentKeys, ...]

    @property
    def all(self) -> list[str]:
        """Every key of this person."""
        pieces = [key for garment in self.garments for key in (garment.mask, garment.latent)]
        return [self.latent, *([self.edges] if self.edges else []), *pieces, self.text]


@dataclass(frozen=True)
class CachedData:
    """The usable people of a split, in the manifest's order.

    It holds keys alone, so it is pickled cheaply, and it changes nothing, so threads may read at once. Whatever is
    read is verified; ValueError when a file was changed since the cache was opened. quarantined: id -> the bad file and
    what is wrong with it. left_out: how many people wear none of the slots.
    """

    entries: Entries
    resolution: Size
    people: tuple[PersonKeys, ...]
    no_text_key: str
    quarantined: Mapping[str, str]
    left_out: int

    def __len__(self) -> int:
        return len(self.people)

    @property
    def ids(self) -> tuple[str, ...]:
        """The people's ids."""
        return tuple(person.id for person in self.people)

    @property
    def digest(self) -> str:
        """The sha256 over ids, keys and order: what a resumed run must find again."""
        rows = [
            [person.id, *person.all, *(garment.slot for garment in person.garments), person.edges is not None]
            for person in self.people
        ]
        return content_key("data", json.dumps([rows, self.no_text_key]))

    @property
    def no_text(self) -> Tensor:
        """The embedding of the empty text, (77, C) float32."""
        return self._text(self.no_text_key)

    def load(self, index: int) -> CachedPerson:
        """Read all that is cached of a person."""
        person = self.people[index]
        return CachedPerson(
            person.id,
            person.caption,
            self.latent(index),
            self.text(index),
            tuple(map(self._garment, person.garments)),
            self.edges(index),
        )

    def latent(self, index: int) -> Tensor:
        """The person's latent, (4, h, w) float32."""
        return self.entries.read(self.people[index].latent)["latent"]

    def text(self, index: int) -> Tensor:
        """The caption's embedding, (77, C) float32."""
        return self._text(self.people[index].text)

    def edges(self, index: int) -> Tensor | None:
        """The edges of the person's picture, (H, W) bool; None if not built."""
        key = self.people[index].edges
        return None if key is None else self._bits(key)

    def garment_latents(self, index: int) -> tuple[Tensor, ...]:
        """The latents of the garments, each (4, h, w) float32."""
        return tuple(self.entries.read(garment.latent)["latent"] for garment in self.people[index].garments)

    def picture(self, index: int) -> Tensor:
        """The person's picture I, read from its file: (3, H, W) in [-1, 1]."""
        source = self.people[index].picture
        try:
            return person_picture(source, self.resolution)
        except BadPictureError as error:
            remedy = "put the file back and resume; with another picture, begin a new run."
            raise refusal(
                quote(source.name), "changed while the run was going", f"Reason: {error.why}.", remedy
            ) from error

    def _garment(self, keys: GarmentKeys) -> CachedGarment:
        encoded = self.entries.read(keys.latent)
        return CachedGarment(keys.slot, encoded["latent"], encoded["cells"], self._bits(keys.mask))

    def _text(self, key: str) -> Tensor:
        return self.entries.read(key)["text"]

    def _bits(self, key: str) -> Tensor:
        bits = self.entries.read(key)["bits"].numpy()
        return torch.from_numpy(np.unpackbits(bits, axis=1).astype(bool))


# --- building --------------------------------------------------------------------------------------------------------


def build_cache(
    manifest: Manifest,
    encoders: Encoders,
    folder: Path,
    *,
    resolution: Size,
    slots: Collection[str],
    split: str = "train",
    most_bad: float = 0.05,
    batch: int = 8,
    edges: bool = True,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> CachedData:
    """Open the cache of one split, verify what it holds and build what is missing.

    resolution: height, width in pixels, multiples of 8. slots: garments of others are passed over, and people who wear
    nothing else are left out. most_bad: the share of people whose pictures may be bad; these are left out and named in
    `quarantine-<split>.jsonl`, which is written anew. batch: pictures encoded at once. edges: whether they are wanted.
    progress: told (what, done, total). stop: asked between batches.

    Raises ValueError for too many bad people or none left, BuildStoppedError after `stop`, and OSError, with its errno,
    when the disk is full or refuses.
    """
    assert all(side % CELL == 0 for side in resolution)
    course = _Course(progress or (lambda what, done, total: None), stop or (lambda: False))
    everyone = manifest.of_split(split)
    wearing = [(item, worn) for item in everyone if (worn := [one for one in item.garments if one.slot in slots])]
    left_out = len(everyone) - len(wearing)
    if left_out:
        logger.warning("%d of %d people wear none of %s: left out.", left_out, len(everyone), ", ".join(slots))
    entries, plan = Entries(folder), _Plan(encoders, resolution, edges)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        names = dict.fromkeys(name for item, worn in wearing for name in _files(item, worn))
        sources, unread = _find_sources(manifest, list(names), course, pool)
        bad: dict[str, BadPictureError] = {}
        people: list[PersonKeys] = []
        for item, worn in wearing:
            missing = next((unread[name] for name in _files(item, worn) if name in unread), None)
            if missing is None:
                people.append(plan.person(item, worn, sources))
            else:
                bad[item.id] = missing
        no_text = plan.caption("")
        builder = _Builder(entries, encoders, course, pool, batch)
        failed = builder.build(plan)
    for person in people:
        failure = next((failed[key] for key in person.all if key in failed), None)
        if failure is not None:
            bad[person.id] = failure
    bad = {item.id: bad[item.id] for item, _ in wearing if item.id in bad}
    list_of_bad = _write_quarantine(folder, split, bad)
    _refuse_too_many(bad, len(wearing), most_bad, list_of_bad, split)
    usable = tuple(person for person in people if person.id not in bad)
    reasons = {name: str(error) for name, error in bad.items()}
    return CachedData(entries, resolution, usable, no_text, reasons, left_out)


@dataclass(frozen=True)
class _Course:
    """Between batches: whoever waits is told, and may stop."""

    progress: Progress
    stop: Callable[[], bool]

    def batches(self, what: str, things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
        for start in range(0, len(things), size):
            if self.stop():
                raise BuildStoppedError(f"Building the cache was stopped: {what}, {start} of {len(things)}.")
            if start == 0:
                self.progress(what, 0, len(things))
            yield things[start : start + size]
            self.progress(what, min(start + size, len(things)), len(things))


@dataclass(frozen=True)
class _Recipe:
    """How an entry is made of files. file: which one is named when its latents are bad."""

    file: str
    make: Callable[[], Tensors]

    def attempt(self) -> Tensors | BadPictureError:
        try:
            return self.make()
        except BadPictureError as error:
            return error


@dataclass(frozen=True)
class _Plan:
    """All entries that are wanted, by key: `encoded` make a picture for the autoencoder, `drawn` need no network."""

    encoders: Encoders
    resolution: Size
    with_edges: bool
    encoded: dict[str, _Recipe] = field(default_factory=dict)
    drawn: dict[str, _Recipe] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def person(self, item: Item, worn: Sequence[WornGarment], sources: Mapping[str, Source]) -> PersonKeys:
        person = sources[item.image]
        return PersonKeys(
            item.id,
            item.caption,
            person,
            self._encode("person", (person,), _person),
            self.caption(item.caption),
            self._draw("edges", (person,), _edges, *THRESHOLDS) if self.with_edges else None,
            tuple(self._garment(garment, person, sources) for garment in worn),
        )

    def caption(self, text: str) -> str:
        key = content_key("text", VERSION, text, self.encoders.text_fingerprint)
        self.captions[key] = text
        return key

    def _garment(self, garment: WornGarment, person: Source, sources: Mapping[str, Source]) -> GarmentKeys:
        mask = sources[garment.mask]
        if garment.image is None:
            latent = self._encode("crop", (person, mask), _cut_out)
        else:
            latent = self._encode("inshop", (sources[garment.image],), _flat_lay)
        return GarmentKeys(garment.slot, latent, self._draw("mask", (mask, person), _mask))

    def _encode(self, kind: str, sources: Sequence[Source], make: Callable[..., Tensors]) -> str:
        return self._add(self.encoded, kind, sources, make, self.encoders.latent_fingerprint)

    def _draw(self, kind: str, sources: Sequence[Source], make: Callable[..., Tensors], *parts: int) -> str:
        return self._add(self.drawn, kind, sources, make, *parts)

    def _add(
        self,
        recipes: dict[str, _Recipe],
        kind: str,
        sources: Sequence[Source],
        make: Callable[..., Tensors],
        *parts: str | int,
    ) -> str:
        key = content_key(kind, VERSION, *self.resolution, *(source.sha256 for source in sources), *parts)
        recipes[key] = _Recipe(sources[0].name, partial(make, *sources, self.resolution))
        return key


@dataclass(frozen=True)
class _Builder:
    entries: Entries
    encoders: Encoders
    course: _Course
    pool: ThreadPoolExecutor
    batch: int

    def build(self, plan: _Plan) -> dict[str, BadPictureError]:
        """Build all entries that are not there; returns those that cannot be, by key."""
        sound: set[str] = set()
        for keys in self.course.batches(
            "checking the cache", [*plan.drawn, *plan.encoded, *plan.captions], READ_AT_ONCE
        ):
            sound |= {key for key, good in zip(keys, self.pool.map(self.entries.is_sound, keys), strict=True) if good}
        failed: dict[str, BadPictureError] = {}
        for what, recipes in (("masks and edges", plan.drawn), ("pictures", plan.encoded)):
            for keys in self.course.batches(what, [key for key in recipes if key not in sound], self.batch):
                failed |= self._build_pictures({key: recipes[key] for key in keys})
        for keys in self.course.batches("captions", [key for key in plan.captions if key not in sound], self.batch):
            texts = self.encoders.encode_text([plan.captions[key] for key in keys])
            self._write({key: {"text": text.float()} for key, text in zip(keys, texts, strict=True)})
        return failed

    def _build_pictures(self, recipes: Mapping[str, _Recipe]) -> dict[str, BadPictureError]:
        made: dict[str, Tensors] = {}
        failed: dict[str, BadPictureError] = {}
        for key, result in zip(recipes, self.pool.map(_Recipe.attempt, recipes.values()), strict=True):
            if isinstance(result, BadPictureError):
                failed[key] = result
            else:
                made[key] = result
        pictures = {key: tensors.pop("picture") for key, tensors in made.items() if "picture" in tensors}
        if pictures:
            latents = self._encoded(torch.stack(list(pictures.values())))
            for key, latent in zip(pictures, latents, strict=True):
                made[key]["latent"] = latent
                if not latent.isfinite().all():
                    failed[key] = BadPictureError(recipes[key].file, "the autoencoder makes no finite numbers of it")
        self._write({key: tensors for key, tensors in made.items() if key not in failed})
        return failed

    def _encoded(self, pictures: Tensor) -> Tensor:
        """The latents of pictures (B, 3, H, W), on the CPU; what does not fit at once is encoded in halves."""
        try:
            return self.encoders.encode_mode(pictures).float().cpu()
        except torch.OutOfMemoryError as error:
            if len(pictures) == 1:
                height, width = pictures.shape[-2:]
                why = f"A single picture of {height} x {width} does not fit beside the base model."
                remedy = "lower data.resolution, or end what else uses the device's memory."
                raise refusal("The autoencoder", "ran out of memory", why, remedy) from error
        return torch.cat([self._encoded(half) for half in pictures.chunk(2)])

    def _write(self, made: Mapping[str, Tensors]) -> None:
        for _ in self.pool.map(self.entries.write, made.keys(), made.values()):
            pass  # waited for, because only this raises what went wrong


def _person(person: Source, resolution: Size) -> Tensors:
    return {"picture": person_picture(person, resolution)}


def _edges(person: Source, resolution: Size) -> Tensors:
    return _packed(canny_edges(person_picture(person, resolution)[None])[0, 0] > 0)


def _mask(mask: Source, person: Source, resolution: Size) -> Tensors:
    return _packed(worn_mask(mask, person, resolution))


def _flat_lay(garment: Source, resolution: Size) -> Tensors:
    picture, cells = flat_lay(garment, resolution)
    return {"picture": picture, "cells": cells}


def _cut_out(person: Source, mask: Source, resolution: Size) -> Tensors:
    picture, cells = cut_out(person, mask, resolution)
    return {"picture": picture, "cells": cells}


def _packed(shape: Tensor) -> Tensors:
    """(H, W) bool, eight pixels of a row in a byte."""
    return {"bits": torch.from_numpy(np.packbits(shape.numpy(), axis=1))}


def _files(item: Item, worn: Sequence[WornGarment]) -> list[str]:
    of_garments = [name for garment in worn for name in (garment.image, garment.mask) if name is not None]
    return [item.image, *of_garments]


def _find_sources(
    manifest: Manifest, names: Sequence[str], course: _Course, pool: ThreadPoolExecutor
) -> tuple[dict[str, Source], dict[str, BadPictureError]]:
    """The files by name, and those that cannot be read."""

    def find(name: str) -> Source | BadPictureError:
        try:
            path = manifest.path(name)
        except ValueError:
            return BadPictureError(name, "it lies behind a link that leads out of the data folder")
        try:
            return Source.find(name, path)
        except BadPictureError as error:
            return error

    sources: dict[str, Source] = {}
    unread: dict[str, BadPictureError] = {}
    for some in course.batches("reading files", names, READ_AT_ONCE):
        for name, found in zip(some, pool.map(find, some), strict=True):
            if isinstance(found, Source):
                sources[name] = found
            else:
                unread[name] = found
    return sources, unread


def _write_quarantine(folder: Path, split: str, bad: Mapping[str, BadPictureError]) -> Path:
    path = folder / f"quarantine-{split}.jsonl"
    lines = [json.dumps({"id": name, "file": error.file, "reason": error.why}) + "\n" for name, error in bad.items()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(lines).encode())
    except OSError as error:
        raise unwritable(folder, error) from error
    return path


def _refuse_too_many(
    bad: Mapping[str, BadPictureError], total: int, most_bad: float, list_of_bad: Path, split: str
) -> None:
    if not total:
        why = "A garment is trained when its slot is one of adapter.slots."
        raise refusal(f"Split {split!r} of the data", "has nobody to train on", why, "name slots that the data has.")
    if not bad:
        return
    named = "; ".join(f"{name}: {error}" for name, error in list(bad.items())[:NAMED_BAD])
    if len(bad) / total > most_bad or len(bad) == total:
        problem = f"have bad pictures; at most {most_bad:.0%} may"
        remedy = f"mend them or take them out of the manifest; all are listed in {str(list_of_bad)!r}."
        raise refusal(f"{len(bad)} of {total} people", problem, f"{named}.", remedy)
    logger.warning("%d of %d people have bad pictures and are left out: %s.", len(bad), total, named)
