# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing sample`: pictures with what they were made from beside them, by the code that draws the previews."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.checkpoint import Checkpoint, load_checkpoint
from ...anydressing_core.safetensors_header import quote, refusal
from ..base.model import BaseModel, load_base
from ..data.manifest import read_manifest
from ..data.pictures import BadPictureError, Source, cut_out, flat_lay
from ..dressing.export import finished_file
from ..dressing.previews import png_bytes
from ..model.adapter import Adapter
from ..model.dressing import DressingModel
from ..model.sampling import Garment, Person, SamplingSettings, sample_people
from ..run.folder import RunFolder


def sample_to_folder(
    file: Path,
    base: Path,
    out: Path,
    *,
    prompt: str | None,
    garments: Sequence[tuple[str, Path]],
    manifest: Path | None,
    split: str,
    count: int,
    seed: int,
    settings: SamplingSettings,
    tokenizer: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Path]:
    """Write `NAME.png` and `NAME.json` for each picture and return the pictures' paths.

    file: an AnyDressing file or a run. Either a prompt with garments (slot, picture), `count` pictures of it, or the
    first `count` people of a manifest's split, each in her own garments and caption, as the previews show them. Raises
    ValueError in the user's words.
    """
    if (prompt is None) == (manifest is None):
        why = "A picture is made from a prompt and garments, or people are taken from a manifest."
        raise refusal("anydressing sample", "needs one of --prompt and --manifest", why, "give exactly one of them.")
    checkpoint = load_file(file)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(base, device=device, dtype=torch.float32, tokenizer=tokenizer)
    model = dressing_model(checkpoint, loaded)
    people, sources = (
        _people_of(manifest, split, count, checkpoint, loaded)
        if manifest is not None
        else _prompted(prompt or "", garments, count, checkpoint, loaded)
    )
    out.mkdir(parents=True, exist_ok=True)
    no_text = loaded.encode_text([""])[0]
    total, written = len(people) * settings.steps, [0]

    def told(pictures: int) -> None:
        written[0] += pictures
        progress("sampling", written[0], total)

    pictures = sample_people(
        model, loaded, people, no_text, settings, seed=seed, size=checkpoint.info.resolution, progress=told
    )
    paths: list[Path] = []
    for person, source, picture in zip(people, sources, pictures, strict=True):
        path = out / f"{person.name}.png"
        made_from = {"file": str(file), "base": str(base), "base_sha256": loaded.sha256, "seed": seed, **source}
        write_atomically(path, png_bytes(Image.fromarray(picture.pixels)))
        write_atomically(path.with_suffix(".json"), json.dumps({**made_from, **asdict(settings)}, indent=1).encode())
        paths.append(path)
    return paths


def load_file(path: Path) -> Checkpoint:
    """An AnyDressing file, or that of a run as it stands. Raises ValueError when it is neither."""
    return finished_file(RunFolder.open(path)) if path.is_dir() else load_checkpoint(path)


def dressing_model(checkpoint: Checkpoint, base: BaseModel) -> DressingModel:
    """A finished file on its base model, frozen. Raises ValueError when they do not fit."""
    if checkpoint.info.unet != base.shape:
        why = "Its W_k' and W_v' have the widths of the U-Net it was trained on."
        raise refusal("This AnyDressing file", "does not fit the base model", why, "name the base it was trained on.")
    adapter = Adapter(checkpoint.info, base.unet)
    adapter.load(checkpoint)
    return DressingModel(base.unet, adapter.requires_grad_(False)).to(base.unet.device)


def _people_of(
    path: Path, split: str, count: int, checkpoint: Checkpoint, base: BaseModel
) -> tuple[list[Person], list[dict[str, object]]]:
    manifest = read_manifest(path)
    items = [
        item
        for item in manifest.of_split(split)
        if any(garment.slot in checkpoint.info.slots for garment in item.garments)
    ][:count]
    if not items:
        why = f"Nobody in its split {split!r} wears {' or '.join(checkpoint.info.slots)}, as this file dresses people."
        raise refusal(
            f"Manifest {str(path)!r}", "has nobody to sample", why, "choose the other --split, or other data."
        )
    people: list[Person] = []
    sources: list[dict[str, object]] = []
    for item, text in zip(items, base.encode_text([item.caption for item in items]), strict=True):
        worn: list[Garment] = []
        for garment in item.garments:
            if garment.slot in checkpoint.info.slots:
                person = _source(manifest.path(item.image))
                mask = _source(manifest.path(garment.mask))
                picture = None if garment.image is None else _source(manifest.path(garment.image))
                worn.append(_garment(garment.slot, picture, person, mask, checkpoint, base))
        people.append(Person(item.id, text, worn))
        sources.append({"id": item.id, "prompt": item.caption, "slots": [garment.slot for garment in worn]})
    return people, sources


def _prompted(
    prompt: str, garments: Sequence[tuple[str, Path]], count: int, checkpoint: Checkpoint, base: BaseModel
) -> tuple[list[Person], list[dict[str, object]]]:
    unknown = sorted({slot for slot, _ in garments} - set(checkpoint.info.slots))
    if unknown or not garments:
        what = f"Garment kind {unknown[0]!r}" if unknown else "No garment"
        known = ", ".join(checkpoint.info.slots)
        raise refusal(what, "was given", f"This file dresses people in: {known}.", "write --garment KIND=PICTURE.")
    worn = [_garment(slot, _source(path), None, None, checkpoint, base) for slot, path in garments]
    text = base.encode_text([prompt])[0]
    made_from = {"prompt": prompt, "garments": {slot: str(path) for slot, path in garments}}
    return [Person(f"{index:04d}", text, worn) for index in range(count)], [dict(made_from)] * count


def _garment(
    slot: str,
    picture: Source | None,
    person: Source | None,
    mask: Source | None,
    checkpoint: Checkpoint,
    base: BaseModel,
) -> Garment:
    resolution = checkpoint.info.resolution
    try:
        if picture is not None:
            canvas, cells = flat_lay(picture, resolution)
        else:
            assert person is not None
            assert mask is not None
            canvas, cells = cut_out(person, mask, resolution)
    except BadPictureError as error:
        raise _unusable(error) from error
    foreground = checkpoint.info.garment_tokens == "foreground"
    return Garment(slot, base.encode_mode(canvas[None])[0], cells if foreground else None)


def _source(path: Path) -> Source:
    try:
        return Source.find(path.name, path)
    except BadPictureError as error:
        raise _unusable(error) from error


def _unusable(error: BadPictureError) -> ValueError:
    return refusal(quote(error.file), "cannot be used", f"Reason: {error.why}.", "choose another picture.")
