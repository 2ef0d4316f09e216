# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works in a folder: a lock that frees itself when its process ends, however it ends."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ...anydressing_core.refusals import disk_refusal, refusal


@contextmanager
def locked(path: Path) -> Iterator[FileIO]:
    """Hold the lock file `path`, which is made when missing and never removed; it is closed when the lock ends.

    Raises ValueError when another process holds it, and OSError when the file system refuses. On network drives the
    lock is only as good as the server's.
    """
    try:
        file = FileIO(path, "a+")
    except OSError as error:
        raise _unlockable(path, error) from error
    with file:
        try:
            _take(file)
        except BlockingIOError as error:
            raise _in_use(path, file) from error
        except OSError as error:
            raise _unlockable(path, error) from error
        file.truncate(0)
        file.write(f"pid {os.getpid()} on host {platform.node()}".encode())
        if hasattr(os, "register_at_fork"):
            # A forked child shares the lock: a data worker that outlives its killed parent would keep the folder shut.
            os.register_at_fork(after_in_child=file.close)
        yield file


def is_running(pid: int) -> bool:
    """Whether another process of this machine has this number; on Windows, which cannot be asked, no."""
    if os.name == "nt":
        return False
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


if sys.platform == "win32":
    import msvcrt

    def _take(file: FileIO) -> None:
        file.seek(1 << 20)  # the locked byte cannot be read by others, so it lies far behind the owner's name
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error

else:
    import fcntl

    def _take(file: FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _in_use(path: Path, file: FileIO) -> ValueError:
    file.seek(0)
    owner = file.read().decode(errors="replace") or "another process"  # one that has the lock but not yet signed
    why = f"Two trainings in {str(path.parent)!r} would overwrite each other's checkpoints."
    remedy = "wait until it ends, or stop it, or choose another folder."
    return refusal("This run folder", f"is in use by {owner}", why, remedy)


def _unlockable(path: Path, error: OSError) -> OSError:
    remedy = "choose a folder on a local disk that can be written to."
    return disk_refusal(error, f"The run folder {str(path.parent)!r}", "cannot be locked", remedy)
