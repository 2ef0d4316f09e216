# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that explain themselves: a commented configuration to begin with, and the same as a page of documentation.

Both are made of the models alone, so that what a setting means is written once, beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import tomli_w
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .config import RunConfig, preset_names, read_preset
from .settings import Section

WIDTH = 118  # columns of a commented configuration

TableName = tuple[str, ...]
"""A table's name in a configuration, part by part; () for the settings that stand above all tables."""


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


def sections(kind: type[Section], path: TableName = ()) -> Iterator[tuple[TableName, type[Section]]]:
    """A configuration and its tables, each with its name, in their order."""
    yield path, kind
    for name, field in kind.model_fields.items():
        table = _table_of(field)
        if table is not None:
            yield from sections(table, (*path, name))


def settings(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """A table's own settings, by name."""
    return ((name, field) for name, field in section.model_fields.items() if _table_of(field) is None)


def unit_of(field: FieldInfo) -> str:
    """In which unit a setting is, or what kind of word or file it is."""
    return _extra(field)["unit"]


def range_of(field: FieldInfo) -> str:
    """Which values a setting takes, in words."""
    return _values(field.annotation, field.metadata)


def _values(kind: Any, metadata: list[Any]) -> str:
    """The values of a type with its bounds."""
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        return _values(kind, [*metadata, *(part for one in more for part in getattr(one, "metadata", [one]))])
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_values(one, metadata) for one in get_args(kind) if one is not NoneType) + ", or left out"
    if get_origin(kind) is Literal:
        return " | ".join(str(value) for value in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        some = "one or more" if any(isinstance(part, annotated_types.MinLen) for part in metadata) else "any number"
        count = some if parts[-1] is Ellipsis else {2: "two"}.get(len(parts), str(len(parts)))
        return f"{count} of: {_values(parts[0], [])}"
    if kind is bool:
        return "true | false"
    if kind in (int, float):
        return _bounds(metadata, "a whole number" if kind is int else "a number")
    pattern = next((part.pattern for part in metadata if getattr(part, "pattern", None)), None)
    text = "text" if pattern is None else f"text that matches {pattern}"
    return text if kind is str else "a path"


def _bounds(metadata: list[Any], number: str) -> str:
    ends = {type(bound): bound for bound in metadata}
    words: list[str] = []
    match ends.get(annotated_types.MultipleOf):
        case annotated_types.MultipleOf(multiple_of=value):
            words.append(f"a multiple of {value}")
        case _:
            pass
    match ends.get(annotated_types.Ge, ends.get(annotated_types.Gt)), ends.get(annotated_types.Le):
        case annotated_types.Ge(ge=low), annotated_types.Le(le=high):
            words.append(f"{low:g} to {high:g}")
        case annotated_types.Ge(ge=low), _:
            words.append(f"{low:g} or more")
        case annotated_types.Gt(gt=0), _ if number == "a whole number":
            words.append("1 or more")
        case annotated_types.Gt(gt=low), _:
            words.append(f"above {low:g}")
        case _:
            pass
    match ends.get(annotated_types.Lt):
        case annotated_types.Lt(lt=high):
            words.append(f"below {high:g}")
        case _:
            pass
    return ", ".join(words) or number


def _table_of(field: FieldInfo) -> type[Section] | None:
    """The table that a field holds, optional or not; None for a setting."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _is_complete(kind: type[RunConfig], values: Mapping[str, Any]) -> bool:
    """Whether a configuration with these values needs none of the tables that it may lack."""

    def filled(section: type[Section], table: Mapping[str, Any]) -> dict[str, Any]:
        examples = {name: _extra(field)["example"] for name, field in settings(section) if field.is_required()}
        tables = {name: one for name, field in section.model_fields.items() if (one := _table_of(field)) is not None}
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


def _extra(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra


def _facts(field: FieldInfo) -> str:
    required = "to be set" if field.is_required() else f"default {_default(field)}"
    return f"#   unit: {unit_of(field)}; range: {range_of(field)}; {required}"


def _default(field: FieldInfo) -> str:
    return "left out" if field.default is None else _toml(field.default)


def _assignment(name: str, field: FieldInfo, table: Mapping[str, Any]) -> str:
    """The line that sets a setting; commented out where nothing is to be set."""
    value = table.get(name, _extra(field)["example"] if field.is_required() else field.default)
    if value is None or value is PydanticUndefined:
        return f"# {name} ="
    return f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    text = tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
    return " ".join(text.split()).replace("[ ", "[").replace(", ]", "]")


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
