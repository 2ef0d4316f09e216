# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that explain themselves: a commented configuration to begin with, and the same as a page of documentation.

Both are made of the models alone, so that what a setting means is written once, beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .config import RunConfig, preset_names, read_preset
from .ranges import TableName, as_toml, example_of, range_of, sections, settings, table_of, unit_of
from .settings import Section

WIDTH = 118  # columns of a commented configuration


def commented_toml(kind: type[RunConfig], preset: str | None = None) -> str:
    """Every setting of a kind of run, explained, with its default or the preset's value: valid TOML to begin with.

    Raises ValueError when there is no preset of that name.
    """
    values = {} if preset is None else read_preset(preset, kind)
    complete = _is_complete(kind, values)
    lines = [f"# {_first_line(kind)}"]
    lines += [f"# With the values of the preset {preset!r}."] if preset is not None else []
    for path, section in sections(kind):
        table: Any = values
        for name in path:
            table = table.get(name, {})
        told = [f"[{'.'.join(path)}]", *_comment(_first_line(section))] if path else []
        for name, field in settings(section):
            told += ["", *_comment(field.description or ""), _facts(field), _assignment(name, field, table)]
        wanted = not path or table or not (_is_optional(kind, path) and complete)
        lines += [
            *([""] if path else []),
            *(line if wanted or line.startswith("#") else f"# {line}".rstrip(" #") for line in told),
        ]
    return "\n".join(lines) + "\n"


def page(kinds: Mapping[str, type[RunConfig]]) -> str:
    """All settings of all kinds of runs, in Markdown. kinds: the command -> the configuration it reads."""
    lines = [_PAGE_HEAD.rstrip()]
    for command, kind in kinds.items():
        names = ", ".join(f"`{name}`" for name in preset_names(kind))
        lines += ["", f"## `anydressing {command}`", "", f"Presets: {names}."]
        for path, section in sections(kind):
            title = f"`[{'.'.join(path)}]`" if path else "Above all tables"
            lines += ["", f"### {title}", "", _docstring(section), "", "| setting | default | unit | range | meaning |"]
            lines += ["|---|---|---|---|---|", *(_row(name, field) for name, field in settings(section))]
        for name, retired in kind.retired.items():
            lines += ["", f"`{name}` is no setting any more. {retired.why}"]
    return "\n".join(lines) + "\n"


_PAGE_HEAD = """# Configuration

<!-- Written by `python -m benchmarks.pages`; do not edit. -->

A run is one TOML file. It may begin with `preset = "24gb"` and then says only what is otherwise; `--set table.setting=value`
changes one for once. `anydressing config` prints all of this as a file to begin with, `anydressing config --preset 24gb` with
that preset's values. An unknown setting is an error that names the nearest known one, and the resolved configuration stands
in the run's folder.
"""


def _is_complete(kind: type[RunConfig], values: Mapping[str, Any]) -> bool:
    """Whether a configuration with these values needs none of the tables that it may lack."""

    def filled(section: type[Section], table: Mapping[str, Any]) -> dict[str, Any]:
        examples = {name: example_of(field) for name, field in settings(section) if field.is_required()}
        tables = {name: one for name, field in section.model_fields.items() if (one := table_of(field)) is not None}
        needed = {name: one for name, one in tables.items() if section.model_fields[name].is_required()}
        return {**examples, **table, **{name: filled(one, table.get(name, {})) for name, one in needed.items()}}

    try:
        kind.model_validate(filled(kind, values))
    except ValidationError:
        return False
    return True


def _is_optional(kind: type[Section], path: TableName) -> bool:
    """Whether a configuration may lack a table."""
    return NoneType in get_args(kind.model_fields[path[0]].annotation)


def _facts(field: FieldInfo) -> str:
    required = "to be set" if field.is_required() else f"default {_default(field)}"
    return f"#   unit: {unit_of(field)}; range: {range_of(field)}; {required}"


def _default(field: FieldInfo) -> str:
    return "left out" if field.default is None else as_toml(field.default)


def _assignment(name: str, field: FieldInfo, table: Mapping[str, Any]) -> str:
    """The line that sets a setting; commented out where nothing is to be set."""
    value = table.get(name, example_of(field) if field.is_required() else field.default)
    if value is None or value is PydanticUndefined:
        return f"# {name} ="
    return f"{name} = {as_toml(value)}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)]


def _docstring(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_default(field)}`" if field.default is not None else "left out"
    cells = (f"`{name}`", default, unit_of(field), range_of(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
