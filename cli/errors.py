# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors of the command line itself.

CliError
 +-- NotFound        no such vnode, incident or file
 +-- MachineMissing  no /dev/kmb here and no box to go to
 +-- DaemonDown      the daemon is not running
 +-- TimedOut        the thing waited for did not come

Every package's errors carry an exit_code and one line of text; cli.main prints
the line and exits with the code.  ExitCode documents the codes.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What vnode-debug exits with; the words are those of docs/commands.md."""

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str

    DONE = 0, "done"
    FAILED = 1, "it failed"
    USAGE = 2, "wrong usage"
    CONFIG = 3, "the config is wrong"
    NOT_FOUND = 4, "no such vnode, incident or file"
    MACHINE = 5, "the machine lacks something: /dev/kmb, a module, CPUs, memory"
    DAEMON = 6, "the daemon is not running, or refused (busy, held, already running)"
    TIMEOUT = 7, "timed out"
    NO_SPACE = 8, "no space left, on disk or in the memory pool"
    INTERRUPTED = 130, "interrupted"
    PIPE = 141, "the reader of the output went away"


class CliError(Exception):
    """A failure with its exit code; the text says what, where and what to do."""

    exit_code: int = ExitCode.FAILED


class NotFound(CliError):
    """No such vnode, incident or file."""

    exit_code = ExitCode.NOT_FOUND


class MachineMissing(CliError):
    """There is no machine to work on: no /dev/kmb here and no box."""

    exit_code = ExitCode.MACHINE


class DaemonDown(CliError):
    """The daemon is needed and does not run."""

    exit_code = ExitCode.DAEMON


class TimedOut(CliError):
    """What was waited for did not come in time."""

    exit_code = ExitCode.TIMEOUT
