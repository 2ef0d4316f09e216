# SPDX-License-Identifier: GPL-3.0-or-later
"""The data format: `manifest.jsonl`, one person a line, with the garments that she wears and where they show.

    {"id": "a1", "image": "people/a1.png", "caption": "a woman waving in a park", "split": "train", "garments": [
        {"slot": "upper", "image": "garments/a1_upper.png", "kind": "inshop", "mask": "masks/a1_upper.png"},
        {"slot": "lower", "image": null, "kind": "crop", "mask": "masks/a1_lower.png"}]}

Paths are relative to the manifest and stay inside its folder; a picture that is not there is looked for in the data's root,
which is only read, where a run or a command names one. A garment of kind `crop` has no picture of its own: it is cut
out of the person's (Sec. 7.2). A painted data set also says what it knows for certain: `person_mask`, the mask of the
whole person; `labels`, the truth about person and garments; `size`, height and width, and `hats`, the share of people
with one. Unknown keys are kept out of the data and told once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ...anydressing_core.digests import content_key
from ...anydressing_core.refusals import is_text, quote, refusal
from ..places import looked_at
from ..text_files import as_text

MANIFEST = "manifest.jsonl"
LONGEST_ID = 128


def _printable_id(text: str) -> str:
    plain = unicodedata.normalize("NFC", text)
    if (
        plain != plain.strip()
        or not 1 <= len(plain) <= LONGEST_ID
        or not plain.isprintable()
        or set("/\\") & set(plain)
    ):
        raise ValueError(f"an id is 1 to {LONGEST_ID} visible characters on one line, without / and \\")
    return plain


Name = Annotated[str, AfterValidator(_printable_id)]
Slot = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]

LONGEST_CAPTION = 2000
LONGEST_LINE = 100_000

OF_A_FOLDER = (
    "make one of a folder of photos with `anydressing data photos FOLDER OUT`, or of a published data set, see "
    "`anydressing data --help`."
)

logger = logging.getLogger(__name__)


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class WornGarment(_Line):
    """One garment of one person. image: the garment laid flat, None for a crop. mask: where it shows on the person."""

    slot: Slot
    image: str | None
    kind: Literal["inshop", "crop"]
    mask: str

    @field_validator("image", "mask")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        return None if path is None else safe_relative_path(path)

    @model_validator(mode="after")
    def _pictured(self) -> WornGarment:
        if (self.image is None) != (self.kind == "crop"):
            raise ValueError("a garment of kind 'crop' has image null, one of kind 'inshop' has a picture")
        return self


class Item(_Line):
    """One person: picture, caption, split and what she wears. The last four are None where nobody knows them.

    size: height, width. labels: in the words of `paper_doll.LABEL_SPACES`.
    """

    id: Name
    image: str
    caption: str
    split: Literal["train", "held_out"] = "train"
    garments: Annotated[tuple[WornGarment, ...], Field(min_length=1, max_length=8)]
    person_mask: str | None = None
    size: tuple[int, int] | None = None
    hats: float | None = None
    labels: dict[str, Any] | None = None

    @field_validator("image", "person_mask")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        return None if path is None else safe_relative_path(path)

    @field_validator("caption")
    @classmethod
    def _plain(cls, caption: str) -> str:
        return plain_caption(caption)


class Manifest:
    """A read manifest. folder: what its paths are relative to. digest: the sha256 of the file's bytes.

    root: where a path is looked for that is not in the folder.
    """

    def __init__(self, folder: Path, items: list[Item], digest: str, root: Path | None = None) -> None:
        self.folder, self.items, self.digest, self.root = folder, items, digest, root

    def of_split(self, split: str) -> list[Item]:
        return [item for item in self.items if item.split == split]

    def path(self, relative: str) -> Path:
        """Where a file lies. Raises ValueError when a link leads it out of the manifest's folder, or out of the root."""
        folder = self.folder
        if self.root is not None and not os.path.lexists(folder / relative):
            folder = self.root
        path = folder / relative
        # Not Path.resolve, which raises RuntimeError for links in a circle.
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            problem = f"leads out of the data folder {str(folder)!r}"
            why = "It is, or lies behind, a link to somewhere else."
            raise refusal(repr(relative), problem, why, "copy the file into the folder.")
        return path


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """Read and check a manifest. root: where pictures are looked for that are not beside it.

    Raises ValueError naming line and field, or a root that is no folder.
    """
    if root is not None and not root.is_dir():
        found = looked_at(root) if not root.exists() else "It is a file."
        raise refusal(f"The data's root {str(root)!r}", "is not a folder", found, "name the folder of the pictures.")
    if not path.is_file():
        found = f"{looked_at(path)} " if not path.exists() else ""
        why = f"{found}Training data is described by a manifest.jsonl."
        remedy = "name one, or make one with `anydressing data`."
        if path.is_dir():
            remedy = f"name {str(path / MANIFEST)!r}." if (path / MANIFEST).is_file() else OF_A_FOLDER
        raise refusal(f"manifest: {str(path)!r}", "is not a file", why, remedy)
    data = path.read_bytes()
    items = list(_items(as_text(data, f"manifest: {path.name!r}"), path.name))
    if not items:
        raise _problem(path.name, 1, "it holds no person")
    return Manifest(path.parent, items, hashlib.sha256(data).hexdigest(), root)


def safe_relative_path(path: str) -> str:
    """Return a relative path with forward slashes that stays where it is; raise ValueError for any other."""
    parts = PurePosixPath(path).parts
    foreign = "\\" in path or ":" in path or "\0" in path or not is_text(path)
    if not parts or foreign or path.startswith("/") or ".." in parts:
        raise ValueError(f"{path!r} must be a relative path with forward slashes that stays inside the folder")
    return path


def file_stem(name: str) -> str:
    """What files of a person are called, without suffix: the id where every system can hold it, else one as telling.

    Others than letters, digits, dot, dash and underscore become underscores, and a digest keeps two such ids apart.
    """
    if re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name):
        return name
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{content_key('id', name)[:8]}"


def plain_caption(caption: str) -> str:
    """Normalise a caption: one line, composed characters, no control or invisible formatting ones."""
    spaced = "".join(" " if character.isspace() else character for character in unicodedata.normalize("NFC", caption))
    kept = "".join(c for c in spaced if not unicodedata.category(c).startswith("C"))
    text = " ".join(kept.split())
    if not text or len(text) > LONGEST_CAPTION:
        raise ValueError(f"a caption has 1 to {LONGEST_CAPTION} visible characters, got {len(text)}")
    return text


def _items(text: str, name: str) -> Iterator[Item]:
    seen: set[str] = set()
    told: set[str] = set()
    # Not str.splitlines, which also breaks lines at characters that a caption may hold, such as U+2028.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if not line.strip():
            continue
        item = _item(line, name, number)
        if item.id in seen:
            raise _problem(name, number, f"id: {item.id!r} stands there twice")
        seen.add(item.id)
        _tell_unknown_keys(line, name, told)
        yield item


def _item(line: str, name: str, number: int) -> Item:
    size = len(line.encode())
    if size > LONGEST_LINE:
        raise _problem(name, number, f"it is {size} bytes long, at most {LONGEST_LINE} are read")
    try:
        return Item.model_validate(json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        raise _problem(name, number, "it is not one JSON object") from error
    except ValidationError as error:
        raise _problem(name, number, _in_words(error)) from error


_WANTED = {
    "it": 'one JSON object, {"id": ..., "image": ..., "caption": ..., "garments": [...]}',
    "split": "train or held_out",
    "garments": "a list of 1 to 8 garments",
    "slot": "small letters, digits and _, such as upper",
    "kind": "inshop or crop",
    "size": "height and width, two whole numbers",
    "hats": "a number",
    "labels": "a JSON object",
}
"""What a field holds, in words; all others are text."""


def _in_words(error: ValidationError) -> str:
    """The first thing that is wrong with a line: which field, what it should be, what came."""
    found = error.errors()[0]
    field = ".".join(map(str, found["loc"])) or "it"
    if found["type"] == "missing":
        return f"{field}: it is missing"
    if found["type"] == "value_error":
        return f"{field}: {found['msg'].removeprefix('Value error, ')}, got {quote(found['input'])}"
    names = [str(part) for part in found["loc"] if not isinstance(part, int)] or ["it"]
    wanted = "a garment, a JSON object" if found["loc"][-1:] and isinstance(found["loc"][-1], int) else None
    return f"{field}: it should be {wanted or _WANTED.get(names[-1], 'text')}, got {quote(found['input'])}"


def _tell_unknown_keys(line: str, name: str, told: set[str]) -> None:
    entry: dict[str, Any] = json.loads(line)
    unknown = set(entry) - set(Item.model_fields)
    for garment in entry["garments"]:
        unknown |= {f"garments.{key}" for key in set(garment) - set(WornGarment.model_fields)}
    for key in sorted(unknown - told):
        logger.warning("%s: the key %r is not read.", name, key)
    told |= unknown


def _problem(name: str, number: int, why: str) -> ValueError:
    remedy = "correct that line; docs/training.md shows the format in its part 2."
    return refusal(f"manifest: line {number} of {name!r}", "cannot be used", f"{why}.", remedy)
