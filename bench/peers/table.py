# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes of contenders, side by side: what script/bench gathers and docs/benchmarks.md shows.

"take": {"running": 2.1, "safe": 0.03} -- one measurement of one contender, by column
Line(name, takes), Table(columns, lines), page(tables, facts) -> Markdown
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

Take = dict[str, float]


class NotHere(Exception):
    """A peer cannot be measured on this machine; the text says why."""


class Contender(NamedTuple):
    """Who is measured: a word for the command line, what the page says, one take."""

    key: str
    name: str
    measure: Callable[[], Take]


class Column(NamedTuple):
    """A figure: its key in a take, its heading with the unit, and how many digits it gets."""

    key: str
    title: str
    digits: int = 2


@dataclass
class Line:
    """A contender in a table."""

    name: str
    takes: list[Take] = field(default_factory=list)
    absent: str = ""  # why there is no take
    failures: list[str] = field(default_factory=list)  # of single takes


@dataclass
class Table:
    """Contenders that did the same work; the first line is ours, to which ratios are."""

    title: str
    text: str
    repeat: str  # the command
    columns: list[Column]
    lines: list[Line]

    def json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(found: Mapping[str, Any]) -> Table:
    columns = [Column(*one) for one in found["columns"]]
    lines = [Line(**one) for one in found["lines"]]
    return Table(found["title"], found["text"], found["repeat"], columns, lines)


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def cell(values: Sequence[float], base: float | None, digits: int) -> str:
    """Median, least and greatest, and how many times the median of ours that is."""
    if not values:
        return ""
    middle = statistics.median(values)
    text = f"**{number(middle, digits)}**"
    if len(values) > 1:
        text += f" ({number(min(values), digits)} to {number(max(values), digits)})"
    if base:
        ratio = middle / base
        text += f" x{ratio:.0f}" if ratio >= 20 else f" x{ratio:.2g}"
    return text


def row(line: Line, first: Line, columns: Sequence[Column]) -> str:
    cells = []
    for key, _, digits in columns:
        values = [take[key] for take in line.takes if key in take]
        ours = [take[key] for take in first.takes if key in take]
        base = statistics.median(ours) if ours and line is not first else None
        cells.append(cell(values, base, digits))
    if not line.takes:
        cells = [f"not here: {line.absent}" if line.absent else "", *[""] * (len(columns) - 1)]
    count = str(len(line.takes))
    if line.failures:
        count += f", {len(line.failures)} failed: {line.failures[-1]}"
    return "| " + " | ".join([line.name, count, *cells]) + " |"


def render(table: Table) -> str:
    """A table with its heading, in Markdown."""
    heads = ["", "n", *(column.title for column in table.columns)]
    lines = [
        f"### {table.title}",
        "",
        *([table.text, ""] if table.text else []),
        "| " + " | ".join(heads) + " |",
        "|---|---:|" + "---:|" * len(table.columns),
        *(row(line, table.lines[0], table.columns) for line in table.lines),
        "",
        f"    {table.repeat}",
        "",
    ]
    return "\n".join(lines)


def page(intro: str, sections: Mapping[str, str], tables: Sequence[tuple[str, Table]]) -> str:
    """docs/benchmarks.md: `sections` are texts by heading, `tables` come with theirs."""
    parts = [intro.strip() + "\n"]
    for heading, text in sections.items():
        parts.append(f"## {heading}\n\n{text.strip()}\n")
        parts += [render(table) for where, table in tables if where == heading]
    return "\n".join(parts).rstrip() + "\n"
