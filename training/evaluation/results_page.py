# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of an evaluation: the paper's tables with ours beside them, and the pictures that the figures are of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...anydressing_core.heat_maps import COLOURS, overlay
from ...anydressing_core.pixels import Pixels
from ..data.check_sheet import evenly
from ..data.pictures import Source, upright
from ..pages import page
from ..picture_files import embedded_jpeg, read_grey
from .dressed import Method
from .items import BENCH_WORDS, BenchItem
from .tables import BETTER_LESS, ROW_NAMES, SCORES, TABLE_1, TABLE_3, BenchResults, Measured, told

REPORT = "report.html"
BEST, SHOWN = 4, 12
"""Items that are shown: so many best, as many worst, and so many evenly from all."""

HEIGHT = 288
"""Of a picture on the page, in pixels."""

EXPLAINED = {
    "CLIP-T": "how well the picture fits the prompt",
    "CLIP-I": "garment against whole picture",
    "CLIP-I*": "garment against its region, where one is found",
    "CLIP-AS": "LAION's mark for the picture, 1 to 10",
    "garments found": "share of garments that have a region",
    "own garment nearest": "share of regions that look more like their own garment than like up to 32 others of the bench",
    "swapped": "share of pairs whose regions look more like each other's garment",
    "colour difference": "between region and garment, sorted colours in CIE Lab",
    "DISTS": "between region and garment, in the texture network's eyes",
    "leakage": "what dressing changes away from garments, against the same noise undressed",
}


def results_page(out: Path, results: Sequence[BenchResults]) -> str:
    """The page, all pictures in it. out: the evaluation's folder, which holds one folder for each bench."""
    return page(
        "results.html",
        title=f"Evaluation: {out.resolve().name}",
        clips=sorted({one.judges["CLIP"] or "" for one in results if one.bench in ("single", "dressing-pair")}),
        table_1=_table_1(results),
        table_3=_table_3(results),
        benches=[_bench(out / one.bench, one) for one in results],
        explained=EXPLAINED,
        less=sorted(BETTER_LESS),
    )


def _table_1(results: Sequence[BenchResults]) -> list[dict[str, Any]]:
    """Rows of nine cells: printed ones, then ours under the bench that they are of."""
    rows: list[dict[str, Any]] = [
        {"name": name, "printed": True, "cells": [(f"{value:.3f}", "") for value in chain(*groups)]}
        for name, groups in TABLE_1.items()
    ]
    outfits = {one.bench: one.outfits for one in results}
    single, pair = ("CLIP-T", "CLIP-I", "CLIP-AS"), ("CLIP-T", "CLIP-I*", "CLIP-AS")
    of = {one.bench: {row.method.name: row for row in one.methods} for one in results}
    for name in dict.fromkeys(name for bench in ("single", "dressing-pair") for name in of.get(bench, {})):
        ones, pairs = (of.get(bench, {}).get(name) for bench in ("single", "dressing-pair"))
        rows.append(
            {
                "name": name,
                "printed": False,
                "cells": [
                    *_cells(ones, single, outfits.get("single", 0)),
                    *[("", "")] * 3,
                    *_cells(pairs, pair, outfits.get("dressing-pair", 0)),
                ],
            }
        )
    return rows if len(rows) > len(TABLE_1) else []


def _table_3(results: Sequence[BenchResults]) -> list[dict[str, Any]]:
    """A printed row and ours for each row that somebody was measured as."""
    measured = {
        row.method.row: row for one in results if one.bench == "dressing-pair" for row in one.methods if row.method.row
    }
    rows: list[dict[str, Any]] = []
    for place, (name, printed) in enumerate(TABLE_3.items()):
        marks = ["✔" if place > part else "✗" for part in range(3)]
        ours = measured.get(name)
        rows.append(
            {
                "name": ROW_NAMES[name],
                "marks": marks,
                "printed": [f"{value:.3f}" for value in printed],
                "method": ours.method.name if ours else "",
                "ours": _cells(ours, ("CLIP-T", "CLIP-I*", "CLIP-AS"), ours.means["CLIP-T"].count if ours else 0),
            }
        )
    return rows if measured else []


def _cells(row: Measured | None, scores: Sequence[str], outfits: int = 0) -> list[tuple[str, str]]:
    """Mean and interval, each as text; both empty where nothing was measured."""
    cells: list[tuple[str, str]] = []
    for score in scores:
        mean, _, interval = told(row.means.get(score) if row else None, outfits).partition(" ")
        cells.append((mean, interval))
    return cells


def _bench(folder: Path, one: BenchResults) -> dict[str, Any]:
    scores = [score for score in SCORES if any(score in row.means for row in one.methods)]
    by = "CLIP-I*" if "CLIP-I*" in scores else "CLIP-I"
    name, ranked = one.by_item(by)
    shown = evenly(one.items, SHOWN)
    groups = [("Evenly from all items", shown)]
    if ranked:
        most = min(BEST, len(ranked) // 2)
        groups = [
            (f"Best of {name} by {by}", ranked[:most]),
            (f"Worst of {name} by {by}", ranked[::-1][:most]),
            *groups,
        ]
    return {
        "name": one.bench,
        "words": BENCH_WORDS[one.bench],
        "asked": len(one.items),
        "outfits": one.outfits,
        "data": one.data,
        "judges": [(name, told) for name, told in one.judges.items() if told],
        "left_out": [name for name, told in one.judges.items() if not told],
        "scores": scores,
        "rows": [
            {
                "name": row.method.name,
                "pictures": "" if row.pictures == row.asked else f"{row.pictures} of {row.asked} pictures",
                "cells": _cells(row, scores, one.outfits),
            }
            for row in one.methods
        ],
        "methods": [
            {
                "name": row.method.name,
                "made_from": sorted((k, v) for k, v in row.method.made_from.items() if v is not None),
            }
            for row in one.methods
        ],
        "groups": [(title, [_item(folder, item, one, by) for item in items]) for title, items in groups],
    }


def _item(folder: Path, item: BenchItem, one: BenchResults, by: str) -> dict[str, Any]:
    pictures: list[dict[str, str]] = []
    for row in one.methods:
        path = row.method.picture(item.id)
        if path is None or item.id not in row.figures:
            continue
        value = row.figures[item.id].get(by)
        picture = _opened(path)
        told = "" if value is None else f"{by} {value:.3f}"
        pictures.append({"title": row.method.name, "note": told, "picture": _embedded(picture)})
        if (veiled := _veiled(row.method, item, picture)) is not None:
            pictures.append({"title": f"{row.method.name}: attention", "note": "", "picture": _embedded(veiled)})
    garments = [
        {
            "slot": garment.slot,
            "colour": "rgb({}, {}, {})".format(*COLOURS[place % len(COLOURS)]),
            "picture": _embedded(_opened(folder / garment.image)),
        }
        for place, garment in enumerate(item.garments)
    ]
    return {"id": item.id, "prompt": item.prompt, "seed": item.seed, "garments": garments, "pictures": pictures}


def _veiled(method: Method, item: BenchItem, picture: Pixels) -> Pixels | None:
    """The picture under a veil for each garment's A_k; None for a method without maps."""
    paths = [method.attention(item.id, place) for place in range(len(item.garments))]
    if not all(path.is_file() for path in paths):
        return None
    return overlay(picture, torch.stack([read_grey(path) for path in paths]))


def _opened(path: Path) -> Pixels:
    whole = upright(Source.find(path.name, path))
    whole.thumbnail((2 * HEIGHT, HEIGHT), Image.Resampling.LANCZOS)
    return np.array(whole)


def _embedded(picture: Pixels) -> str:
    return embedded_jpeg(Image.fromarray(picture), quality=85)
