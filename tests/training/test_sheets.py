# SPDX-License-Identifier: GPL-3.0-or-later
"""The drawing kit of sheets: what a person reads is there."""

from __future__ import annotations

import numpy as np
import pytest
from comfyui_anydressing.training.sheets import HEADER, MARGIN, titled
from PIL import Image

NOTE = "strength 0.7, guidance 6, 30 steps, seed 0"


@pytest.mark.parametrize(("width", "noted"), [(370, False), (900, True)])
def test_a_title_is_whole_and_its_note_stands_where_there_is_room(width, noted):
    body = Image.new("RGB", (width, 120), (200, 200, 220))
    alone, both = (np.asarray(titled(body, "Step 1,200", note)) for note in ("", NOTE))
    half = width // 2
    np.testing.assert_array_equal(both[: MARGIN + HEADER, :half], alone[: MARGIN + HEADER, :half])
    assert (both != alone).any() == noted
    assert (alone[: MARGIN + HEADER] < 100).any()  # the title's ink
