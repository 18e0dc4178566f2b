# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as text for a terminal or a mail."""

from __future__ import annotations

from collections.abc import Iterator

from crashdump.analysis.report import Block, Facts, Lines, Panel, Report, Stack, State, Table

MAX_COLUMN = 60


def render(report: Report, *, commands: bool = False) -> str:
    """`commands`: with the lines that show each panel in other tools."""
    return "\n".join(_report(report, commands)) + "\n"


def _report(report: Report, commands: bool) -> Iterator[str]:
    yield report.title
    module = f" [{report.module}]" if report.module else ""
    facts = [
        ("culprit", report.culprit and report.culprit + module),
        ("known by", report.basis + (" (a guess)" if report.guess else "")),
        ("kernel", report.release),
        ("host", report.host),
        ("dump", report.source),
    ]
    yield from (f"  {key:9} {value}" for key, value in facts if value)
    for panel in report.panels:
        yield from _panel(panel, commands)


def _panel(panel: Panel, commands: bool) -> Iterator[str]:
    yield ""
    yield f"== {panel.title} ({panel.name})"
    if panel.state is not State.OK:
        yield f"  ({panel.state}: {panel.note})"
    for block in panel.blocks:
        if block.heading:
            yield f"  {block.heading}:"
        yield from (f"    {line}".rstrip() for line in block_lines(block))
    if commands:
        yield from (f"  $ {command.line}" for command in panel.commands)


def block_lines(block: Block) -> Iterator[str]:
    """A block's content, a line each."""
    match block:
        case Facts(rows=rows):
            width = max((len(key) for key, _ in rows), default=0)
            yield from (f"{key:{width}}  {value}" for key, value in rows)
        case Table(columns=columns, rows=rows):
            yield from _table((columns, *rows))
        case Lines(lines=lines):
            yield from lines
        case Stack(frames=frames):
            mark = "? " if block.guess else ""
            yield from (f"{mark}{frame}" for frame in frames)
            if block.end:
                yield f"({block.end})"


def _table(rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    widths = [min(max(map(len, column)), MAX_COLUMN) for column in zip(*rows, strict=False)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False))
