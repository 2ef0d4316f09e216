# SPDX-License-Identifier: GPL-3.0-or-later
"""How much garments share the same places."""

import pytest
import torch
from comfyui_anydressing.anydressing_core.heat_maps import confusion


def test_garments_in_places_of_their_own_are_not_confused():
    assert confusion(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.7, 0.0]])) == 0


def test_garments_everywhere_alike_are_wholly_confused():
    assert confusion(torch.full((2, 4, 3), 0.5)) == pytest.approx(0.5)
    assert confusion(torch.full((4, 5), 0.1)) == pytest.approx(0.75)


def test_places_count_by_how_much_they_look_at_garments():
    # 0.8 of it is clear, 0.2 is shared by halves.
    assert confusion(torch.tensor([[0.8, 0.1], [0.0, 0.1]])) == pytest.approx(0.1)


def test_one_garment_and_none_are_never_confused():
    assert confusion(torch.rand(1, 6)) == pytest.approx(0, abs=1e-6)
    assert confusion(torch.zeros(2, 6)) == 0
