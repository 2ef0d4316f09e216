# SPDX-License-Identifier: GPL-3.0-or-later
"""A mistake in a configuration in words: which setting, where it was given, what it takes, what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tomllib
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ...anydressing_core.refusals import is_text, quote, refusal
from .ranges import as_toml, example_of, field_at, range_of, sections, settings, table_of
from .settings import Section


@dataclass(frozen=True)
class Override:
    """A setting that the command line gives. name: dotted. option: by which option, `--set` for any setting."""

    name: str
    value: Any
    option: str = "--set"

    @property
    def told(self) -> str:
        """How a message calls it."""
        return f"--set {self.name}" if self.option == "--set" else self.option


def read_override(text: str) -> Override:
    """The setting of `section.key=value`, the value as TOML or, failing that, as text. Raises ValueError."""
    name, separator, value = text.partition("=")
    if not separator or not all(part.strip() for part in name.split(".")):
        why = "A setting is named with its table, as in data.batch=2."
        raise refusal(f"--set: {quote(text)}", "is not of the form key=value", why, "write --set data.batch=2.")
    if not is_text(text):
        why = "It holds bytes that are no UTF-8, as a terminal of another encoding sends them."
        raise refusal(f"--set {name.strip()}:", f"got {quote(value)}", why, "set the terminal to UTF-8.")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return Override(name.strip(), parsed)


def not_toml(error: tomllib.TOMLDecodeError, text: str, source: str) -> ValueError:
    """The refusal of a text that is no TOML; a Windows path between double quotes is told how it is written."""
    name, problem = f"config: {source}", "is not valid TOML"
    found = re.search(r"at line (\d+)", str(error))
    lines = text.split("\n")
    line = lines[int(found[1]) - 1].strip() if found else ""
    if "\\" in line:
        why = f"Line {found[1] if found else ''} is {line[:120]}: between double quotes a backslash begins an escape."
        remedy = r"write a path in single quotes, 'C:\Users\me', or with forward slashes, C:/Users/me."
        return refusal(name, problem, why, remedy)
    return refusal(name, problem, f"{error}{f': {line[:120]}' if line else ''}.", "correct that line.")


def in_words(error: ValidationError, source: str, kind: type[Section], overrides: Sequence[Override]) -> str:
    """pydantic's findings as three lines each: which setting and where it stands, why, what to do.

    source: the file. overrides: what the command line gave, where a mistake in it is to be corrected.
    """
    lines: list[str] = []
    findings = error.errors()
    for finding in findings:
        path = finding["loc"]
        if any(other["loc"][: len(path)] == path != other["loc"] for other in findings):
            continue  # a list with a wrong value counts as too short, too
        where = _where(path, source, overrides)
        if finding["type"] == "extra_forbidden":
            found = _unknown(path, finding["input"], where, kind)
        elif finding["type"] == "missing" and path and not isinstance(path[-1], int):
            found = _missing(path, source, kind)
        else:
            found = _wrong(path, finding, where, kind)
        lines.append(str(found))
    return "\n\n".join(lines)


def nearest(path: Sequence[str | int], value: Any, kind: type[Section]) -> str | None:
    """The known setting, or for a table the known table, that an unknown name probably means; None if none is near.

    First among the settings of its own table, then among all: by the name itself, by its words' first letters (`lr` for
    `learning_rate`), then by spelling.
    """
    *tables, last = map(str, path)
    if isinstance(value, dict):
        names = [".".join(name) for name, _ in sections(kind) if name]
        return next(iter(difflib.get_close_matches(".".join(map(str, path)), names, n=1, cutoff=0.5)), None)
    known = [(name, key) for name, section in sections(kind) for key, _ in settings(section)]
    own = [(name, key) for name, key in known if name == tuple(tables)]
    for some in (own, known):
        alike = [one for one in some if one[1] == last] or [one for one in some if _initials(one[1]) == last]
        close = alike or [one for key in _close(last, some) for one in some if one[1] == key]
        if close:
            return ".".join((*close[0][0], close[0][1]))
    return next(
        iter(difflib.get_close_matches(".".join(map(str, path)), [".".join((*n, k)) for n, k in known], 1)), None
    )


def _close(name: str, known: Sequence[tuple[tuple[str, ...], str]]) -> list[str]:
    return difflib.get_close_matches(name, [key for _, key in known], n=1, cutoff=0.6)


def _initials(name: str) -> str | None:
    words = name.split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else None


def _where(path: Sequence[str | int], source: str, overrides: Sequence[Override]) -> str:
    """Where a mistake is to be corrected: the option that gave the setting, or the file."""
    name = ".".join(map(str, path))
    for override in reversed(overrides):
        if f"{name}.".startswith(f"{override.name}.") or (name and override.name.startswith(f"{name}.")):
            return override.told
    return source


def _unknown(path: Sequence[str | int], value: Any, where: str, kind: type[Section]) -> ValueError:
    name = ".".join(map(str, path))
    if name == "preset":
        why = "A preset is what a configuration begins with; nothing lays one over it."
        return refusal(
            "preset:", f"cannot be given by {where}", why, 'write preset = "NAME" as the file\'s first line.'
        )
    near = nearest(path, value, kind)
    hint = f"did you mean {near!r}?" if near else "take it out; `anydressing config` prints all settings."
    return refusal(f"{name}:", f"{where} has an unknown setting", "Nothing reads it.", hint)


def _missing(path: Sequence[str | int], source: str, kind: type[Section]) -> ValueError:
    name = ".".join(map(str, path))
    field = field_at(kind, path)
    table = None if field is None else table_of(field)
    needed = [key for key, one in settings(table) if one.is_required()] if table else []
    remedy = (
        f"add the table [{name}] with {', '.join(f'{key} = ...' for key in needed)}" if table else f"add {name} = ..."
    )
    if field is not None and table is None and example_of(field) is not None:
        remedy = f"add it, for example {name} = {as_toml(example_of(field))}"
    return refusal(f"{name}:", f"{source} does not say it", "There is no default.", remedy)


def _wrong(path: Sequence[str | int], finding: Any, where: str, kind: type[Section]) -> ValueError:
    if finding["type"] == "missing":  # a list that is too short lacks the value at this place
        path = path[:-1]
    name = ".".join(map(str, path)) or "config"
    field, came = field_at(kind, path), finding["input"]
    if finding["type"] == "value_error":
        why = f"{finding['msg'].removeprefix('Value error, ')}."
        what = "does not go together" if field is None or table_of(field) else f"got {quote(came)}"
        return refusal(f"{name}:", what, why[0].upper() + why[1:], f"correct it in {where}.")
    why = "It is a table of settings." if field is None or table_of(field) else _takes(field, finding["type"])
    return refusal(f"{name}:", f"got {quote(came)}", why, f"correct it in {where}.")


def _takes(field: FieldInfo, problem: str) -> str:
    """What a setting takes, with an example where it is a list."""
    example = field.default if isinstance(field.default, tuple) and field.default else None
    more = " It is a whole number." if problem.startswith("int_") else ""
    more = " Infinity and nan are no numbers here." if problem == "finite_number" else more
    return f"Its range: {range_of(field)}{f'; for example {as_toml(example)}' if example else ''}.{more}"
