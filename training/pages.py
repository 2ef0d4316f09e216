# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages to be opened in a browser: templates of jinja2, everything that is put in escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def page(name: str, **told: Any) -> str:
    """The page that a template makes. Text of strangers is told as text, whatever it holds."""
    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return pages.get_template(name).render(told)
