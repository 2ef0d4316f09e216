# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells two things apart by their content alone: sha256 over tensors and words.

Each function's bytes are a promise: runs, caches and evidence hold digests that later versions must find again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def content_key(kind: str, *parts: str | int) -> str:
    """The sha256 of whatever decides a thing's content."""
    return hashlib.sha256(json.dumps([kind, *parts]).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor], *words: str) -> str:
    """The sha256 over names, dtypes, shapes and values of tensors, and over some words."""
    sha = hashlib.sha256(json.dumps(words).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def ordered_digest(*parts: Tensor | str) -> str:
    """The sha256 over tensors (shape, dtype and values) and strings, in order."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            sha.update(str((tuple(part.shape), part.dtype)).encode())
            sha.update(_bytes(part))
        else:
            sha.update(f"{len(part)}:{part}".encode())
    return sha.hexdigest()


def file_identity(metadata: Mapping[str, str], tensors: Mapping[str, Tensor], dtype: str) -> str:
    """The sha256 of an AnyDressing file's metadata and tensors, in whatever order it keeps them.

    dtype: of all of them, as the file spells it.
    """
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {dtype} {tuple(tensor.shape)}".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
