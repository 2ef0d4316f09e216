# SPDX-License-Identifier: GPL-3.0-or-later
"""How something is refused: what and which, why, what to do, as a plain ValueError whose three lines a person can act on.

Plain, because ComfyUI shows the class of an exception before its words, and one of ours with its file's path.
"""

from __future__ import annotations

import os


def refusal(name: str, problem: str, why: str, remedy: str) -> ValueError:
    """The error with which something is refused; `problem` completes the sentence that its name begins."""
    return ValueError(f"{name} {problem}.\n{why}\nWhat to do: {remedy}")


def disk_refusal(error: OSError, name: str, problem: str, remedy: str, why: str = "") -> OSError:
    """The same for a disk that refuses, with the errno of its error, which also says why when nothing else does."""
    told = OSError(str(refusal(name, problem, why or f"{reason_of(error)}.", remedy)))
    told.errno = error.errno  # set afterwards: as an argument it would put [Errno 28] before the sentence
    return told


def reason_of(error: OSError) -> str:
    """Why the disk refuses, in the system's words."""
    return os.strerror(error.errno) if error.errno else str(error)


def quote(value: object) -> str:
    """Quote what a stranger wrote: control characters escaped, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-17:]}"


def is_text(value: object) -> bool:
    """Whether this is a string that UTF-8 can hold; JSON can also spell half a character (`\\ud800`)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
