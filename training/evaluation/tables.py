# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of benches as tables: means with their intervals, the paper's printed ones beside them, and files for machines.

OUT/figures.json   every mean with its interval, and who measured
OUT/items.csv      every picture's figures
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from .dressed import Method, Row
from .items import BenchItem, BenchName
from .metrics import Mean, interval

SCORES = (
    "CLIP-T",
    "CLIP-I",
    "CLIP-I*",
    "CLIP-AS",
    "garments found",
    "own garment nearest",
    "swapped",
    "colour difference",
    "DISTS",
    "leakage",
)
"""What is measured, in the order of the tables."""

BETTER_LESS = frozenset({"swapped", "colour difference", "DISTS", "leakage"})

Printed = tuple[float, float, float]

TABLE_1: Mapping[str, tuple[Printed, Printed, Printed]] = MappingProxyType(
    {
        "IP-Adapter": ((0.268, 0.644, 5.674), (0.272, 0.632, 5.678), (0.277, 0.523, 5.795)),
        "StableGarment": ((0.285, 0.583, 5.781), (0.281, 0.587, 5.648), (0.284, 0.556, 5.735)),
        "MagicClothing": ((0.288, 0.640, 5.703), (0.298, 0.619, 5.784), (0.266, 0.583, 5.540)),
        "IMAGDressing": ((0.202, 0.734, 5.077), (0.230, 0.684, 5.133), (0.242, 0.614, 5.291)),
        "AnyDressing": ((0.289, 0.741, 5.881), (0.296, 0.710, 5.931), (0.296, 0.734, 5.874)),
    }
)
"""As printed: VITON-HD and the authors' own garments (CLIP-T, CLIP-I, CLIP-AS), Dressing-Pair (CLIP-T, CLIP-I*, CLIP-AS)."""

TABLE_3: Mapping[Row, Printed] = MappingProxyType(
    {
        "base": (0.260, 0.625, 5.572),
        "gfe": (0.265, 0.718, 5.627),
        "igl": (0.289, 0.722, 5.790),
        "gtl": (0.296, 0.734, 5.874),
    }
)
"""As printed, on Dressing-Pair: CLIP-T, CLIP-I*, CLIP-AS."""

ROW_NAMES: Mapping[Row, str] = MappingProxyType(
    {"base": "Base", "gfe": "+GFE", "igl": "+GFE+IGL", "gtl": "+GFE+IGL+GTL"}
)

Figures = Mapping[str, Mapping[str, float]]
"""Item -> what -> value."""


@dataclass(frozen=True)
class Measured:
    """A method on a bench. means: what -> its mean over outfits. pictures: how many were measured, of how many `asked`."""

    method: Method
    figures: Figures
    means: Mapping[str, Mean]
    pictures: int
    asked: int


@dataclass(frozen=True)
class BenchResults:
    """All methods on a bench. outfits: how many different ones. judges: who measured. data: what the items are made of."""

    bench: BenchName
    items: Sequence[BenchItem]
    methods: Sequence[Measured]
    judges: Mapping[str, str | None]
    data: str = "not told"

    @property
    def outfits(self) -> int:
        return len({item.worn_as for item in self.items})

    def by_item(self, score: str) -> tuple[str, list[BenchItem]]:
        """Items from best to worst by a score of the last of our dressing methods that has it, and that method's name.

        Those of which nothing could be said, since nothing was found of what was asked for, are the worst.
        """
        for measured in reversed(self.methods):
            values = {name: one[score] for name, one in measured.figures.items() if score in one}
            if values and measured.method.is_ours and measured.method.kind != "plain":
                sign = 1 if score in BETTER_LESS else -1
                asked = [item for item in self.items if item.id in measured.figures]
                return measured.method.name, sorted(
                    asked, key=lambda one: sign * values[one.id] if one.id in values else math.inf
                )
        return "", []


def measured(method: Method, figures: Figures, items: Sequence[BenchItem]) -> Measured:
    """The means of a method: over outfits, of the means over each one's prompts; outfits are what intervals resample."""
    values: dict[str, dict[str, list[float]]] = {what: defaultdict(list) for what in SCORES}
    for item in items:
        for what, value in figures.get(item.id, {}).items():
            values[what][item.worn_as].append(value)
    means = {what: interval([sum(some) / len(some) for some in of.values()]) for what, of in values.items() if of}
    return Measured(method, figures, means, len(figures), len(items))


def to_json(results: Sequence[BenchResults]) -> str:
    """All means, and what they are of, for a machine."""
    benches = {
        one.bench: {
            "items": len(one.items),
            "outfits": one.outfits,
            "data": one.data,
            "judges": one.judges,
            "methods": {
                row.method.name: {
                    "pictures": row.pictures,
                    "row of Table 3": row.method.row,
                    "made from": row.method.made_from,
                    "figures": {what: asdict(mean) for what, mean in row.means.items()},
                }
                for row in one.methods
            },
        }
        for one in results
    }
    return json.dumps({"benches": benches}, indent=1) + "\n"


def to_csv(results: Sequence[BenchResults]) -> str:
    """A line for each picture."""
    content = io.StringIO()
    lines = csv.writer(content, lineterminator="\n")
    lines.writerow(["bench", "method", "item", "outfit", "prompt", *SCORES])
    for one in results:
        for row in one.methods:
            for item in one.items:
                if item.id in row.figures:
                    figures = row.figures[item.id]
                    values = [f"{figures[what]:.6g}" if what in figures else "" for what in SCORES]
                    cells = (row.method.name, item.id, item.worn_as, item.prompt)
                    lines.writerow([one.bench, *map(_no_formula, cells), *values])
    return content.getvalue()


def to_text(results: Sequence[BenchResults]) -> str:
    """The means for a terminal, a table a bench."""
    parts: list[str] = []
    for one in results:
        shown = [what for what in SCORES if any(what in row.means for row in one.methods)]
        lines = [[f"{one.bench}: {one.outfits} outfits", *shown]]
        for row in one.methods:
            name = row.method.name + ("" if row.pictures == row.asked else f" ({row.pictures} of {row.asked})")
            lines.append([name, *(told(row.means.get(what), one.outfits) for what in shown)])
        widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
        parts.append(
            "\n".join(
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in lines
            )
        )
    return "\n\n".join(parts)


def told(mean: Mean | None, outfits: int) -> str:
    """A mean with its interval, and of how many outfits it is where it is not of all."""
    if mean is None:
        return ""
    return str(mean) if mean.count == outfits else f"{mean} of {mean.count}"


def _no_formula(text: str) -> str:
    """A cell that a spreadsheet does not compute, whoever wrote it."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text
