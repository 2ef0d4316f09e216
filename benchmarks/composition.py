# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of docs/composition.md, from the tests: what each says, by `pytest.mark.holds`, that lives with AnyDressing.

`@pytest.mark.holds("LoRA hooks on a prompt", "composes")` is a row; other tests of the same row name its first part alone.
`holds_by_reference` is the same for the second table; a file's own `pytestmark` stands for all its tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from comfyui_anydressing.anydressing_core.refusals import refusal
from comfyui_anydressing.dev.marked import around

TABLES = {"holds": "beside AnyDressing", "holds_by_reference": "beside reference mode"}
"""Mark -> the head of its table."""

FIRST = "test_composition.py"
"""The file whose rows come first, and whose tests need not say where they stand."""


@dataclass
class Row:
    """What holds beside something, and the tests that hold it."""

    what: str = ""
    tests: list[str] = field(default_factory=list[str])


def composition(root: Path) -> str:
    """docs/composition.md with its tables as the tests have them. Raises ValueError for a row that nobody explains."""
    page = (root / "docs" / "composition.md").read_text(encoding="utf-8")
    for mark, rows in rows_of(root).items():
        begin, end = (f"<!-- {mark}: {word} -->" for word in ("from the tests, by `python -m benchmarks.pages`", "end"))
        lines = [f"| {TABLES[mark]} | what holds | test |", "|---|---|---|"]
        for beside, row in rows.items():
            if not row.what:
                remedy = "give one of them a second part."
                raise refusal(f"{row.tests[0]}:", f"nobody says what holds beside {beside!r}", "", remedy)
            lines.append(f"| {beside} | {row.what} | {', '.join(f'`{test}`' for test in row.tests)} |")
        before, after = around(page, begin, end, "docs/composition.md", "its rows")
        page = before + "\n".join([begin, "", *lines, "", end]) + after
    return page


def rows_of(root: Path) -> dict[str, dict[str, Row]]:
    """Every row of both tables, in the order of the tests."""
    tables: dict[str, dict[str, Row]] = {mark: {} for mark in TABLES}
    paths = sorted(root.glob("tests/comfyui/test_*.py"), key=lambda path: (path.name != FIRST, path.name))
    for path in [*paths, *sorted(root.glob("tests/browser/test_*.py"))]:
        for test, mark, beside, what in said_in(path):
            row = tables[mark].setdefault(beside, Row())
            row.what = row.what or what
            row.tests.append(test)
    return tables


def said_in(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """The marks of a file: the test as the page names it, the mark, and its two parts."""
    where = "tests/browser: " if path.parent.name == "browser" else "" if path.name == FIRST else f"{path.name}: "
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield from ((where + node.name, *mark) for mark in _marks(node.decorator_list))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            yield from ((path.name, *mark) for mark in _marks(getattr(node.value, "elts", [])))


def _marks(nodes: list[ast.expr]) -> Iterator[tuple[str, str, str]]:
    """Which of our marks are among decorators, with their two parts."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TABLES:
            beside, what = (*map(ast.literal_eval, node.args), "")[:2]
            yield node.func.attr, beside, what
