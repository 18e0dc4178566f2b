# SPDX-License-Identifier: GPL-2.0-or-later
"""Gets a vnode's own word on its registers before its CPUs are parked: INIT forgets them.

Two ways, both bounded: wait for the agent to complete its crash record, or
ask each CPU by NMI to save its frame in the debug mailbox.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from adeos import abi
from adeos.bridge import Bridge
from adeos.errors import AdeosError, BridgeError
from adeos.machine import Machine
from watchdog.watch import record_complete

RECORD_WAIT_S = 0.020
NMI_WAIT_S = 0.020
POLL_S = 0.001


async def wait_for_record(bridge: Bridge, incarnation: int, limit: float = RECORD_WAIT_S) -> bool:
    """Wait for the crash record to be complete; whether it is."""
    return await _poll(lambda: record_complete(bridge, incarnation), limit)


async def ask_by_nmi(
    machine: Machine, bridge: Bridge, vnode: int, ncpus: int, limit: float = NMI_WAIT_S
) -> list[int]:
    """Ask every CPU for its frame; the CPUs (within the vnode) that answered.

    A CPU answers in tens of microseconds, with interrupts off too; one that
    is dead, or whose kernel has no agent, does not.
    """
    asked: dict[int, int] = {}
    for cpu in range(ncpus):
        try:
            asked[cpu] = bridge.debug_request(cpu, abi.VN_DBG_SAVE)
            machine.nmi(vnode, cpu)
        except AdeosError:
            asked.pop(cpu, None)

    def answered() -> list[int]:
        return [cpu for cpu, number in asked.items() if _done(bridge, cpu, number)]

    await _poll(lambda: len(answered()) == len(asked), limit)
    return answered()


def _done(bridge: Bridge, cpu: int, number: int) -> bool:
    try:
        return bridge.debug(cpu).done == number
    except BridgeError:
        return False


async def _poll(ready: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    while not ready():
        if time.monotonic() >= end:
            return ready()
        await asyncio.sleep(POLL_S)
    return True
