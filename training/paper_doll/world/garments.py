# SPDX-License-Identifier: GPL-3.0-or-later
"""Garments: which kinds there are, how each may be cut, and from which cloth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cloth import Cloth
from .fabrics import Fabric, Split, draw_fabric
from .textures import TEXTURES

SLOTS = ("upper", "lower", "hat")
ALL = tuple(texture for texture in TEXTURES if texture != "denim")
UNKNIT = tuple(texture for texture in ALL if texture != "knit")
PRINTED = (*UNKNIT, *6 * ("plain",), "striped", "gradient", "colour block")
SIMPLE = ("plain", "plain", "striped", "checked", "polka dot", "knit", "leopard", "starry")


@dataclass(frozen=True)
class Kind:
    """What one kind of garment may be.

    length, sleeve: ranges in units; a sleeve is measured from the shoulder. cuts: necklines of an upper, outlines of
    a lower, ornaments of a hat. ease: units that it stands off the body. textures: a name may appear twice to be
    drawn twice as often.
    """

    slot: str
    cuts: tuple[str, ...]
    textures: tuple[str, ...]
    length: tuple[float, float]
    sleeve: tuple[float, float] = (0.0, 0.0)
    ease: float = 0.0
    printable: bool = False


KINDS: dict[str, Kind] = {
    "t-shirt": Kind(
        "upper",
        ("crew neck", "v-neck", "ringer"),
        PRINTED,
        (0.275, 0.315),
        (0.085, 0.125),
        0.0,
        True,
    ),
    "tank top": Kind("upper", ("scoop neck", "ringer"), PRINTED, (0.265, 0.305), ease=-0.002, printable=True),
    "polo shirt": Kind("upper", ("collar",), ("plain", *UNKNIT), (0.280, 0.310), (0.090, 0.120)),
    "shirt": Kind(
        "upper", ("collar", "short sleeves"), ("plain", "denim", *UNKNIT), (0.285, 0.325), (0.262, 0.272), 0.002
    ),
    "sweater": Kind(
        "upper", ("crew neck", "v-neck"), ("knit", "knit", *PRINTED), (0.275, 0.305), (0.262, 0.275), 0.006, True
    ),
    "turtleneck": Kind("upper", ("roll neck",), ("knit", "knit", "plain", *ALL), (0.275, 0.300), (0.262, 0.272), 0.002),
    "hoodie": Kind("upper", ("pouch",), PRINTED, (0.290, 0.320), (0.265, 0.278), 0.008, True),
    "jacket": Kind("upper", ("zip", "bomber"), ("plain", "denim", *UNKNIT), (0.275, 0.305), (0.262, 0.275), 0.007),
    "trousers": Kind("lower", ("slim", "straight", "wide"), UNKNIT, (0.415, 0.445)),
    "jeans": Kind("lower", ("slim", "straight", "wide"), ("denim",), (0.405, 0.440)),
    "shorts": Kind("lower", ("straight", "wide"), ("denim", *UNKNIT), (0.172, 0.220)),
    "joggers": Kind("lower", ("cuffed", "side stripe"), ("plain", "plain", *UNKNIT), (0.410, 0.430)),
    "skirt": Kind("lower", ("a-line", "pleated", "pencil"), ("denim", *UNKNIT), (0.188, 0.245)),
    "long skirt": Kind("lower", ("a-line", "pleated"), UNKNIT, (0.315, 0.375)),
    "beanie": Kind("hat", ("pompom", "plain"), ("knit", *SIMPLE), (0.085, 0.085)),
    "cap": Kind("hat", ("button",), ("denim", *SIMPLE), (0.070, 0.070)),
    "sun hat": Kind("hat", ("ribbon",), ("plain", "plain", "checked", "striped", "polka dot"), (0.075, 0.075)),
    "bucket hat": Kind("hat", ("stitched",), ("denim", "floral", "camouflage", *SIMPLE), (0.090, 0.090)),
}
CUTS = tuple(dict.fromkeys(cut for kind in KINDS.values() for cut in kind.cuts))


def kinds_of(slot: str) -> tuple[str, ...]:
    """The kinds of garment that a slot takes."""
    return tuple(name for name, kind in KINDS.items() if kind.slot == slot)


@dataclass(frozen=True)
class DollGarment:
    """One garment: what it is, how it was cut, and from which fabric.

    length, sleeve: units. fit: 0 close to 1 loose. folds: phases of its folds, eight angles in radians.
    """

    slot: str
    kind: str
    cut: str
    fabric: Fabric
    length: float
    sleeve: float
    fit: float
    folds: tuple[float, ...]

    @property
    def ease(self) -> float:
        """How far it stands off the body, in units."""
        return KINDS[self.kind].ease + 0.004 * self.fit

    def cloth(self) -> Cloth:
        """Its fabric, ready to be painted."""
        return Cloth(self.fabric, self.length, np.array(self.folds), self.slot)


def draw_garment(rng: np.random.Generator, slot: str, split: Split) -> DollGarment:
    """Draw a garment for a slot whose fabric lies on the wanted side of the split."""
    kinds = kinds_of(slot)
    name = kinds[rng.integers(len(kinds))]
    kind = KINDS[name]
    cut = kind.cuts[rng.integers(len(kind.cuts))]
    sleeve = rng.uniform(0.095, 0.135) if cut == "short sleeves" else rng.uniform(*kind.sleeve)
    length, fit = rng.uniform(*kind.length), rng.uniform(0, 1)
    folds = tuple(float(phase) for phase in rng.uniform(0, 2 * np.pi, 8))
    fabric = draw_fabric(rng, split, kind.textures, kind.printable)
    return DollGarment(slot, name, cut, fabric, float(length), float(sleeve), float(fit), folds)
