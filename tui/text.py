# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for the screen: harmless, of a bounded length, measured in cells.

Widgets get plain strings and never markup; `safe` is the one way in for what a vnode, a file or
the daemon said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from rich.cells import cell_len, set_cell_size

from adeos.text import printable
from adeos.units import duration

LINE_MAX = 2000
BLOCKS = " ▁▂▃▄▅▆▇█"
ELLIPSIS = "…"


def safe(text: str) -> str:
    """One line without anything a terminal might obey, at most LINE_MAX characters."""
    cut = text[:LINE_MAX]
    if cut.isprintable():
        return cut
    return printable(cut.replace("\t", "    ").encode("utf-8", "backslashreplace"))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Text in exactly `width` cells; what is cut off shows as an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, max(width - 1, 0)) + ELLIPSIS[: min(width, 1)]
    pad = " " * (width - length)
    return pad + text if right else text + pad


def wrapped(text: str, width: int) -> list[str]:
    """Text in pieces of at most `width` cells; an empty line is one piece."""
    if width <= 0 or cell_len(text) <= width:
        return [text]
    pieces, start, used = [], 0, 0
    for place, char in enumerate(text):
        cells = cell_len(char)
        if used + cells > width:
            pieces.append(text[start:place])
            start, used = place, 0
        used += cells
    return [*pieces, text[start:]]


def since(seconds: float | None) -> str:
    """A duration without fractions, which would change with every look; - when unknown."""
    if seconds is None or seconds < 0:
        return "-"
    return f"{int(seconds)}s" if seconds < 60 else duration(seconds)


def sparkline(values: Iterable[float | None], top: float) -> str:
    """A block a value, of eighths of `top`; a value that is unknown shows as a dot."""
    return "".join(_block(value, top) for value in values)


def _block(value: float | None, top: float) -> str:
    if value is None or not isfinite(value):
        return "·"
    if top <= 0 or value <= 0:
        return BLOCKS[1] if value == 0 else BLOCKS[0]
    return BLOCKS[1 + min(int(value / top * 7.999), 7)]


def bar(part: float, whole: float, width: int) -> str:
    """A bar of eighths, `part` of `whole` long."""
    if whole <= 0 or width <= 0:
        return ""
    eighths = round(max(0.0, min(part / whole, 1.0)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def matches(pattern: str, text: str) -> bool:
    """Whether a line passes a filter: it holds the words, or with ! before them does not."""
    pattern = pattern.strip().lower()
    if pattern.startswith("!"):
        return not pattern[1:] or pattern[1:] not in text.lower()
    return pattern in text.lower()


def around(hits: Sequence[bool], context: int) -> list[int]:
    """Indices of the hits and of `context` lines on each side of one, in order."""
    kept: list[int] = []
    last = -1
    for place, hit in enumerate(hits):
        if hit:
            kept += range(max(place - context, last + 1), min(place + context + 1, len(hits)))
            last = max(last, kept[-1])
    return kept
