# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP's tokenizer: where it may lie, and its opening."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from transformers import CLIPTokenizer

from ...anydressing_core.refusals import quote, refusal
from ..places import looked_at


def tokenizer_places(path: Path) -> Iterator[Path]:
    """Yield the folders where CLIP's tokenizer may lie, best first; `path` is the base model's."""
    yield path / "tokenizer"
    yield path.parent / "tokenizer"
    pack = Path(__file__).absolute().parents[2]
    around = [*path.absolute().parents, *path.resolve().parents, *pack.parents, *pack.resolve().parents]
    named = os.environ.get("COMFYUI_PATH")
    fetched = sorted((pack / ".comfyui").glob("[0-9]*"), reverse=True)  # by `make setup`
    for comfyui in (*([Path(named).expanduser()] if named else []), *around, Path.home() / "comfy/ComfyUI", *fetched):
        yield comfyui / "comfy" / "sd1_tokenizer"


def is_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    # transformers 5 saves both files as one
    files = [(folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "merges.txt")]
    return files[0] or all(files[1:])


def load_tokenizer(path: Path, given: str | os.PathLike[str] | None, known: int) -> CLIPTokenizer:
    """Open the tokenizer in the folder `given`, or else in the first place that has one. Raises ValueError.

    path: of the base model. known: how many words its text encoder knows.
    """
    places = [Path(given)] if given is not None else tokenizer_places(path)
    folder = next((place for place in places if is_tokenizer(place)), None)
    if folder is None:
        searched = f"the folder {quote(str(given))}" if given is not None else "any of the usual places"
        place = f" {looked_at(given)}" if given is not None and not Path(given).exists() else ""
        raise refusal(
            "CLIP's tokenizer",
            "was not found",
            f"Its two files, vocab.json and merges.txt, are not in {searched}, and nothing is downloaded.{place}",
            "name the folder that holds them; every ComfyUI has one, comfy/sd1_tokenizer."
            " Or set COMFYUI_PATH to your ComfyUI.",
        )
    problem = f"in {quote(str(folder))} does not fit this base model"
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # tokenizers, written in Rust, raises bare Exceptions
        raise refusal(
            "CLIP's tokenizer", problem, f"It cannot be read: {quote(str(error))}", "copy it again."
        ) from error
    if len(tokenizer) > known:
        why = f"It knows {len(tokenizer):,} words, the text encoder {known:,}."
        raise refusal("CLIP's tokenizer", problem, why, "name the folder of the tokenizer made for it.")
    return tokenizer
