# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a file so that a reader finds either the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .refusals import disk_refusal


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace `path` by a file with this content; after the return it survives a power cut.

    The file's permissions follow the umask. Raises OSError, naming the path, and then leaves the old file as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            write_synced(temporary, content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as error:
        remedy = "free some space, or choose a folder that exists and can be written to. An older file is unchanged."
        name = f"{target.name!r} ({len(content):,} bytes)"
        told = disk_refusal(error, name, "could not be written", remedy)
        raise OSError(error.errno, str(told), str(target)) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on disk. Raises FileExistsError when there is one already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # O_BINARY: Windows would alter newlines
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable; Windows has no handle for folders and does this by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
