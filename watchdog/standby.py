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
START_S = 120.0
"""The same for one that starts or ends: it reads images, waits for the disk, and does not tick."""


class Led(NamedTuple):
    """What a standby found: the process that led, and the TSC of its last watch tick."""

    pid: int
    beat_tsc: int


async def wait(machine: Machine) -> Led:
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
            await _outlive(machine, owner)
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


async def _outlive(machine: Machine, owner: int) -> None:
    """Return when the owner is dead, or is the owner no more."""
    try:
        pidfd = os.pidfd_open(owner)
    except ProcessLookupError:
        await asyncio.sleep(CLAIM_S)
        return
    died = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, died.set)
    pace = _Pace()
    try:
        while not _dead(pidfd) and machine.info().owner_pid == owner:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(died.wait(), POLL_S)
            if pace.hung(_beat(machine, owner), time.monotonic()):
                log.write("error", "leader-hangs", pid=owner, seconds=pace.still)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _dead(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def _beat(machine: Machine, owner: int) -> int:
    """The ticks of the owner; 0 while it starts, or ends in order."""
    try:
        head = RootBridge.open(machine).head()
    except AdeosError:
        return 0
    return head.beat if head is not None and head.pid == owner else 0


class _Pace:
    """Whether a beat has stood still; time in which we ourselves stood still does not count."""

    def __init__(self) -> None:
        self.still = 0.0
        """How long it has, seconds."""
        self._beat = -1
        self._last = 0.0

    def hung(self, beat: int, now: float) -> bool:
        """One look; True once for each time that the limit has passed."""
        passed = min(now - self._last, 2 * POLL_S) if self._last else 0.0
        self._last = now
        if beat != self._beat:
            self._beat, self.still = beat, 0.0
            return False
        before, limit = self.still, HUNG_S if beat else START_S
        self.still += passed
        return before < limit <= self.still
