# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files that a person may have written: UTF-8, with or without a byte order mark; any other is refused by its line."""

from __future__ import annotations

import codecs
from pathlib import Path

from ..anydressing_core.refusals import quote, refusal

SAVE_AS_UTF8 = "open it in a text editor and save it as UTF-8."


def read_text(path: Path, name: str | None = None) -> str:
    """The text of a file, its lines ended by \\n. name: how messages call it, its path when None. Raises as `as_text`."""
    text = as_text(path.read_bytes(), name or repr(str(path)))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_text(data: bytes, name: str) -> str:
    """The text in a file's bytes, without a byte order mark.

    name: what the file is called in a message. Raises ValueError for another encoding, with the line where there is one.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        why = "It begins with UTF-16's byte order mark, as Notepad's 'Unicode' and PowerShell's > write it."
        raise refusal(name, "is saved as UTF-16", why, SAVE_AS_UTF8)
    data = data.removeprefix(codecs.BOM_UTF8)
    zero = data.find(b"\0")
    if zero >= 0:
        why = f"Line {_line(data, zero)} holds a zero byte, which text in UTF-8 never does."
        raise refusal(name, "is not a text file in UTF-8", why, SAVE_AS_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].rpartition(b"\n")[2].decode("utf-8")[-30:]
        place = f"after {quote(before)}" if before else "at its beginning"
        why = f"Line {_line(data, error.start)} holds, {place}, the byte {data[error.start]:#04x}, which is no UTF-8."
        raise refusal(name, "is not saved as UTF-8", why, SAVE_AS_UTF8) from error


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1
