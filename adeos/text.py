# SPDX-License-Identifier: GPL-2.0-or-later
"""Text out of a vnode's memory, made safe for a terminal.

Limits: it makes text harmless, not true; the bytes are kept readable, not reversible.
"""


class _Escapes(dict[int, str]):
    """Translation table that learns: printable characters stay, all others are spelled out."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        text = char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        self[code] = text
        return text


_TABLES: dict[str, _Escapes] = {}


def printable(data: bytes, keep: str = "") -> str:
    r"""`data` as UTF-8 text in which every character that is not printable is spelled out.

    Control characters, escapes and Unicode's direction marks become `\x1b`, `\u202e`; those in
    `keep` (for example "\n\t") stay as they are.  Bytes that are no UTF-8 become `\xff`.
    """
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    table = _TABLES.get(keep)
    if table is None:
        table = _TABLES[keep] = _Escapes((ord(char), char) for char in keep)
    if len(table) > 10_000:  # a hostile log must not grow the table for ever
        table = _Escapes((ord(char), char) for char in keep)
    return text.translate(table)


def c_string(data: bytes) -> str:
    """The text before the first NUL, printable."""
    return printable(data.partition(b"\0")[0])
