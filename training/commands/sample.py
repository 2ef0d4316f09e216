# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing sample`: pictures with what they were made from beside them, by the code that draws the previews."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.checkpoint_info import CheckpointInfo
from ...anydressing_core.refusals import is_text, quote, refusal
from ..base.model import BaseModel, load_base
from ..data.manifest import file_stem, read_manifest
from ..data.pictures import BadPictureError, Source, cut_out, flat_lay
from ..dressing.finished import dressing_model, load_file
from ..hardware import WantedHardware
from ..model.people import EncodedGarment, Person, Picture, sample_people
from ..model.sampling import SamplingSettings
from ..picture_files import png_bytes
from ..places import require_there
from ..progress import UNWATCHED, Course


@dataclass(frozen=True)
class Prompted:
    """`count` pictures of one prompt in garments (slot, picture)."""

    prompt: str
    garments: Sequence[tuple[str, Path]]
    count: int = 1


@dataclass(frozen=True)
class FromManifest:
    """The first `count` people of a manifest's split, each in her own garments and caption, as the previews show them."""

    manifest: Path
    split: str
    count: int = 1


AT_ONCE = 4  # pictures, as the previews sample them

Wanted = Prompted | FromManifest
Made = tuple[Person, dict[str, object]]
"""A person to be sampled, and what stands beside her picture."""


def sample_to_folder(
    file: Path,
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

    file: an AnyDressing file or a run. Raises ValueError in the user's words, StoppedError, between two steps, when it is
    stopped.
    """
    checkpoint = load_file(file)
    loaded = load_base(base, hardware.for_file(checkpoint.info.trained_in), tokenizer=tokenizer)
    model, info = dressing_model(checkpoint, loaded), checkpoint.info
    made = _people_of(wanted, info, loaded) if isinstance(wanted, FromManifest) else _prompted(wanted, info, loaded)
    out.mkdir(parents=True, exist_ok=True)
    no_text = loaded.encode_text([""])[0]
    total, done = len(made) * settings.steps, 0

    def tick(pictures: int) -> None:
        nonlocal done
        done += pictures
        course.go_on("sampling", done, total)

    made_from = {"file": str(file), "base": str(base), "base_sha256": loaded.sha256, **loaded.hardware.told()}
    written: list[Path] = []
    for start in range(0, len(made), AT_ONCE):
        some = made[start : start + AT_ONCE]
        people = [person for person, _ in some]
        pictures = sample_people(
            model, loaded, people, no_text, settings, size=info.resolution, batch=AT_ONCE, tick=tick
        )
        for (person, source), picture in zip(some, pictures, strict=True):
            beside = {**made_from, **source, **asdict(settings)}
            written.append(_write(out / f"{file_stem(person.name)}.png", picture, beside))
    return written


def _write(path: Path, picture: Picture, made_from: dict[str, object]) -> Path:
    write_atomically(path, png_bytes(Image.fromarray(picture.pixels)))
    write_atomically(path.with_suffix(".json"), json.dumps(made_from, indent=1).encode())
    return path


def _people_of(wanted: FromManifest, info: CheckpointInfo, base: BaseModel) -> list[Made]:
    manifest = read_manifest(wanted.manifest)
    items = [
        item for item in manifest.of_split(wanted.split) if any(garment.slot in info.slots for garment in item.garments)
    ][: wanted.count]
    if not items:
        why = f"Nobody in its split {wanted.split!r} wears {' or '.join(info.slots)}, as this file dresses people."
        name = f"Manifest {str(wanted.manifest)!r}"
        raise refusal(name, "has nobody to sample", why, "choose the other --split, or other data.")
    made: list[Made] = []
    for item, text in zip(items, base.encode_text([item.caption for item in items]), strict=True):
        person, worn = _source(manifest.path(item.image)), list[EncodedGarment]()
        for garment in item.garments:
            if garment.slot in info.slots:
                mask = _source(manifest.path(garment.mask))
                picture = None if garment.image is None else _source(manifest.path(garment.image))
                files = (person, mask) if picture is None else (picture,)
                worn.append(_encoded(garment.slot, files, info, base))
        source = {"id": item.id, "prompt": item.caption, "slots": [garment.slot for garment in worn]}
        made.append((Person(item.id, text, worn), source))
    return made


def _prompted(wanted: Prompted, info: CheckpointInfo, base: BaseModel) -> list[Made]:
    unknown = sorted({slot for slot, _ in wanted.garments} - set(info.slots))
    if unknown or not wanted.garments:
        what = f"Garment kind {unknown[0]!r}" if unknown else "No garment"
        known = ", ".join(info.slots)
        raise refusal(what, "was given", f"This file dresses people in: {known}.", "write --garment KIND=PICTURE.")
    if not is_text(wanted.prompt):
        why = "It holds bytes that are no UTF-8, as a terminal of another encoding sends them."
        raise refusal(f"--prompt {quote(wanted.prompt)}", "cannot be read", why, "set the terminal to UTF-8.")
    worn = [_encoded(slot, (_source(require_there(path)),), info, base) for slot, path in wanted.garments]
    text = base.encode_text([wanted.prompt])[0]
    source: dict[str, object] = {
        "prompt": wanted.prompt,
        "garments": {slot: str(path) for slot, path in wanted.garments},
    }
    return [(Person(f"{index:04d}", text, worn), source) for index in range(wanted.count)]


def _encoded(
    slot: str, files: tuple[Source] | tuple[Source, Source], info: CheckpointInfo, base: BaseModel
) -> EncodedGarment:
    """A garment laid flat, from its picture; or cut out, from a person's picture and the mask."""
    try:
        canvas = flat_lay(*files, info.resolution) if len(files) == 1 else cut_out(*files, info.resolution)
    except BadPictureError as error:
        raise _unusable(error) from error
    foreground = info.garment_tokens == "foreground"
    return EncodedGarment(slot, base.encode_mode(canvas.picture)[0], canvas.cells if foreground else None)


def _source(path: Path) -> Source:
    try:
        return Source.find(path.name, path)
    except BadPictureError as error:
        raise _unusable(error) from error


def _unusable(error: BadPictureError) -> ValueError:
    return refusal(quote(error.file), "cannot be used", f"Reason: {error.why}.", "choose another picture.")
