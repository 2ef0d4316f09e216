# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP's tokenizer without a merge: a token for every letter."""

from __future__ import annotations

import json
from pathlib import Path


def write_letters(folder: Path) -> list[str]:
    """Write vocab.json and merges.txt; the words, the first and the last token of a text at their end."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return words
