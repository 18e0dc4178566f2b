# SPDX-License-Identifier: GPL-2.0-or-later
"""A second daemon that waits, and leads when the first one dies.

There is one leader because there is one owner of the machine: kmb.ko gives the
ownership to one process and takes it back when the last descriptor and mapping
of that process are gone, so a dead or fenced leader cannot act any more.  The
leader's death is seen by its pidfd at once.  A leader whose beat in the root
bridge has stood still for long is killed first; it cannot wake up later beside
its successor.  One that ended in order (RootBridge.farewell) is not succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from typing import NamedTuple

from adeos.bridge import RootBridge
from adeos.errors import AdeosError, OwnerError
from adeos.machine import Machine
from watchdog import log
from watchdog.notify import notify

POLL_S = 0.1
CLAIM_S = 0.005
"""Between two attempts: a dying process gives its mappings up after a while."""
HUNG_S = 5.0
"""A leader that lives and has not ticked for so long is killed."""


class Led(NamedTuple):
    """What a standby found: the process that led, and the TSC of its last watch tick."""

    pid: int
    beat_tsc: int


async def wait(machine: Machine, hung_s: float = HUNG_S) -> Led:
    """Return as the machine's owner: at once when nobody ever led, else when who led is dead."""
    waits = False
    while True:
        led = _led(machine)
        if led is not None and _claimed(machine):
            return led
        owner = machine.info().owner_pid
        if not waits:
            waits = True
            notify("READY=1\nSTATUS=standby")
            log.write("info", "standby", pid=os.getpid(), leader=owner)
        if owner:
            await _outlive(machine, owner, hung_s)
        else:
            await asyncio.sleep(CLAIM_S if led is not None else POLL_S)


def _led(machine: Machine) -> Led | None:
    """Who led last, pid 0 when nobody did since boot; None when who did ended in order."""
    try:
        head = RootBridge.open(machine).head()
    except AdeosError:
        return None  # another version's: its own daemon must follow
    if head is None:
        return Led(0, 0)
    return Led(head.pid, head.beat_tsc) if head.pid else None


def _claimed(machine: Machine) -> bool:
    try:
        machine.claim()
    except OwnerError:
        return False
    return True


async def _outlive(machine: Machine, owner: int, hung_s: float) -> None:
    """Return when the owner is dead, or is the owner no more."""
    try:
        pidfd = os.pidfd_open(owner)
    except ProcessLookupError:
        await asyncio.sleep(CLAIM_S)
        return
    died = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, died.set)
    pace = _Pace(hung_s)
    try:
        while not _dead(pidfd) and machine.info().owner_pid == owner:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(died.wait(), POLL_S)
            if pace.hung(_beat(machine), time.monotonic()):
                log.write("error", "leader-hangs", pid=owner, seconds=hung_s)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _dead(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def _beat(machine: Machine) -> int:
    """The leader's last tick; 0 before its first."""
    try:
        head = RootBridge.open(machine).head()
    except AdeosError:
        return 0
    return head.beat_tsc if head is not None else 0


class _Pace:
    """Whether a beat has stood still; time in which we ourselves stood still does not count."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._beat = -1
        self._still = 0.0
        self._last = 0.0

    def hung(self, beat: int, now: float) -> bool:
        """One look; True once for each time that the limit has passed."""
        passed = min(now - self._last, 2 * POLL_S) if self._last else 0.0
        self._last = now
        if beat != self._beat:
            self._beat, self._still = beat, 0.0
            return False
        self._still += passed
        if self._still < self.limit:
            return False
        self._still = 0.0
        return True
