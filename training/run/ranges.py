# SPDX-License-Identifier: GPL-3.0-or-later
"""What a setting takes, in words: read from its type and its bounds, for the page, a printed configuration and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import tomli_w
from pydantic.fields import FieldInfo

from .settings import Section

TableName = tuple[str, ...]
"""A table's name in a configuration, part by part; () for the settings that stand above all tables."""

PLAIN = {r"^[a-z0-9_]+$": "small letters, digits and _"}
"""Patterns of text, in words."""


def sections(kind: type[Section], path: TableName = ()) -> Iterator[tuple[TableName, type[Section]]]:
    """A configuration and its tables, each with its name, in their order."""
    yield path, kind
    for name, field in kind.model_fields.items():
        table = table_of(field)
        if table is not None:
            yield from sections(table, (*path, name))


def settings(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """A table's own settings, by name."""
    return ((name, field) for name, field in section.model_fields.items() if table_of(field) is None)


def table_of(field: FieldInfo) -> type[Section] | None:
    """The table that a field holds, optional or not; None for a setting."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def field_at(kind: type[Section], path: Sequence[str | int]) -> FieldInfo | None:
    """The field of a dotted name, where what follows a setting's own name, such as a place in a list, is passed over."""
    field: FieldInfo | None = None
    table: type[Section] | None = kind
    for part in path:
        if table is None:
            break
        field = table.model_fields.get(str(part))
        if field is None:
            return None
        table = table_of(field)
    return field


def unit_of(field: FieldInfo) -> str:
    """In which unit a setting is, or what kind of word or file it is."""
    return _extra(field)["unit"]


def example_of(field: FieldInfo) -> Any:
    """What a required setting may be, None where there is no example."""
    return _extra(field)["example"]


def range_of(field: FieldInfo) -> str:
    """Which values a setting takes, in words."""
    return _values(field.annotation, field.metadata)


def as_toml(value: Any) -> str:
    """A value as a configuration writes it, on one line."""
    value = list(value) if isinstance(value, tuple) else value
    text = tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
    return " ".join(text.split()).replace("[ ", "[").replace(", ]", "]")


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
        count = _how_many(metadata) if parts[-1] is Ellipsis else {2: "two"}.get(len(parts), str(len(parts)))
        return f"{count} of: {_values(parts[0], [])}"
    if kind is bool:
        return "true | false"
    if kind in (int, float):
        return _bounds(metadata, "a whole number" if kind is int else "a number")
    return _text(metadata) if kind is str else "a path"


def _how_many(metadata: list[Any]) -> str:
    """How many values a list takes."""
    least = next((part.min_length for part in metadata if isinstance(part, annotated_types.MinLen)), 0)
    most = next((part.max_length for part in metadata if isinstance(part, annotated_types.MaxLen)), None)
    if most is None:
        return "one or more" if least else "any number"
    return f"{least} to {most}"


def _text(metadata: list[Any]) -> str:
    # A constraint holds its pattern and its length, or each stands by itself, as the version of pydantic has it.
    pattern = next((part.pattern for part in metadata if getattr(part, "pattern", None)), None)
    longest = next((part.max_length for part in metadata if getattr(part, "max_length", None)), None)
    text = "text" if pattern is None else PLAIN[pattern]
    return text if longest is None else f"{text} (at most {longest})"


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
            words.append(f"{_figure(low)} to {_figure(high)}")
        case annotated_types.Ge(ge=low), _:
            words.append(f"{_figure(low)} or more")
        case annotated_types.Gt(gt=0), _ if number == "a whole number":
            words.append("1 or more")
        case annotated_types.Gt(gt=low), _:
            words.append(f"above {_figure(low)}")
        case _:
            pass
    match ends.get(annotated_types.Lt):
        case annotated_types.Lt(lt=high):
            words.append(f"below {_figure(high)}")
        case _:
            pass
    return ", ".join(words) or number


def _figure(value: Any) -> str:
    """A bound as one writes it: 768, 0.5, 1 000 000 000, 2^64 - 1."""
    if not isinstance(value, int):
        return f"{value:g}"
    if abs(value) < 2**62:
        return f"{value:,}".replace(",", " ") if abs(value) > 9999 else str(value)
    power = abs(value).bit_length()
    if value == 2**power - 1:
        return f"2^{power} - 1"
    assert abs(value) == 2 ** (power - 1)
    return f"{'-' if value < 0 else ''}2^{power - 1}"


def _extra(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra
