# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing sample`: pictures with what they were made from beside them, by the code that draws the previews."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.refusals import is_text, quote, refusal
from ..base.model import BaseModel
from ..data.manifest import WornGarment, file_stem, read_manifest
from ..dressing.finished import Way, make_ready
from ..dressing.garments import encoded_garment, picture_source
from ..hardware import WantedHardware
from ..model.dresser import Preparation
from ..model.people import EncodedGarment, Person, Picture, sample_people
from ..model.sampling import SamplingSettings
from ..picture_files import png_bytes
from ..places import require_there
from ..progress import UNWATCHED, Course


@dataclass(frozen=True)
class Prompted:
    """`count` pictures of one prompt in garments (slot, picture). words: what the garment of a slot is called."""

    prompt: str
    garments: Sequence[tuple[str, Path]]
    count: int = 1
    words: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class FromManifest:
    """The first `count` people of a manifest's split, each in her own garments and caption, as the previews show them.

    root: where pictures lie that are not beside the manifest.
    """

    manifest: Path
    split: str
    count: int = 1
    root: Path | None = None


AT_ONCE = 4  # pictures, as the previews sample them

Wanted = Prompted | FromManifest
Made = tuple[Person, dict[str, object]]
"""A person to be sampled, and what stands beside her picture."""


def sample_to_folder(
    way: Way,
    base: Path,
    out: Path,
    wanted: Wanted,
    settings: SamplingSettings,
    hardware: WantedHardware,
    *,
    tokenizer: Path | None = None,
    course: Course = UNWATCHED,
) -> list[Path]:
    """Write `NAME.png` and `NAME.json` for each picture, as soon as it is there, and return the pictures' paths.

    Raises ValueError in the user's words, StoppedError, between two steps, when it is stopped.
    """
    ready = make_ready(way, base, hardware, tokenizer)
    model, info, loaded = ready.dresser, ready.dresser.preparation, ready.base
    made = _people_of(wanted, info, loaded) if isinstance(wanted, FromManifest) else _prompted(wanted, info, loaded)
    out.mkdir(parents=True, exist_ok=True)
    no_text = loaded.encode_text([""])[0]
    total, done = len(made) * settings.steps, 0

    def tick(pictures: int) -> None:
        nonlocal done
        done += pictures
        course.go_on("sampling", done, total)

    made_from = {
        "file": str(way.file),
        "reference": way.is_by_reference,
        "base": str(base),
        "base_sha256": loaded.sha256,
        **loaded.hardware.told(),
    }
    written: list[Path] = []
    for start in range(0, len(made), AT_ONCE):
        some = made[start : start + AT_ONCE]
        people = [person for person, _ in some]
        pictures = sample_people(
            model, loaded, people, no_text, settings, size=info.resolution, batch=AT_ONCE, tick=tick
        )
        for (person, source), picture in zip(some, pictures, strict=True):
            beside = {**made_from, **source, **settings.told()}
            written.append(_write(out / f"{file_stem(person.name)}.png", picture, beside))
    return written


def _write(path: Path, picture: Picture, made_from: dict[str, object]) -> Path:
    write_atomically(path, png_bytes(Image.fromarray(picture.pixels)))
    write_atomically(path.with_suffix(".json"), json.dumps(made_from, indent=1).encode())
    return path


def _people_of(wanted: FromManifest, info: Preparation, base: BaseModel) -> list[Made]:
    manifest = read_manifest(wanted.manifest, wanted.root)

    def is_known(garment: WornGarment) -> bool:
        return not info.slots or garment.slot in info.slots

    items = [item for item in manifest.of_split(wanted.split) if any(map(is_known, item.garments))][: wanted.count]
    if not items:
        worn = " or ".join(info.slots) or "anything"
        why = f"Nobody in its split {wanted.split!r} wears {worn}, as this file dresses people."
        name = f"Manifest {str(wanted.manifest)!r}"
        raise refusal(name, "has nobody to sample", why, "choose the other --split, or other data.")
    made: list[Made] = []
    for item, text in zip(items, base.encode_text([item.caption for item in items]), strict=True):
        person, worn = picture_source(manifest.path(item.image)), list[EncodedGarment]()
        for garment in filter(is_known, item.garments):
            mask = picture_source(manifest.path(garment.mask))
            picture = None if garment.image is None else picture_source(manifest.path(garment.image))
            files = (person, mask) if picture is None else (picture,)
            worn.append(encoded_garment(garment.slot, files, info, base))
        source = {"id": item.id, "prompt": item.caption, "slots": [garment.slot for garment in worn]}
        made.append((Person(item.id, text, worn), source))
    return made


def _prompted(wanted: Prompted, info: Preparation, base: BaseModel) -> list[Made]:
    given = {slot for slot, _ in wanted.garments}
    unknown = sorted(given - set(info.slots)) if info.slots else []
    if unknown or not wanted.garments:
        what = f"Garment kind {unknown[0]!r}" if unknown else "No garment"
        known = f"This file dresses people in: {', '.join(info.slots)}." if info.slots else "There is nothing to wear."
        raise refusal(what, "was given", known, "write --garment KIND=PICTURE.")
    if not is_text(wanted.prompt):
        why = "It holds bytes that are no UTF-8, as a terminal of another encoding sends them."
        raise refusal(f"--prompt {quote(wanted.prompt)}", "cannot be read", why, "set the terminal to UTF-8.")
    for slot in sorted(wanted.words.keys() - given):
        raise refusal(f"--words {slot}=...", "names no garment", f"Given are: {', '.join(sorted(given))}.", "name one.")
    worn = [
        encoded_garment(slot, (picture_source(require_there(path)),), info, base, wanted.words.get(slot, ""))
        for slot, path in wanted.garments
    ]
    text = base.encode_text([wanted.prompt])[0]
    source: dict[str, object] = {
        "prompt": wanted.prompt,
        "garments": {slot: str(path) for slot, path in wanted.garments},
    }
    return [(Person(f"{index:04d}", text, worn), source) for index in range(wanted.count)]
