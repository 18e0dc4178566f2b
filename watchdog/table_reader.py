# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML tables to msgspec structs, collecting every mistake instead of stopping at the first.

Understands what config.py uses: structs, tuples of structs, and whatever
msgspec.convert takes as a leaf.  Defaults of a nested struct are those of
the field's default value, so `irq = {limit_ms = 50}` keeps irq's period.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from watchdog import toml_lines
from watchdog.errors import Mistake


class Reader:
    """Collects mistakes while tables become structs."""

    def __init__(self, lines: dict[toml_lines.Path, int]) -> None:
        self.lines = lines
        self.mistakes: list[Mistake] = []

    def mistake(self, path: toml_lines.Path, what: str, hint: str = "") -> None:
        line = toml_lines.find_line(self.lines, path)
        self.mistakes.append(Mistake(line, toml_lines.show(path), what, hint))


T = TypeVar("T", bound=msgspec.Struct)


def read_table(
    reader: Reader, cls: type[T], table: Any, path: toml_lines.Path, base: T | None
) -> T:
    """Convert one table; keys that fail keep `base`'s value or the default.

    A required key that is absent or wrong is filled with its type's zero, so
    that the remaining checks can go on; the mistake is recorded.
    """
    if not isinstance(table, Mapping):
        reader.mistake(path, "is no table", f"write [{toml_lines.show(path)}]")
        table = {}
        if base is not None:
            return base
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            known = "remove it; known: " + ", ".join(fields)
            hint = f'did you mean "{near[0]}"?' if near else known
            reader.mistake((*path, key), "unknown key", hint)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        default = getattr(base, name) if base is not None else field.default
        if name in table:
            values[name] = _value(reader, field.type, table[name], (*path, name), default)
        elif default is msgspec.NODEFAULT:
            reader.mistake((*path, name), "missing", "add it")
            values[name] = _zero(field.type)
        else:
            values[name] = default
    return cls(**values)


def _value(reader: Reader, kind: Any, value: Any, path: toml_lines.Path, default: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        base = default if isinstance(default, kind) else None
        return read_table(reader, kind, value, path, base)
    if get_origin(kind) is tuple and isinstance(get_args(kind)[0], type):
        inner = get_args(kind)[0]
        if issubclass(inner, msgspec.Struct):
            if not isinstance(value, list):
                reader.mistake(path, "is no array of tables", f"write [[{toml_lines.show(path)}]]")
                return ()
            return tuple(
                read_table(reader, inner, v, (*path, i), None) for i, v in enumerate(value)
            )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        hint = "one of " + ", ".join(choices) if choices else ""
        what = f'"{value}" is not allowed' if choices else str(error).replace("`", "")
        reader.mistake(path, what, hint)
        return _zero(kind) if default is msgspec.NODEFAULT else default


def _zero(kind: Any) -> Any:
    return {int: 0, str: "", bool: False}.get(kind, ())
