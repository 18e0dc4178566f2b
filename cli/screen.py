# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal in two special modes: redrawn in place (Screen) and raw (raw_terminal).

Both put the terminal back on every way out, exceptions and Ctrl-C included.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ENTER = "\x1b[?1049h\x1b[?25l"  # alternate screen, no cursor (xterm control sequences)
LEAVE = "\x1b[?25h\x1b[?1049l"
COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """The alternate screen, drawn line by line; keys are read without Enter."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)

    def __enter__(self) -> Screen:
        tty.setcbreak(self._fd)
        sys.stdout.write(ENTER)
        sys.stdout.flush()
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def wait_for_key(self, seconds: float) -> str:
        """A key, or "" when none came in time."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return ""
        return os.read(self._fd, 1).decode("ascii", "replace") or "q"

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines from the top, cut to the terminal's size."""
        columns, rows = shutil.get_terminal_size()  # 80 x 24 where the terminal says 0 x 0
        text = "".join(f"{cut(line, columns)}\x1b[K\n" for line in lines[: rows - 1])
        sys.stdout.write(f"\x1b[H{text}\x1b[J")
        sys.stdout.flush()


def cut(line: str, columns: int) -> str:
    """A line with colour codes, cut to so many characters."""
    out, room = [], columns
    for i, part in enumerate(re.split(f"({COLOUR_CODE.pattern})", line)):
        if i % 2:
            out.append(part)
        else:
            out.append(part[:room])
            room -= len(part[:room])
    return "".join(out)


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Keys as bytes, unechoed, Ctrl-C included; put back afterwards."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
