# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people and JSON for programs: tables, units, colours, safe text.

Data goes to stdout, messages to stderr.  What comes from a vnode may hold
terminal escapes, so everything shown passes through clean().
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from adeos.text import printable
from adeos.units import duration as duration
from adeos.units import size as size

COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2, "bold": 1}


def clean(text: str, keep: str = "") -> str:
    """Text with everything a terminal might obey written as \\xNN or \\uNNNN.

    Characters in keep (say "\\n\\t") pass.  Also turns lone surrogates, which
    hostile arguments hold, into something that any stream can encode.
    """
    return printable(text.encode("utf-8", "backslashreplace"), keep)


def one_line(text: str) -> str:
    """Text on one line, clean, with runs of white space as one space."""
    return clean(" ".join(text.split()))


def write(text: str) -> None:
    """Data, to stdout, ending in a newline unless it is empty."""
    if text:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()


def write_reply(reply: Mapping[str, object]) -> None:
    """What the daemon answered, as JSON."""
    write_json({key: value for key, value in reply.items() if key != "ok"})


def write_json(value: object) -> None:
    """One JSON document on stdout, indented; ASCII, so no escape gets through."""
    import json

    write(json.dumps(value, indent=2, default=str))


def write_json_line(value: object) -> None:
    """One JSON document on a line of its own, for streams."""
    import json

    write(json.dumps(value, separators=(",", ":"), default=str))


def note(text: str) -> None:
    """A message for people, on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)


def coloured(stream: TextIO) -> bool:
    """Whether colours belong there: a terminal, and NO_COLOR (no-color.org) not set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, colour: str) -> str:
    """Text in a colour of COLOURS, or as it is where colours do not belong."""
    code = COLOURS.get(colour)
    if code is None or not text or not coloured(sys.stdout):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    colour: dict[str, str] | None = None,
) -> str:
    """Columns under headers, two spaces apart; right names the right-aligned ones.

    colour maps a cell's text to a colour of COLOURS.  The last column is not
    padded.  Cells are cleaned.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(h), *(len(r[i]) for r in cells), 0) for i, h in enumerate(headers)]
    lines = []
    for row in [list(headers), *cells]:
        parts = []
        for header, cell, width in zip(headers, row, widths, strict=True):
            pad = " " * (width - len(cell))
            if colour and cell in colour:
                cell = paint(cell, colour[cell])
            parts.append(pad + cell if header in right else cell + pad)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
