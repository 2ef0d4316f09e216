# SPDX-License-Identifier: GPL-3.0-or-later
"""Captions: what a person would say of the picture. Who, what kinds of garment, which pose, where.

Colours, textures and prints of the garments are left out: the garment pictures carry those.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .dolls import Doll

POSE_WORDS = {
    "standing": "standing",
    "walking": "walking",
    "waving": "waving",
    "hand on hip": "standing with one hand on hip",
    "hands on hips": "standing with hands on hips",
    "arms crossed": "standing with arms crossed",
    "arms out": "standing with arms out",
    "cheering": "cheering with arms raised",
}
SCENE_WORDS = {
    "studio": "in a studio",
    "park": "in a park",
    "beach": "on the beach",
    "city": "in the city",
    "night": "in the city at night",
    "living room": "in a living room",
    "snow": "in the snow",
    "desert": "in the desert",
    "library": "in a library",
}
PLURAL = ("trousers", "jeans", "shorts", "joggers")


def caption_of(doll: Doll, kinds: Iterable[str], rng: np.random.Generator) -> str:
    """Say who wears which kinds of garment, in which pose and where; the order of the words varies with `rng`."""
    hair = "a bald head" if doll.hair == "bald" else f"{doll.hair} {doll.hair_colour} hair"
    if doll.hair in ("bun", "ponytail"):
        hair = f"{doll.hair_colour} hair in a {doll.hair}"
    who, wears = f"a {doll.person} with {hair}", _listed([_with_article(kind) for kind in kinds])
    pose, scene = POSE_WORDS[doll.pose], SCENE_WORDS[doll.scene]
    forms = (
        f"{who} wearing {wears}, {pose} {scene}",
        f"{who} {pose} {scene}, wearing {wears}",
        f"{scene}, {who} in {wears}, {pose}",
        f"a picture of {who}, {pose}, wearing {wears}, {scene}",
    )
    return forms[rng.integers(len(forms))]


def _with_article(kind: str) -> str:
    return kind if kind in PLURAL else f"a {kind}"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
