# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands behind gdb's `monitor`: words in, text out."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from debugger.session import Session


class Command(NamedTuple):
    """A monitor command: its words, what it does, and how."""

    words: tuple[str, ...]
    help: str
    run: Callable[[Session], str]


def _help(_session: Session) -> str:
    width = max(len(" ".join(command.words)) for command in COMMANDS)
    return "".join(f"{' '.join(row.words):<{width}}  {row.help}\n" for row in COMMANDS)


def _version(_session: Session) -> str:
    # Linux's scripts/gdb takes any answer for QEMU's stub, which suits: thread = CPU + 1.
    return "vnode-debug: GDB remote protocol over shared memory\n"


def _vnode(session: Session) -> str:
    facts = session.target.describe()
    width = max(map(len, facts))
    return "".join(f"{key:<{width}}  {value}\n" for key, value in facts.items())


def _cpus(session: Session) -> str:
    return "".join(f"{thread.info}\n" for thread in session.target.threads())


def _refresh(session: Session) -> str:
    session.target.refresh()
    return "registers read anew; `maintenance flush register-cache` makes gdb ask for them\n"


COMMANDS = (
    Command(("help",), "this list", _help),
    Command(("info", "version"), "what answers here", _version),
    Command(("info", "vnode"), "the kernel that is looked at", _vnode),
    Command(("info", "cpus"), "its CPUs and where their registers come from", _cpus),
    Command(("refresh",), "take new samples of the registers", _refresh),
)


def run(session: Session, words: Sequence[str]) -> str:
    """The output of a command; for unknown ones a line that says so."""
    for command in COMMANDS:
        if tuple(words) == command.words:
            return command.run(session)
    if tuple(words) == ("version",):
        return _version(session)
    return "no such command: try `monitor help`\n"
