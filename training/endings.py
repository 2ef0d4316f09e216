# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command ends: exit statuses, and the words for what ended it."""

from __future__ import annotations

import errno

from ..anydressing_core.refusals import refusal

MISTAKE, DISK = 1, 3
"""Exit statuses, beside 0 and those of signals: something in the input, or a disk that is full or refuses."""

CUT_SHORT = 130
"""The exit status of what Ctrl-C ended where it was."""

AT_ONCE = (
    "Ended at once. What was finished or saved before is whole; a run goes on from its last checkpoint with --resume."
)

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def was_cut_short(end: BaseException) -> bool:
    """Whether a second Ctrl-C, or a first one that nobody caught, is behind an exit."""
    link: BaseException | None = end
    while link is not None and not isinstance(link, KeyboardInterrupt):
        link = link.__cause__ or link.__context__
    return link is not None


def status_of(error: OSError) -> int:
    """The exit status for a disk's error; errors in our words have the system's number in their cause."""
    cause = error.__cause__
    number = cause.errno if error.errno is None and isinstance(cause, OSError) else error.errno
    return DISK if number in _DISK else MISTAKE


def in_words(error: OSError) -> str:
    """A disk's error as three lines; ours have them already."""
    ours = error.strerror or str(error)
    if "\n" in ours:
        return ours
    why = "The disk is full, or refuses." if error.errno in _DISK else "It is needed here."
    remedy = "free some space or correct the path; a run goes on with --resume, its checkpoints are unchanged."
    return str(refusal(f"{error.filename or 'A file'}:", ours, why, remedy))
