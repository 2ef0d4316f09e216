# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each garment of an item shows in a picture that somebody made: by a parser, or by the pose as in the paper.

The paper finds "the matching partitions of the reference garments" by OpenPose (Sec. 5.1). Its files are read as OpenPose
writes them with `--write_json`: `ID_keypoints.json` beside the picture `ID.png`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...anydressing_core.latents import Size
from ..data.parsing import Mask
from ..data.pictures import BadPictureError
from ..text_files import read_text

RegionsBy = Literal["parser", "pose"]


BODY_25, COCO_18 = 25, 18
"""How many points OpenPose's models find, which tells the models apart; their first fifteen differ by the hip's middle."""

NECK, SHOULDERS, ELBOWS, WRISTS = 1, (2, 5), (3, 6), (4, 7)
HIPS = {BODY_25: (9, 12), COCO_18: (8, 11)}
KNEES = {BODY_25: (10, 13), COCO_18: (9, 12)}
ANKLES = {BODY_25: (11, 14), COCO_18: (10, 13)}
HEAD = {BODY_25: (0, 15, 16, 17, 18), COCO_18: (0, 14, 15, 16, 17)}

LEAST_SURE = 0.1
SIDE_ROOM = 0.25
"""Around points, as a share of the shoulders' distance: a body is wider than its joints."""


def regions_by_pose(path: Path, slots: Sequence[str], size: Size) -> dict[str, Mask]:
    """By slot, the box of the body's part that such a garment is worn on; slots whose points were not seen are left out.

    path: of OpenPose's file for the picture, of whose people the largest counts. size: of the picture, H and W.
    """
    points = _points(path)
    if points is None:
        return {}
    shoulders = np.linalg.norm(points[2, :2] - points[5, :2]) if points[[2, 5], 2].min() > LEAST_SURE else 0.0
    room = SIDE_ROOM * (shoulders or np.ptp(points[points[:, 2] > LEAST_SURE, 1]) / 4)
    found: dict[str, Mask] = {}
    for slot in slots:
        parts = _PARTS.get(slot)
        box = None if parts is None else _box(points, parts(len(points)), room, size, above=slot == "hat")
        if box is not None:
            found[slot] = box
    return found


def _upper(model: int) -> tuple[int, ...]:
    return (NECK, *SHOULDERS, *ELBOWS, *WRISTS, *HIPS[model])


def _lower(model: int) -> tuple[int, ...]:
    return (*HIPS[model], *KNEES[model], *ANKLES[model])


def _dress(model: int) -> tuple[int, ...]:
    return (NECK, *SHOULDERS, *ELBOWS, *HIPS[model], *KNEES[model])


def _head(model: int) -> tuple[int, ...]:
    return HEAD[model]


_PARTS = {"upper": _upper, "lower": _lower, "dress": _dress, "hat": _head}


def _points(path: Path) -> NDArray[np.float64] | None:
    """x, y and how sure, of the largest person in OpenPose's file: (25 or 18, 3); None for a file without anybody."""
    try:
        people = json.loads(read_text(path))["people"]
        found = [np.array(one["pose_keypoints_2d"], float).reshape(-1, 3) for one in people]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = 'it is no pose as OpenPose writes it, {"people": [{"pose_keypoints_2d": [x, y, sure, ...]}]}'
        raise BadPictureError(path.name, why) from error
    if any(len(one) not in (BODY_25, COCO_18) or not np.isfinite(one).all() for one in found):
        raise BadPictureError(path.name, "it has another number of points than OpenPose's 25, or the 18 of COCO")
    seen = [one for one in found if (one[:, 2] > LEAST_SURE).sum() > 2]
    return max(seen, key=lambda one: float(np.ptp(one[one[:, 2] > LEAST_SURE, 1])), default=None)


def _box(points: NDArray[np.float64], parts: Sequence[int], room: float, size: Size, *, above: bool) -> Mask | None:
    sure = [points[part] for part in parts if points[part, 2] > LEAST_SURE]
    if len(sure) < 2:
        return None
    xs, ys = np.array(sure)[:, 0], np.array(sure)[:, 1]
    height, width = size
    top = ys.min() - (3 if above else 1) * room
    bottom = ys.mean() if above else ys.max() + room
    rows = slice(max(0, round(top)), max(0, min(height, round(bottom))))
    columns = slice(max(0, round(xs.min() - room)), max(0, min(width, round(xs.max() + room))))
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask if mask.any() else None
