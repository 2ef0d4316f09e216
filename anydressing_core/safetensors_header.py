# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a safetensors file, checked before any tensor is read.

A weights file comes from a stranger. ComfyUI's own loaders check it differently on CPU and on GPU, so we check it
here, once, from the header alone: nothing is allocated that the file merely claims to hold, and whatever passes is also
a valid file for the safetensors library. Every refusal is a ValueError of three lines: which file, why, what to do.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast

import safetensors.torch
import torch
from torch import Tensor

from .downloads import what_came_instead
from .refusals import is_text, quote, refusal

HEADER_LIMIT = 4 << 20
"""Longest header in bytes that is read; a file of ours with three slots needs 60 kB."""

TENSOR_LIMIT = 10_000
"""Most tensors a header may list."""

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header describes it; `offsets` (start, end) count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]


@dataclass(frozen=True)
class Header:
    """A header that passed every check.

    prefix: the very bytes that were checked. Joined with the rest of the file they can be parsed without reading the
    header a second time, so a file that changes in between cannot slip past the check.
    data_bytes: length of that rest.
    """

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    prefix: bytes = field(repr=False)
    data_bytes: int


def read_header(source: BinaryIO | str | os.PathLike[str]) -> Header:
    """Read and check the header; an open file is left at its first tensor byte.

    Raises ValueError for everything that is not a complete, well-formed safetensors file.
    """
    if isinstance(source, (str, os.PathLike)):
        with open_weights(source) as file:
            return read_header(file)
    name = file_name(source)
    size = source.seek(0, os.SEEK_END)
    prefix = _read_prefix(source, name, size)
    content = _parse(prefix[8:], name)
    metadata = _metadata(content.pop("__metadata__", {}), name)
    tensors = {key: _entry(key, value, size, name) for key, value in content.items()}
    _refuse_gaps(tensors, size - len(prefix), name)
    return Header(tensors, metadata, prefix, size - len(prefix))


def read_tensors(file: BinaryIO, header: Header) -> dict[str, Tensor]:
    """Read the tensors behind a header that was just checked, onto the CPU.

    They are read, not memory-mapped: a file that is replaced or cut short while it is in use must not take the process
    down. Raises ValueError when its size is not the same any more.
    """
    data = file.read(header.data_bytes + 1)
    if len(data) != header.data_bytes:
        raise refusal(file_name(file), "changed while it was read", _OTHER_SIZE, "load it again.")
    return safetensors.torch.load(header.prefix + data)


def refuse_not_finite(tensors: Mapping[str, Tensor], name: str, remedy: str) -> None:
    """Raise ValueError for NaN and infinity in the tensors of the file of this name."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            why = f"Tensor {key!r} holds NaN or infinity: the training went wrong, or the file was damaged."
            raise refusal(name, "cannot be used", why, remedy)


def open_weights(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a weights file for reading. Raises ValueError for what is missing, unreadable or no regular file."""
    name = quote(Path(path).name)
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # asked before opening: opening a pipe would wait for ever
            raise refusal(name, "cannot be read", "It is not a file but a folder or a device.", "choose a file.")
        return Path(path).open("rb")
    except FileNotFoundError as error:
        why = "It does not exist, or it is a link to a file that does not."
        raise refusal(name, "was not found", why, "check the name and the folder.") from error
    except OSError as error:
        raise refusal(name, "cannot be read", f"{error.strerror}.", "check the file and its permissions.") from error


def file_name(file: BinaryIO) -> str:
    """The quoted name by which messages call an open file."""
    name: object = getattr(file, "name", None)
    return quote(Path(name).name) if isinstance(name, str) else "This file"


_OTHER_SIZE = "Its size is not the same any more."
_COPY_AGAIN = "download or copy it again. If that changes nothing, ask its author for a new export."
_VALUE_LIMIT = 12 * TENSOR_LIMIT  # a tensor of the 8 dimensions we allow takes 11 commas; the rest is for metadata


def _invalid(name: str, why: str) -> ValueError:
    return refusal(name, "is not a valid safetensors file", why, _COPY_AGAIN)


def _incomplete(name: str, size: int, expected: int) -> ValueError:
    why = f"{size:,} bytes are here, {expected:,} are needed."
    return refusal(name, "is incomplete", why, "download or copy it again.")


def _read_prefix(file: BinaryIO, name: str, size: int) -> bytes:
    file.seek(0)
    if size < 10:
        raise _incomplete(name, size, 10)
    start = file.read(9)
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{":
        why = "Such a file can run programs when it is opened. For safety only .safetensors is loaded."
        raise refusal(name, "is a PyTorch (pickle or zip) file", why, "ask its author for a .safetensors file.")
    instead = what_came_instead(start + file.read(32))
    if instead is not None:
        what, remedy = instead
        raise refusal(name, f"is {what}", "No weights are in it.", remedy)
    file.seek(len(start))
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise _invalid(name, f"Its header claims {length:,} bytes; at most {HEADER_LIMIT:,} are read.")
    if start[8:] != b"{":
        raise _invalid(name, "Its header does not begin with a brace.")
    if 8 + length > size:
        raise _incomplete(name, size, 8 + length)
    prefix = start + file.read(length - 1)
    if len(prefix) != 8 + length:
        raise _incomplete(name, len(prefix), 8 + length)
    return prefix


def _parse(header: bytes, name: str) -> dict[str, Any]:
    # Every value but the first of a list or object follows a comma, and Python limits the depth: counting commas bounds
    # the memory that parsing can take.
    if header.count(b",") > _VALUE_LIMIT:
        raise _invalid(name, f"Its header lists too many entries; at most {TENSOR_LIMIT:,} tensors are read.")
    try:
        content: Any = json.loads(header.decode("utf-8"), object_pairs_hook=_unique, parse_int=_whole_number)
    except _DuplicateKeyError as error:
        raise _invalid(name, f"Its header names {quote(error.args[0])} twice.") from error
    except RecursionError as error:
        raise _invalid(name, "Its header is nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise _invalid(name, "Its header is not UTF-8 text.") from error
    except ValueError as error:
        raise _invalid(name, "Its header is not readable JSON.") from error
    if len(content) > TENSOR_LIMIT:
        raise _invalid(name, f"Its header lists {len(content):,} tensors; at most {TENSOR_LIMIT:,} are read.")
    return content


class _DuplicateKeyError(ValueError):
    """Carries the key that a JSON object holds twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKeyError(key)
        result[key] = value
    return result


def _whole_number(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)  # -0 is a float to safetensors' own parser


def _metadata(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _invalid(name, "Its metadata is not a JSON object.")
    metadata = cast("dict[str, object]", value)
    for key, text in metadata.items():
        if not is_text(key) or not is_text(text):
            raise _invalid(name, f"Its metadata entry {quote(key)} is not text.")
    return cast("dict[str, str]", metadata)


def _entry(key: str, value: object, size: int, name: str) -> TensorEntry:
    tensor = f"Tensor {quote(key)}"
    if not is_text(key):
        raise _invalid(name, f"{tensor} has a name that is not text.")
    entry = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(name, f"{tensor} is not described by dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _invalid(name, f"{tensor} has the unknown dtype {quote(dtype)}.")
    if not _are_counts(shape) or len(shape) > 8:
        raise _invalid(name, f"{tensor} has the impossible shape {quote(shape)}.")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(name, f"{tensor} has the impossible offsets {quote(offsets)}.")
    start, end = offsets
    if DTYPE_BYTES[dtype] * math.prod(shape) != end - start:
        raise _invalid(name, f"{tensor} of shape {quote(shape)} does not fill its {end - start:,} bytes.")
    # An empty tensor needs no bytes, so it could claim a dimension that overflows in whoever multiplies the others.
    if start == end and math.prod(max(length, 1) for length in shape) > size:
        raise _invalid(name, f"{tensor} is empty, yet claims the shape {quote(shape)}.")
    return TensorEntry(dtype, tuple(shape), (start, end))


def _are_counts(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list):
        return False
    return all(type(entry) is int and 0 <= entry < 1 << 63 for entry in cast("list[object]", value))


def _refuse_gaps(tensors: Mapping[str, TensorEntry], data_bytes: int, name: str) -> None:
    """Refuse a file whose tensors do not follow each other, without hole or overlap, to its very end."""
    position = 0
    for key, entry in sorted(tensors.items(), key=lambda item: item[1].offsets):
        start, end = entry.offsets
        if start != position:
            fault = "overlaps another tensor" if start < position else "is preceded by bytes that belong to no tensor"
            raise _invalid(name, f"Tensor {quote(key)} {fault}.")
        position = end
    if position > data_bytes:
        raise _incomplete(name, data_bytes, position)
    if position < data_bytes:
        raise _invalid(name, f"{data_bytes - position:,} bytes follow after its last tensor.")
