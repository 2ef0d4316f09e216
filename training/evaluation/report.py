# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures with their intervals and what they were measured on, for machines and for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from .metrics import Mean


@dataclass(frozen=True)
class Report:
    """figures: what is measured -> its mean. about: what the pictures were made from."""

    figures: dict[str, Mean]
    about: dict[str, Any]

    def to_json(self) -> str:
        """Figures and origin, for a machine."""
        figures = {name: asdict(mean) for name, mean in self.figures.items()}
        return json.dumps({"about": self.about, "figures": figures}, indent=1) + "\n"

    def to_markdown(self) -> str:
        """A table, in the order in which the figures were taken."""
        lines = ["| | mean [95 %] | outfits |", "|---|---|---|"]
        return (
            "\n".join([*lines, *(f"| {name} | {mean} | {mean.count} |" for name, mean in self.figures.items())]) + "\n"
        )
