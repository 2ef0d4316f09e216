# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages that are written for people: templates of jinja2, everything that is put in escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent


def page(name: str, **told: Any) -> str:
    """The page that a template makes. Text of strangers is told as text, whatever it holds."""
    pages = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    return pages.get_template(name).render(told)
