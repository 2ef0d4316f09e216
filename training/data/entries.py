# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache's files: small groups of tensors, each under a key that says all about what made it, and with a checksum.

cache/3f/3f9a....safetensors
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.digests import tensor_digest
from ...anydressing_core.refusals import disk_refusal, refusal
from ...anydressing_core.safetensors_header import read_header

CHECKSUM = "sha256"


@dataclass(frozen=True)
class Entries:
    """A folder of entries. It holds no state, so that threads, processes and two builders may share it."""

    folder: Path

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry, all of it or nothing. Raises OSError, with its errno, when the disk is full or refuses."""
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = safetensors.torch.save(own, {CHECKSUM: tensor_digest(own, key)})
        try:
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path(key), content)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def read(self, key: str) -> dict[str, Tensor]:
        """Read an entry onto the CPU. Raises ValueError when it is not, to the bit, what was written."""
        try:
            content = self.path(key).read_bytes()
            checksum = read_header(io.BytesIO(content)).metadata.get(CHECKSUM)
            tensors = safetensors.torch.load(content)
            sound = checksum == tensor_digest(tensors, key)
        except (OSError, ValueError, SafetensorError):
            sound, tensors = False, {}
        if not sound:
            why = "The file is gone, or its bytes are not those that were written."
            remedy = "resume the run; it will be built again."
            raise refusal(f"{str(self.path(key))!r}, of the cache,", "changed while the run was going", why, remedy)
        return tensors

    def is_sound(self, key: str) -> bool:
        """Whether the entry is there and good to the last bit."""
        try:
            self.read(key)
        except ValueError:
            return False
        return True


def unwritable(folder: Path, error: OSError) -> OSError:
    """The error, with the same errno, that tells what to do about a disk that is full or refuses."""
    remedy = "free some space, or choose another folder as data.cache. What was built stays good."
    return disk_refusal(error, f"The cache in {str(folder)!r}", "cannot be written", remedy)
