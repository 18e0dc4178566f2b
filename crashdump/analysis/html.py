# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as one HTML file that needs nothing else: no script, no link, no core.

Escaped throughout; a Content-Security-Policy forbids what would slip through.
The report within, as JSON, is in the last element for programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import msgspec

from crashdump.analysis.report import Block, Facts, Lines, Panel, Report, Stack, State, Table

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bad: #b3261e; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; display: inline; }
h3 { font-size: .9rem; margin: .8rem 0 .2rem; }
pre, td, dd { font: 13px/1.4 ui-monospace, monospace; } pre { overflow-x: auto; margin: 0; }
pre, table { background: var(--soft); padding: .5rem; border-radius: 4px; }
.scroll { overflow-x: auto; } table { border-spacing: 1rem .1rem; } th { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .3rem 0; }
dd { margin: 0; overflow-wrap: anywhere; } dt { opacity: .75; }
details { border-top: 1px solid var(--line); padding: .6rem 0; } summary { cursor: pointer; }
.note { color: var(--bad); } .here { font-weight: bold; } .how { opacity: .85; margin-top: .6rem; }
"""
OPEN = frozenset({"reason", "instruction", "registers", "backtrace", "locks", "hung", "log"})
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(report: Report) -> str:
    """The whole document."""
    return "".join(_document(report))


def _document(report: Report) -> Iterator[str]:
    title = escape(report.title)
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
    yield from _facts(_head(report))
    for panel in report.panels:
        yield from _panel(panel)
    data = msgspec.json.encode(report).decode()
    safe = data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    yield f'<script type="application/json" id="report">{safe}</script>\n</body></html>\n'


def _head(report: Report) -> tuple[tuple[str, str], ...]:
    module = f" [{report.module}]" if report.module else ""
    taken = ", ".join(f"{count} {kind}" for kind, count in report.redacted.items())
    rows = (
        ("culprit", report.culprit and report.culprit + module),
        ("known by", report.basis + (" (a guess)" if report.guess else "")),
        ("CPU", "" if report.cpu is None else str(report.cpu)),
        ("kernel", report.release),
        ("build id", report.build_id),
        ("dump", report.source),
        ("redacted", taken or "nothing found to redact"),
    )
    return tuple((key, value) for key, value in rows if value)


def _panel(panel: Panel) -> Iterator[str]:
    shown = " open" if panel.name in OPEN else ""
    name = escape(panel.name, quote=True)
    yield f'<details id="{name}"{shown}><summary><h2>{escape(panel.title)}</h2></summary>\n'
    if panel.state is not State.OK:
        yield f'<p class="note">{escape(panel.state)}: {escape(panel.note)}</p>\n'
    for block in panel.blocks:
        if block.heading:
            yield f"<h3>{escape(block.heading)}</h3>\n"
        yield from _block(block)
    if panel.commands:
        lines = "\n".join(escape(command.line) for command in panel.commands)
        yield f'<details class="how"><summary>the same in other tools</summary><pre>{lines}</pre>'
        yield "</details>\n"
    yield "</details>\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Facts(rows=rows):
            yield from _facts(rows)
        case Table(columns=columns, rows=rows):
            yield '<div class="scroll"><table><tr>'
            yield "".join(f"<th>{escape(name)}</th>" for name in columns) + "</tr>\n"
            for row in rows:
                yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
            yield "</table></div>\n"
        case Lines(lines=lines):
            yield f"<pre>{chr(10).join(map(_line, lines))}</pre>\n"
        case Stack(frames=frames, guess=guess, end=end):
            mark = "? " if guess else ""
            text = [escape(mark + frame) for frame in frames]
            text += [f"({escape(end)})"] if end else []
            yield f"<pre>{chr(10).join(text)}</pre>\n"


def _line(line: str) -> str:
    text = escape(line)
    return f'<span class="here">{text}</span>' if line.startswith("=>") else text


def _facts(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield "<dl>"
    yield "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows)
    yield "</dl>\n"
