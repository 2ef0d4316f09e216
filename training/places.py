# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a path leads: what a person gave, and where that is. Relative paths count from the folder the command runs in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..anydressing_core.refusals import refusal


def require_there(path: str | os.PathLike[str], name: str = "", remedy: str = "correct the path.") -> Path:
    """The path, if something lies there.

    name: what it was given as, `base.checkpoint` or `--judge` for example. Raises ValueError that tells the path as it was
    given and where it was looked for.
    """
    path = Path(path)
    if not path.exists():
        raise refusal(f"{name}: {str(path)!r}" if name else repr(str(path)), "was not found", looked_at(path), remedy)
    return path


def replaces(out: Path, is_ours: Callable[[Path], bool], ours: str) -> bool:
    """Whether writing a file replaces one. Raises ValueError where something else lies than may be replaced.

    is_ours: whether a file may be; its ValueError means that it may not. ours: what may be, in words.
    """
    if not out.exists() and not out.is_symlink():
        return False
    try:
        replaceable = out.is_file() and is_ours(out)
    except ValueError:
        replaceable = False
    if not replaceable:
        why = f"It is not {ours}, which alone is written over."
        raise refusal(f"{str(out)!r}", "is there already", why, "choose another name, or take that file away first.")
    return True


def looked_at(path: str | os.PathLike[str]) -> str:
    """Where a path that leads nowhere was looked for, in sentences."""
    path = Path(path)
    link = f" It is a link to {str(path.readlink())!r}, which is not there." if path.is_symlink() else ""
    if path.is_absolute():
        return f"Nothing is at {path}.{link}"
    return f"Nothing is at {Path.cwd() / path}: paths count from the folder in which the command runs.{link}"
