# SPDX-License-Identifier: GPL-3.0-or-later
"""VITON-HD, as it is published (shadow2496/VITON-HD): a person and the upper garment of the same file name.

    train | test
        image/00001_00.jpg           the person
        cloth/00001_00.jpg           her upper garment
        image-parse-v3/00001_00.png  CIHP's classes; image-parse in the older spelling
    train_pairs.txt  test_pairs.txt

The second column of test_pairs.txt is another person's garment: her own is the one of her name.
"""

from __future__ import annotations

from pathlib import Path

from .looks import Layout, Look, Piece, Split, list_of_pairs, not_there

PARSED = ("image-parse-v3", "image-parse")
SPLITS: dict[str, Split] = {"train": "train", "test": "held_out"}


def find(root: Path) -> list[Look]:
    """Every person of its lists, or of its folders where there is no list; those of test are held out."""
    looks: list[Look] = []
    for folder, split in SPLITS.items():
        parsed = next((name for name in PARSED if (root / folder / name).is_dir()), None)
        names = _names(root, folder)
        if names and parsed is None:
            wanted = {f"{folder}/{name}": "maps of labels" for name in PARSED}
            raise not_there(root, wanted, "copy the maps, too: they are part of the published archive.")
        looks += [_look(folder, name, f"{folder}/{parsed}", split) for name in names]
    if not looks:
        wanted = {f"{folder}/image": "people" for folder in SPLITS}
        raise not_there(root, wanted, "name the folder that holds train and test.")
    return looks


def _names(root: Path, folder: str) -> list[str]:
    pairs = root / f"{folder}_pairs.txt"
    if pairs.is_file():
        return sorted({person for person, _ in list_of_pairs(pairs, (2,))})
    return sorted(path.name for path in (root / folder / "image").glob("*.jpg"))


def _look(folder: str, name: str, parsed: str, split: Split) -> Look:
    stem = Path(name).stem
    pieces = (Piece("upper", f"{folder}/cloth/{name}"), Piece("lower"), Piece("hat"))
    return Look(f"{folder}-{stem}", f"{folder}/image/{name}", pieces, (f"{parsed}/{stem}.png", "viton-hd"), split=split)


LAYOUT = Layout("VITON-HD", find, "CC BY-NC 4.0, for research; re-uploads that say otherwise are wrong")
