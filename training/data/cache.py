# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what training reads instead of pictures and words: latents, text embeddings, masks and edges, computed once.

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
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.canvas import GarmentCanvas
from ...anydressing_core.digests import content_key
from ...anydressing_core.latents import Size, is_whole
from ...anydressing_core.refusals import refusal
from ..defaults import MOST_BAD
from ..progress import UNWATCHED, Course
from .cached import CachedData, GarmentKeys, PersonKeys
from .edges import THRESHOLDS, canny_edges
from .encoders import Encoders
from .entries import Entries, unwritable
from .manifest import Item, Manifest, WornGarment
from .pictures import READ_AT_ONCE, BadPictureError, Source, cut_out, flat_lay, person_picture, worn_mask

VERSION = 1
"""To be raised whenever this module or `pictures` makes other entries of the same files."""

GARMENT_VERSION = 2
"""The same for garments and their masks alone, so that people and captions need not be encoded again."""

NAMED_BAD = 3

Tensors = dict[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachePlan:
    """What of a data set a run reads.

    resolution: height, width in pixels, in whole latent cells. slots: garments of others are passed over, and people
    who wear nothing else are left out. most_bad: the share of people whose pictures may be bad. edges: whether P of
    Eq. 13 is wanted. crop_jitter: how much garments that are cut out of people are changed by chance, 0 to 1.
    """

    resolution: Size
    slots: Collection[str]
    split: str = "train"
    most_bad: float = MOST_BAD
    edges: bool = True
    crop_jitter: float = 0.0


def build_cache(
    manifest: Manifest,
    encoders: Encoders,
    folder: Path,
    needs: CachePlan,
    *,
    batch: int = 8,
    course: Course = UNWATCHED,
) -> CachedData:
    """Open the cache of one split, verify what it holds and build what is missing.

    People with bad pictures are left out and named in `quarantine-<split>.jsonl`, which is written anew. batch:
    pictures encoded at once. Raises ValueError for too many bad people or none left, StoppedError when it is stopped,
    and OSError, with its errno, when the disk is full or refuses.
    """
    assert is_whole(needs.resolution)
    wearing = _wearing(manifest.of_split(needs.split), needs.slots)
    left_out = len(manifest.of_split(needs.split)) - len(wearing)
    if left_out:
        everyone = left_out + len(wearing)
        logger.warning("%d of %d people wear none of %s: left out.", left_out, everyone, ", ".join(needs.slots))
    entries, plan = Entries(folder), _Plan(encoders, needs.resolution, needs.edges, needs.crop_jitter)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        names = dict.fromkeys(name for item, worn in wearing for name in _files(item, worn))
        sources, unread = _find_sources(manifest, list(names), course, pool)
        people, bad = _planned(plan, wearing, sources, unread)
        no_text = plan.caption("")
        failed = _Builder(entries, encoders, course, pool, batch).build(plan)
    for person in people:
        failure = next((failed[key] for key in person.all if key in failed), None)
        if failure is not None:
            bad[person.id] = failure
    bad = {item.id: bad[item.id] for item, _ in wearing if item.id in bad}
    list_of_bad = _write_quarantine(folder, needs.split, bad)
    _refuse_too_many(bad, len(wearing), needs, list_of_bad)
    usable = tuple(person for person in people if person.id not in bad)
    reasons = {name: str(error) for name, error in bad.items()}
    return CachedData(entries, needs.resolution, usable, no_text, reasons, left_out)


Wearing = list[tuple[Item, list[WornGarment]]]
"""People with those of their garments that are wanted."""


def _wearing(people: Sequence[Item], slots: Collection[str]) -> Wearing:
    return [(item, worn) for item in people if (worn := [one for one in item.garments if one.slot in slots])]


def _planned(
    plan: _Plan, wearing: Wearing, sources: Mapping[str, Source], unread: Mapping[str, BadPictureError]
) -> tuple[list[PersonKeys], dict[str, BadPictureError]]:
    """The keys of everybody all of whose files can be read; and by id, of the others, the first that cannot."""
    people: list[PersonKeys] = []
    bad: dict[str, BadPictureError] = {}
    for item, worn in wearing:
        missing = next((unread[name] for name in _files(item, worn) if name in unread), None)
        if missing is None:
            people.append(plan.person(item, worn, sources))
        else:
            bad[item.id] = missing
    return people, bad


@dataclass(frozen=True)
class _EntryRecipe:
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
    crop_jitter: float
    encoded: dict[str, _EntryRecipe] = field(default_factory=dict)
    drawn: dict[str, _EntryRecipe] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def person(self, item: Item, worn: Sequence[WornGarment], sources: Mapping[str, Source]) -> PersonKeys:
        person = sources[item.image]
        return PersonKeys(
            item.id,
            item.caption,
            person,
            self._encode("person", VERSION, (person,), _person),
            self.caption(item.caption),
            self._draw("edges", VERSION, (person,), _edges, *THRESHOLDS) if self.with_edges else None,
            tuple(self._garment(garment, person, sources) for garment in worn),
        )

    def caption(self, text: str) -> str:
        key = content_key("text", VERSION, text, self.encoders.text_fingerprint)
        self.captions[key] = text
        return key

    def _garment(self, garment: WornGarment, person: Source, sources: Mapping[str, Source]) -> GarmentKeys:
        mask = sources[garment.mask]
        if garment.image is None:
            make = partial(_cut_out, jitter=self.crop_jitter)
            jitter = [str(self.crop_jitter)] if self.crop_jitter else []
            latent = self._encode("crop", GARMENT_VERSION, (person, mask), make, *jitter)
        else:
            latent = self._encode("inshop", GARMENT_VERSION, (sources[garment.image],), _flat_lay)
        return GarmentKeys(garment.slot, latent, self._draw("mask", GARMENT_VERSION, (mask, person), _mask))

    def _encode(
        self, kind: str, version: int, sources: Sequence[Source], make: Callable[..., Tensors], *parts: str
    ) -> str:
        return self._add(self.encoded, kind, version, sources, make, self.encoders.latent_fingerprint, *parts)

    def _draw(
        self, kind: str, version: int, sources: Sequence[Source], make: Callable[..., Tensors], *parts: int
    ) -> str:
        return self._add(self.drawn, kind, version, sources, make, *parts)

    def _add(
        self,
        recipes: dict[str, _EntryRecipe],
        kind: str,
        version: int,
        sources: Sequence[Source],
        make: Callable[..., Tensors],
        *parts: str | int,
    ) -> str:
        key = content_key(kind, version, *self.resolution, *(source.sha256 for source in sources), *parts)
        recipes[key] = _EntryRecipe(sources[0].name, partial(make, *sources, self.resolution))
        return key


@dataclass(frozen=True)
class _Builder:
    entries: Entries
    encoders: Encoders
    course: Course
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

    def _build_pictures(self, recipes: Mapping[str, _EntryRecipe]) -> dict[str, BadPictureError]:
        made: dict[str, Tensors] = {}
        failed: dict[str, BadPictureError] = {}
        for key, result in zip(recipes, self.pool.map(_EntryRecipe.attempt, recipes.values()), strict=True):
            if isinstance(result, BadPictureError):
                failed[key] = result
            else:
                made[key] = result
        pictures = {key: tensors.pop("picture") for key, tensors in made.items() if "picture" in tensors}
        if pictures:
            latents = self._encoded(torch.stack(list(pictures.values())))
            _refuse_broken(latents)
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


def _refuse_broken(latents: Tensor) -> None:
    """Tell an autoencoder that fails at everything from a picture that it fails at."""
    if len(latents) > 1 and not latents.isfinite().flatten(1).all(dim=1).any():
        why = f"Of {len(latents)} different pictures it made NaN or infinity, so the pictures are not to blame."
        remedy = 'name another base.checkpoint, or begin a run with memory.precision = "fp32" if this one is fp16.'
        raise refusal("The base model's autoencoder", "makes no finite numbers", why, remedy)


def _person(person: Source, resolution: Size) -> Tensors:
    return {"picture": person_picture(person, resolution)}


def _edges(person: Source, resolution: Size) -> Tensors:
    return _packed(canny_edges(person_picture(person, resolution)[None])[0, 0] > 0)


def _mask(mask: Source, person: Source, resolution: Size) -> Tensors:
    return _packed(worn_mask(mask, person, resolution))


def _flat_lay(garment: Source, resolution: Size) -> Tensors:
    return _laid_out(flat_lay(garment, resolution))


def _cut_out(person: Source, mask: Source, resolution: Size, jitter: float) -> Tensors:
    return _laid_out(cut_out(person, mask, resolution, jitter))


def _laid_out(canvas: GarmentCanvas) -> Tensors:
    return {"picture": canvas.picture[0], "cells": canvas.cells}


def _packed(shape: Tensor) -> Tensors:
    """(H, W) bool, eight pixels of a row in a byte."""
    return {"bits": torch.from_numpy(np.packbits(shape.numpy(), axis=1))}


def _files(item: Item, worn: Sequence[WornGarment]) -> list[str]:
    of_garments = [name for garment in worn for name in (garment.image, garment.mask) if name is not None]
    return [item.image, *of_garments]


def _find_sources(
    manifest: Manifest, names: Sequence[str], course: Course, pool: ThreadPoolExecutor
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


def _refuse_too_many(bad: Mapping[str, BadPictureError], total: int, needs: CachePlan, list_of_bad: Path) -> None:
    if not total:
        why = "A garment is trained when its slot is one of adapter.slots."
        raise refusal(
            f"Split {needs.split!r} of the data", "has nobody to train on", why, "name slots that the data has."
        )
    if not bad:
        return
    named = "; ".join(f"{name}: {error}" for name, error in list(bad.items())[:NAMED_BAD])
    if len(bad) / total > needs.most_bad or len(bad) == total:
        problem = f"have bad pictures; at most {needs.most_bad:.0%} may"
        remedy = f"mend them or take them out of the manifest; all are listed in {str(list_of_bad)!r}."
        raise refusal(f"{len(bad)} of {total} people", problem, f"{named}.", remedy)
    logger.warning("%d of %d people have bad pictures and are left out: %s.", len(bad), total, named)
