# SPDX-License-Identifier: GPL-3.0-or-later
"""How something is refused: what and which, why, what to do, as a plain ValueError whose three lines a person can act on."""

from __future__ import annotations


def refusal(name: str, problem: str, why: str, remedy: str) -> ValueError:
    """The error with which something is refused; `problem` completes the sentence that its name begins."""
    return ValueError(f"{name} {problem}.\n{why}\nWhat to do: {remedy}")


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
