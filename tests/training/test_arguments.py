# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the command line: read as they are meant, or refused with how they are written."""

from __future__ import annotations

import pytest
from comfyui_anydressing.training.arguments import size_of


@pytest.mark.parametrize(("text", "size"), [("512x384", (512, 384)), ("8x8", (8, 8)), ("4096x3072", (4096, 3072))])
def test_a_size_is_height_and_width(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["0x0", "8x0", "512", "512x", "x384", "-8x8", "500x384", "8000000x8", "1e3x8", ""])
def test_what_is_no_size_of_a_picture_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a size\.\n.*\nWhat to do: write, for example, 512x384\."):
        size_of(text)
