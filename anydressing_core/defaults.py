# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper's figures that more than one place takes where nobody says otherwise (Sec. 5.1, 7.1)."""

from __future__ import annotations

STEPS = 30
"""Of DDIM."""

GUIDANCE = 6.0
"""omega of Eq. 16."""

STRENGTH = 0.7
"""lambda of Eq. 6 while sampling; in training it is 1 (D8)."""

RESOLUTION = (768, 576)
"""Height and width in pixels, of people and garments alike (D10)."""

LAMBDA1, LAMBDA2 = 0.01, 0.001
"""The weights of L_loc and L_texture (Eq. 15)."""

ETA = 350
"""The last timestep at which L_texture acts (Eq. 11)."""
