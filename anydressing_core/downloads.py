# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies there when a download brought something else than the file."""

from __future__ import annotations


def what_came_instead(start: bytes) -> tuple[str, str] | None:
    """Name what a file is by its first bytes, and what to do; None when these are nothing that we know."""
    text = start.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, which stands for the file",
            "fetch the file itself: `git lfs pull` does, or a browser.",
        )
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the file itself: the page may ask to log in or to accept a licence first."
    return None
