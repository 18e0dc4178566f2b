# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a verb on another machine over ssh: in the box, or where --host says.

The far end gets a terminal when stdin and stdout are terminals here, so Ctrl-C
and the window's size travel by themselves.  Without one, the far end ends
itself when its output's reader is gone (end_with_the_caller).  The exit code
is the far verb's.  Limits: file names on a command line are the far machine's.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cli.errors import CliError, ExitCode, MachineMissing

DESTINATION = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_\[][A-Za-z0-9_.:%\]-]*")
PASSED_ON = ("NO_COLOR", "VNODE_DEBUG_TRACEBACK")
SSH_FAILED = 255

Reach = Callable[[Sequence[str], bool], list[str]]
"""(far command, with a terminal) -> the local command that runs it there."""


class Unreachable(CliError):
    """ssh could not get there, or lost the connection."""

    exit_code = ExitCode.MACHINE


class Target(NamedTuple):
    """Another machine: its name for people, and how to run a command there."""

    name: str
    reach: Reach

    def command(self, arguments: Sequence[str], *, terminal: bool) -> list[str]:
        """The local command that runs vnode-debug with these arguments there."""
        far = ["vnode-debug", *([] if terminal else ["--remote-end"]), *arguments]
        return self.reach(far, terminal)

    def run(self, arguments: Sequence[str]) -> int:
        """Run it there with this process's stdin, stdout and stderr; its exit code."""
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        sys.stdout.flush()
        command = self.command(arguments, terminal=terminal)
        try:
            code = subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            return ExitCode.INTERRUPTED
        except FileNotFoundError:
            raise MachineMissing(f"no {command[0]} here; install openssh-client") from None
        if code == SSH_FAILED:
            raise Unreachable(f"{self.name} cannot be reached over ssh, or the connection broke")
        return code if code >= 0 else 128 - code

    def capture(self, arguments: Sequence[str], timeout: float) -> bytes:
        """Its stdout; b"" when it failed or took longer than timeout seconds."""
        try:
            return subprocess.run(
                self.command(arguments, terminal=False),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return b""


def machine_at(destination: str) -> Target:
    """USER@MACHINE, as the user's ssh knows it, with vnode-debug in its PATH."""
    import click

    if not DESTINATION.fullmatch(destination):
        raise click.UsageError(f"--host {destination!r} is not USER@MACHINE")

    def reach(far: Sequence[str], terminal: bool) -> list[str]:
        settings = [f"{name}={os.environ[name]}" for name in PASSED_ON if os.environ.get(name)]
        line = shlex.join(["env", *settings, *far] if settings else far)
        return ["ssh", "-tt" if terminal else "-T", "--", destination, line]

    return Target(destination, reach)


def running_box() -> Target | None:
    """The box of this checkout when it takes commands, else None."""
    from box import machine
    from box.errors import BoxError

    try:
        if not machine.running():
            return None
    except BoxError:
        return None
    return Target("the box", lambda far, terminal: machine.exec_argv(far, tty=terminal))


def end_with_the_caller() -> None:
    """Interrupt this process when nobody reads its stdout any more.

    ssh without a terminal passes no signals on: a verb that only waits would
    outlive its caller's Ctrl-C.
    """
    import select
    import signal
    import threading

    main = threading.main_thread().ident
    assert main is not None  # it runs

    def watch() -> None:
        poller = select.poll()
        poller.register(1, 0)
        poller.poll()  # returns on POLLERR or POLLHUP only
        signal.pthread_kill(main, signal.SIGINT)  # to this thread: it also ends a sleep

    if not sys.stdout.isatty():
        threading.Thread(target=watch, daemon=True, name="caller").start()
