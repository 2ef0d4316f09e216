# SPDX-License-Identifier: GPL-3.0-or-later
"""A study's page: figures of many arms on the same outfits, side by side and change by change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.refusals import refusal
from comfyui_anydressing.dev.marked import around
from comfyui_anydressing.training.evaluation.metrics import Mean, interval
from PIL import Image

SHOWN = (
    "colour error, masked",
    "DISTS, masked",
    "palette error, free",
    "own garment nearest of 33, free",
    "swapped, free",
    "attention IoU, free",
    "leakage, free",
    "scene recognised, free",
    "pose recognised, free",
)
"""The columns of the page; everything else stands in its JSON."""


@dataclass(frozen=True)
class ArmRow:
    """What is measured of an arm, or the difference of two. runs: seed -> what -> outfit -> value."""

    name: str
    title: str
    runs: dict[int, dict[str, dict[str, float]]]

    def mean(self, what: str) -> Mean | None:
        """Over outfits of the mean over seeds, with its interval."""
        of_outfits: dict[str, list[float]] = {}
        for figures in self.runs.values():
            for outfit, value in figures.get(what, {}).items():
                of_outfits.setdefault(outfit, []).append(value)
        return interval([float(np.mean(values)) for values in of_outfits.values()]) if of_outfits else None

    def of_seeds(self, what: str) -> list[float]:
        """Each seed's mean over outfits."""
        return [float(np.mean([*values.values()])) for run in self.runs.values() if (values := run.get(what))]

    def to(self, after: ArmRow) -> ArmRow:
        """How much more `after` has, for each outfit and seed of both."""
        runs = {
            seed: {
                what: {outfit: there[what][outfit] - value for outfit, value in of.items() if outfit in there[what]}
                for what, of in here.items()
                if what in there
            }
            for seed, here in self.runs.items()
            if (there := after.runs.get(seed))
        }
        return ArmRow(f"{self.name} -> {after.name}", f"{self.title} -> {after.title}", runs)

    def content(self) -> dict[str, object]:
        """For the page's JSON: a figure is its mean, the interval's ends and the number of outfits."""
        names = dict.fromkeys(what for run in self.runs.values() for what in run)
        found = {what: one for what in names if (one := self.mean(what)) is not None}
        return {
            "title": self.title,
            "seeds": [*self.runs],
            "figures": {what: [one.value, one.low, one.high, one.count] for what, one in found.items()},
            "figures_of_seeds": {what: self.of_seeds(what) for what in found},
        }

    def kept(self) -> dict[str, dict[str, Sequence[object]]]:
        """All figures, seed by seed and outfit by outfit, small enough to be committed."""
        runs: dict[str, dict[str, Sequence[object]]] = {}
        for seed, figures in self.runs.items():
            outfits = list(dict.fromkeys(outfit for of in figures.values() for outfit in of))
            values = {what: [_short(of.get(outfit)) for outfit in outfits] for what, of in figures.items()}
            runs[str(seed)] = {"outfits": outfits, **values}
        return runs

    @classmethod
    def of_kept(cls, name: str, title: str, kept: Mapping[str, Mapping[str, Sequence[Any]]]) -> ArmRow:
        """The row again."""
        runs = {
            int(seed): {
                what: {outfit: value for outfit, value in zip(run["outfits"], values, strict=True) if value is not None}
                for what, values in run.items()
                if what != "outfits"
            }
            for seed, run in kept.items()
        }
        return cls(name, title, runs)


def _by_lines(content: Mapping[str, object]) -> str:
    """As JSON, a list of numbers on one line."""
    return re.sub(r"\[[^][{}]*]", lambda numbers: " ".join(numbers[0].split()), json.dumps(content, indent=1))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def chosen_arms(only: Sequence[str] | None, arms: Iterable[str]) -> list[str]:
    """The arms that --only names, all without it. Raises ValueError for a name that is none."""
    known = list(arms)
    for name in only or ():
        if name not in known:
            raise refusal(
                "--only:", f"there is no arm {name!r}", f"They are: {', '.join(known)}.", "name one of these."
            )
    return list(only or known)


def read_row(folder: Path, name: str, title: str) -> ArmRow:
    """All runs of an arm, NAME-SEED.json in a folder."""
    runs: dict[int, dict[str, dict[str, float]]] = {}
    for path in sorted(folder.glob(f"{name}-[0-9]*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        of = runs.setdefault(run["seed"], {})
        for outfit, figures in run["figures"].items():
            for what, value in figures.items():
                of.setdefault(what, {})[outfit] = value
    return ArmRow(name, title, runs)


@dataclass(frozen=True)
class StudyPage:
    """Where a study's figures are shown: `NAME.json`, `NAME.jpg`, and tables between two lines of `NAME.md`.

    `figures/NAME.json` keeps what is measured of every outfit: arms that are measured elsewhere, later, meet those of before.

    titles: of the arms, in their order. changes: from which arm to which the page shows what changes, outfit by outfit. more:
    columns of the arms beside SHOWN.
    """

    name: str
    titles: Mapping[str, str]
    changes: Sequence[tuple[str, str]]
    more: Sequence[str] = ()

    @property
    def begin(self) -> str:
        """The line before the tables."""
        return f"<!-- figures: written by `python -m benchmarks.{self.name} page`; do not edit -->"

    @property
    def end(self) -> str:
        """The line behind them."""
        return "<!-- end of figures -->"

    def write(self, figures: Path, page: Path, sheet: Callable[[Sequence[str]], Image.Image | None]) -> str:
        """Write all three into the folder `page` from the figures of a folder; returns the tables.

        sheet: draws a picture of the arms that have figures; None leaves the picture that is there.
        """
        path = page / f"{self.name}.md"
        head, tail = self._around(path)
        kept = page / "figures" / f"{self.name}.json"
        before: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        rows = {name: self._row(figures, name, before.get(name, {})) for name in self.titles}
        rows = {name: row for name, row in rows.items() if row.runs}
        kept.parent.mkdir(exist_ok=True)
        lines = (f"{json.dumps(name)}: {json.dumps(row.kept(), separators=(',', ':'))}" for name, row in rows.items())
        write_atomically(kept, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
        changes = [rows[before].to(rows[after]) for before, after in self.changes if {before, after} <= rows.keys()]
        content = {
            "arms": {name: row.content() for name, row in rows.items()},
            "changes": {change.name: change.content() for change in changes},
        }
        write_atomically(page / f"{self.name}.json", f"{_by_lines(content)}\n".encode())
        if (picture := sheet(list(rows))) is not None:
            picture.save(page / f"{self.name}.jpg", quality=88)
        named = [replace(row, title=f"`{name}`: {row.title}") for name, row in rows.items()]
        tables = f"{_table('arm', named, _figure, self.more)}\n{_table('change', changes, _difference)}"
        write_atomically(path, f"{head}{self.begin}\n\n{tables}\n{self.end}{tail}".encode())
        return tables

    def _row(self, figures: Path, name: str, before: Mapping[str, Any]) -> ArmRow:
        """An arm as it is measured in the folder, or was before."""
        title = self.titles[name]
        row = read_row(figures, name, title)
        return row if row.runs else ArmRow.of_kept(name, title, before)

    def _around(self, path: Path) -> tuple[str, str]:
        """What stands before and behind the figures of the page."""
        text = path.read_text(encoding="utf-8") if path.is_file() else f"{self.begin}{self.end}\n"
        return around(text, self.begin, self.end, str(path), "the figures")


def _figure(row: ArmRow, what: str) -> str:
    return str(row.mean(what) or "")


def _difference(change: ArmRow, what: str) -> str:
    """Bold is what is surely not nothing: the interval does not hold 0, and all seeds lie on the same side of it."""
    mean = change.mean(what)
    if mean is None:
        return ""
    words = f"{mean.value:+.3g} [{mean.low:+.2g}, {mean.high:+.2g}]"
    seeds = change.of_seeds(what)
    sure = (mean.low > 0 and min(seeds) > 0) or (mean.high < 0 and max(seeds) < 0)
    return f"**{words}**" if sure else words


def _table(head: str, rows: Iterable[ArmRow], cell: Callable[[ArmRow, str], str], more: Sequence[str] = ()) -> str:
    shown = [*SHOWN, *more]
    heads = [head, "seeds", *shown]
    lines = [[row.title, str(len(row.runs)), *(cell(row, what) for what in shown)] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *lines))
