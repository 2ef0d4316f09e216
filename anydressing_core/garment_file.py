# SPDX-License-Identifier: GPL-3.0-or-later
"""The garment file: one encoded garment as safetensors, for a wardrobe that outlives the day.

It holds what a U-Net read of the garment, and the picture that it read, from which another U-Net can read it again. As an
AnyDressing file it comes from a stranger: names, shapes and dtypes are compared with its metadata before any tensor is read.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import safetensors.torch
import torch
from torch import Tensor

from .atomic_write import write_atomically
from .checkpoint_info import IDENTITY
from .digests import tensor_digest
from .latents import LEAST_SIDE, MOST_SIDE
from .refusals import is_text, quote, refusal
from .safetensors_header import (
    Header,
    TensorEntry,
    file_name,
    open_weights,
    read_header,
    read_tensors,
    refuse_not_finite,
)
from .sites import UNetShape, parse_unet_config

FORMAT_VERSION = "1"
FORMAT_ENTRY = "anydressing_garment"
LONGEST = 1000
"""Characters of an entry that is written by hand."""

MOST_LEVELS = 64
PICTURE, WORDS = "picture", "words"
_TEXTS = ("slot", "called", "file_name", "licence")
_DIGESTS = ("content", "unet_digest", "file")
_FLAGS = ("by_model", "loras", "foreground")
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class GarmentInfo:
    """What a garment file says about itself.

    content: digest of what was read. unet, unet_digest: of the U-Net that read it. file, file_name: identity and name of the
    AnyDressing file whose slot it was read for; both empty without one. called: its words. licence: of its picture.
    by_model: whether a garment model read it. loras: whether LoRAs were in the MODEL. foreground: whether only the
    garment's own tokens were kept. levels: noise over signal, and h and w of the latent, of each level at which it was read
    for reference.
    """

    content: str
    unet: UNetShape
    unet_digest: str
    slot: str
    called: str = ""
    file: str = ""
    file_name: str = ""
    licence: str = ""
    by_model: bool = False
    loras: bool = False
    foreground: bool = False
    levels: tuple[tuple[float, int, int], ...] = ()

    def to_metadata(self) -> dict[str, str]:
        """Return the file's metadata."""
        return {
            "format": "pt",
            FORMAT_ENTRY: FORMAT_VERSION,
            "unet_config": json.dumps(self.unet.to_diffusers()),
            "levels": json.dumps(self.levels),
            **{name: getattr(self, name) for name in (*_TEXTS, *_DIGESTS)},
            **{name: "true" if getattr(self, name) else "false" for name in _FLAGS},
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> GarmentInfo:
        """Read a file's metadata. Raises ValueError; `source` is what the message says was refused."""
        if FORMAT_ENTRY not in metadata:
            why = f"Its metadata has no entry {FORMAT_ENTRY!r}."
            raise refusal(
                source, "is no AnyDressing garment", why, "choose a file that AnyDressing Save Garment wrote."
            )
        if metadata[FORMAT_ENTRY] != FORMAT_VERSION:
            why = f"Its {FORMAT_ENTRY!r} is {quote(metadata[FORMAT_ENTRY])}; this version reads {FORMAT_VERSION!r}."
            raise refusal(source, "has another format", why, "update ComfyUI-AnyDressing.")
        missing = sorted(cls._known() - set(metadata))
        if missing:
            raise _unfit(f"Its metadata has no entry {missing[0]!r}.", source)
        for name in _TEXTS:
            if not _is_line(metadata[name]):
                raise _unfit(f"Its {name} is no single line of at most {LONGEST} characters.", source)
        for name in _DIGESTS:
            if not re.fullmatch("([0-9a-f]{64})?" if name == "file" else "[0-9a-f]{64}", metadata[name]):
                raise _unfit(f"Its {name} {quote(metadata[name])} is no sha256.", source)
        for name in _FLAGS:
            if metadata[name] not in ("true", "false"):
                raise _unfit(f"Its {name} is {quote(metadata[name])}, neither true nor false.", source)
        if not re.fullmatch("[a-z0-9_]{1,64}", metadata["slot"]):
            raise _unfit(f"Its slot {quote(metadata['slot'])} is no name of a slot.", source)
        try:
            unet, levels = parse_unet_config(metadata["unet_config"]), _read_levels(metadata["levels"])
        except ValueError as error:
            raise _unfit(quote(str(error)), source) from error
        values: dict[str, Any] = {name: metadata[name] for name in (*_TEXTS, *_DIGESTS)}
        values |= {name: metadata[name] == "true" for name in _FLAGS}
        return cls(unet=unet, levels=levels, **values)

    @staticmethod
    def _known() -> set[str]:
        return {"unet_config", "levels", *_TEXTS, *_DIGESTS, *_FLAGS}


@dataclass(frozen=True, eq=False)
class GarmentFile:
    """A garment file's content.

    picture: the canvas that was read, (H, W, 3) in 8 bits, or (H, W, 4) with the garment's mask as alpha. words: (C_text,).
    trained: F (1, L_g, C) by site, of all sites or none. levels: (K_g, V_g), (1, L_g, C) each, by site, of each level.
    """

    info: GarmentInfo
    picture: Tensor
    words: Tensor | None
    trained: Mapping[str, Tensor]
    levels: Sequence[Mapping[str, tuple[Tensor, Tensor]]]

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name in the file."""
        named = {f"trained.{key}": tensor for key, tensor in self.trained.items()}
        for index, level in enumerate(self.levels):
            for key, pair in level.items():
                named |= {f"levels.{index}.{key}.{part}": pair[i] for i, part in enumerate(("key", "value"))}
        words = {} if self.words is None else {WORDS: self.words}
        return {PICTURE: self.picture, **words, **named}


def save_garment(path: str | os.PathLike[str], garment: GarmentFile) -> int:
    """Write a garment; a crash leaves nothing or the whole file. Returns its bytes.

    Raises ValueError for what a file could not give back and OSError when the disk refuses.
    """
    metadata = garment.info.to_metadata()
    GarmentInfo.from_metadata(metadata, "This garment")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in garment.tensors().items()}
    content = safetensors.torch.save(tensors, metadata | {IDENTITY: _identity(metadata, tensors)})
    write_atomically(path, content)
    return len(content)


def load_garment(path: str | os.PathLike[str]) -> GarmentFile:
    """Read a garment onto the CPU, everything checked. Raises ValueError with the file's name."""
    with open_weights(path) as file:
        header, info = _read_description(file)
        name, tensors = file_name(file), read_tensors(file, header)
    refuse_not_finite(tensors, name, _AGAIN)
    if header.metadata.get(IDENTITY) != _identity(info.to_metadata(), tensors):
        why = "Its content is not what it was written with: bits were lost on the way, or somebody changed it."
        raise refusal(name, "is damaged", why, "copy it again, or save the garment again.")
    sites = _level_sites(header.tensors)
    levels = [
        {key: (tensors[f"levels.{index}.{key}.key"], tensors[f"levels.{index}.{key}.value"]) for key in sites}
        for index in range(len(info.levels))
    ]
    trained = {site.key: tensors[f"trained.{site.key}"] for site in info.unet.sites} if info.file else {}
    return GarmentFile(info, tensors[PICTURE], tensors.get(WORDS), trained, levels)


def read_picture(path: str | os.PathLike[str]) -> Tensor:
    """Read a garment's picture alone, (H, W, 3 or 4) in 8 bits. Raises ValueError as `load_garment` does."""
    with open_weights(path) as file:
        header, _ = _read_description(file)
        (start, end), shape = header.tensors[PICTURE].offsets, header.tensors[PICTURE].shape
        file.seek(len(header.prefix) + start)
        pixels = bytearray(file.read(end - start))
        if len(pixels) != end - start:
            raise refusal(file_name(file), "changed while it was read", "It is shorter than it was.", "try again.")
    return torch.frombuffer(pixels, dtype=torch.uint8).reshape(shape)


_AGAIN = "save the garment again, or choose another file."


def _read_description(file: BinaryIO) -> tuple[Header, GarmentInfo]:
    header, name = read_header(file), file_name(file)
    info = GarmentInfo.from_metadata(header.metadata, name)
    _refuse_other_tensors(info, header.tensors, name)
    return header, info


def _refuse_other_tensors(info: GarmentInfo, found: Mapping[str, TensorEntry], source: str) -> None:
    """Refuse all but exactly the tensors that the metadata asks for."""
    channels = {site.key: site.channels for site in info.unet.sites}
    sites = _level_sites(found)
    if bool(info.levels) != bool(sites) or not set(sites) <= set(channels) or not (info.levels or info.file):
        raise _unfit("Its tensors belong to other sites than its U-Net has.", source)
    names = [f"trained.{key}" for key in channels] if info.file else []
    for index in range(len(info.levels)):
        names += [f"levels.{index}.{key}.{part}" for key in sites for part in ("key", "value")]
    if set(found) - {WORDS} != {PICTURE, *names}:
        other = sorted((set(found) - {WORDS}) ^ {PICTURE, *names})[0]
        raise _unfit(f"Tensor {quote(other)} is {'unexpected' if other in found else 'missing'}.", source)
    counts: dict[str, set[int]] = {}
    for name in names:
        shape, key = found[name].shape, next(part for part in name.split(".") if part in channels)
        if len(shape) != 3 or shape[0] != 1 or shape[1] < 1 or shape[2] != channels[key]:
            raise _unfit(
                f"Tensor {quote(name)} has the shape {shape}; it should be (1, tokens, {channels[key]}).", source
            )
        counts.setdefault(key, set()).add(shape[1])
    if any(len(count) > 1 for count in counts.values()):
        raise _unfit("Its tensors count different numbers of tokens at one site.", source)
    if len({found[name].dtype for name in names}) != 1 or found[names[0]].dtype not in _FLOATS:
        raise _unfit("Its tensors must be all F32, all F16 or all BF16.", source)
    _refuse_other_picture(found[PICTURE], source)
    words = found.get(WORDS)
    if words is not None and (words.shape != (info.unet.cross_attention_dim,) or words.dtype not in _FLOATS):
        raise _unfit(f"Its words have the shape {words.shape} and are {words.dtype}.", source)


def _refuse_other_picture(entry: TensorEntry, source: str) -> None:
    shape = entry.shape
    sides = len(shape) == 3 and shape[2] in (3, 4) and all(LEAST_SIDE <= side <= MOST_SIDE for side in shape[:2])
    if not sides or entry.dtype != "U8":
        raise _unfit(f"Its picture has the shape {shape} and is {entry.dtype}.", source)


def _level_sites(names: Mapping[str, object]) -> list[str]:
    """The sites of its first level, in the file's order of names."""
    found = (re.fullmatch(r"levels\.0\.([a-z0-9_]+)\.key", name) for name in names)
    return [match[1] for match in found if match]


def _read_levels(text: str) -> tuple[tuple[float, int, int], ...]:
    try:
        levels: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("levels is not readable JSON.") from error
    rows: list[Any] = cast("list[Any]", levels) if isinstance(levels, list) else [None]
    if len(rows) > MOST_LEVELS or not all(map(_is_level, rows)):
        raise ValueError("levels is no list of noise, height and width.")
    return tuple((float(sigma), int(height), int(width)) for sigma, height, width in rows)


def _is_level(row: object) -> bool:
    if not isinstance(row, list) or len(cast("list[Any]", row)) != 3:
        return False
    sigma, *size = cast("list[Any]", row)
    sides = all(type(side) is int and 1 <= side <= MOST_SIDE for side in size)
    return type(sigma) in (int, float) and math.isfinite(sigma) and sigma >= 0 and sides


def _is_line(text: str) -> bool:
    return is_text(text) and len(text) <= LONGEST and text.isprintable()


def _identity(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return tensor_digest(tensors, json.dumps(metadata, sort_keys=True))


def _unfit(why: str, source: str) -> ValueError:
    return refusal(source, "cannot be used as a garment", why, _AGAIN)
