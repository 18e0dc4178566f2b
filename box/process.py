# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes by identity: a pid alone may have been reused, a pid with its start time has not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """A process of this boot; `start` in clock ticks since boot (proc(5), stat, field 22)."""

    pid: int
    start: int


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start time out of /proc/PID/stat; the name in it may hold anything."""
    fields = text[text.rindex(")") + 1 :].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> Identity | None:
    """Identity of a live process, None when there is none (a zombie counts as none)."""
    try:
        state, start = parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (OSError, ValueError, IndexError):
        return None
    return None if state in "ZX" else Identity(pid, start)


def alive(process: Identity) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def wait_gone(process: Identity, timeout: float) -> bool:
    """Waits up to `timeout` seconds for its end; reaps it when it is our child."""
    end = time.monotonic() + timeout
    while True:
        try:
            os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            pass
        if not alive(process):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.03)


def stop(process: Identity) -> None:
    """Ends this very process: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not alive(process):
            return
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return
        if wait_gone(process, 3.0):
            return
