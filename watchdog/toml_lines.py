# SPDX-License-Identifier: GPL-2.0-or-later
"""Which line of a TOML text defines which key: tomllib does not tell.

Reads line by line, after tomllib has accepted the text.  Keys inside inline
tables are not located; their line is that of the enclosing key.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=")


def _words(dotted: str) -> list[str]:
    return [word.strip().strip("\"'") for word in dotted.split(".")]


def _resolve(words: list[str], counts: dict[Path, int]) -> Path:
    """Insert the index of the last element behind each word that names an array of tables."""
    path: Path = ()
    for word in words:
        path = (*path, word)
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def key_lines(text: str) -> dict[Path, int]:
    """Map key paths, e.g. ("vnode", 1, "restart", "on_crash"), to 1-based line numbers."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            if closing in line:
                closing = ""
            continue
        if header := _HEADER.match(line):
            *parents, last = _words(header[2])
            table = (*_resolve(parents, counts), last)
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_words(key[1])), number)
        for quotes in ('"""', "'''"):
            if line.count(quotes) % 2:
                closing = quotes
    return lines


def find_line(lines: dict[Path, int], path: Path) -> int | None:
    """The line of `path`, or of the nearest enclosing key that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def show(path: Path) -> str:
    """`vnode[1].restart.on_crash`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
