# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row of monitor.COMMANDS is, and how rows read their arguments."""

from collections.abc import Callable
from typing import NamedTuple

from debugger.session import Session


class Command(NamedTuple):
    """A monitor command: its words, the arguments it takes, what it does, and how.

    `run` gets the session and what the user wrote after the words, its white space made one
    space; `argument` names each possible argument with one word, so that their number is known.
    """

    words: tuple[str, ...]
    argument: str
    help: str
    run: Callable[[Session, str], str]

    @property
    def usage(self) -> str:
        return " ".join([*self.words, *([self.argument] if self.argument else [])])


def number(text: str, most: int) -> int | None:
    """A decimal number, at most `most`; None when it is none."""
    if not (text.isascii() and text.isdigit()):
        return None
    return min(int(text[:19]), most)
