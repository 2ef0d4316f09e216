# SPDX-License-Identifier: GPL-3.0-or-later
"""Regions by pose: boxes of OpenPose's points, on bodies that were drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_anydressing.training.data.pictures import BadPictureError
from comfyui_anydressing.training.evaluation.regions import regions_by_pose

SIZE = (200, 100)
BODY = {  # of BODY_25, x and y
    0: (50, 20), 1: (50, 40), 2: (38, 42), 5: (62, 42), 3: (30, 65), 6: (70, 65), 4: (28, 88), 7: (72, 88), 8: (50, 95),
    9: (43, 96), 12: (57, 96), 10: (42, 135), 13: (58, 135), 11: (41, 180), 14: (59, 180), 15: (47, 17), 16: (53, 17), 17: (43, 20), 18: (57, 20),
}  # fmt: skip
COCO = {8: 9, 9: 10, 10: 11, 11: 12, 12: 13, 13: 14, 14: 15, 15: 16, 16: 17, 17: 18}
"""Where COCO's numbers differ: its number -> BODY_25's."""


def pose_file(path, *people, count=25):
    content = []
    for person in people:
        points = np.zeros((count, 3))
        for place in range(count):
            known = place if count == 25 or place < 8 else COCO.get(place)
            if known in person:
                points[place] = (*person[known], 0.9)
        content.append({"pose_keypoints_2d": points.flatten().tolist()})
    path.write_text(json.dumps({"version": 1.3, "people": content}))
    return path


def holds(mask, point):
    return bool(mask[point[1], point[0]])


@pytest.mark.parametrize("count", [25, 18])
def test_each_garment_has_the_part_of_the_body_that_it_is_worn_on(tmp_path, count):
    found = regions_by_pose(
        pose_file(tmp_path / "p.json", BODY, count=count), ["upper", "lower", "hat", "dress", "shoes"], SIZE
    )
    assert set(found) == {"upper", "lower", "hat", "dress"}  # for shoes nothing is known
    assert all(holds(found["upper"], BODY[point]) for point in (1, 2, 4, 5, 7, 9))
    assert not holds(found["upper"], BODY[0])
    assert not holds(found["upper"], BODY[11])
    assert all(holds(found["lower"], BODY[point]) for point in (9, 10, 11, 12, 13, 14))
    assert not holds(found["lower"], BODY[1])
    assert holds(found["hat"], (50, 10))  # above the eyes
    assert not holds(found["hat"], BODY[1])
    assert all(holds(found["dress"], BODY[point]) for point in (1, 9, 10))


def test_the_largest_person_counts(tmp_path):
    small = {place: (x // 4, y // 4) for place, (x, y) in BODY.items()}
    both = regions_by_pose(pose_file(tmp_path / "p.json", small, BODY), ["upper"], SIZE)
    alone = regions_by_pose(pose_file(tmp_path / "q.json", BODY), ["upper"], SIZE)
    assert (both["upper"] == alone["upper"]).all()


def test_what_is_not_seen_has_no_region(tmp_path):
    bust = {place: point for place, point in BODY.items() if point[1] < 90}
    assert set(regions_by_pose(pose_file(tmp_path / "p.json", bust), ["upper", "lower"], SIZE)) == {"upper"}
    assert regions_by_pose(pose_file(tmp_path / "q.json"), ["upper"], SIZE) == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "no pose as OpenPose writes it"),
        ("[" * 100_000, "no pose as OpenPose writes it"),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', "no pose as OpenPose writes it"),
        (json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 51}]}), "another number of points"),
        (json.dumps({"people": [{"pose_keypoints_2d": [float("nan")] * 75}]}), "another number of points"),
    ],
)
def test_a_file_that_is_no_pose_is_named(tmp_path, content, told):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(BadPictureError, match=rf"p\.json: it .*{told}"):
        regions_by_pose(tmp_path / "p.json", ["upper"], SIZE)
