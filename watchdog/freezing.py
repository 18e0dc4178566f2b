# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a running vnode to freeze, and says why it would not.  The bridge's half of warm.py."""

from __future__ import annotations

import asyncio
import errno
import os
import time

from adeos import abi
from adeos.errors import FreezeError
from adeos.machine import Machine
from kexec_restart.warm_image import PAGE, Resume
from watchdog import portal
from watchdog.unit import Unit

FREEZE_S = 15.0
"""For scripts of freeze.d too; the agent gives tasks two seconds."""

_ERRORS = {
    errno.EAGAIN: "its user space has not run vnode-ready",
    errno.EBUSY: "it is being frozen already, or a debugger controls it",
    errno.ENOMEM: "its agent could not map the page tables to resume by",
    errno.EINVAL: "its agent is too old to freeze it",
}
_DOWN = (abi.State.CRASHED, abi.State.HALTED, abi.State.REBOOT, abi.State.KEXEC)


def is_ready(unit: Unit) -> bool:
    """Whether its user space has said that it may be frozen; False on an unreadable bridge."""
    if unit.bridge is None:
        return False
    try:
        return bool(abi.WARM.get(unit.bridge.view, abi.VN_BR_WARM, "state") == abi.WarmState.READY)
    except ValueError:
        return False


async def until_it_runs(unit: Unit, limit_ms: int) -> None:
    """Wait for the first user beat of a vnode that goes on; FreezeError when none comes."""
    assert unit.bridge is not None
    for _ in range(limit_ms):
        side = unit.bridge.vnode_side()
        ours = side is not None and side.incarnation == unit.vnode.incarnation
        if side is not None and ours and side.state is not abi.State.AGENT:
            return
        await asyncio.sleep(0.001)
    raise FreezeError(f"{unit.label} did not come back from being frozen")


async def ask(machine: Machine, unit: Unit) -> Resume:
    """Freeze it; how to resume it.  FreezeError when it would not: it runs on then."""
    bridge = unit.bridge
    assert bridge is not None
    number = bridge.command(abi.Cmd.FREEZE)
    if not portal.ring(machine, unit):
        raise FreezeError(f"{unit.label}: its agent is not up, so nobody would hear")
    deadline = time.monotonic() + FREEZE_S
    while time.monotonic() < deadline:
        result = bridge.command_result(number)
        if result:
            raise FreezeError(f"{unit.label}: {_ERRORS.get(result, os.strerror(result))}")
        warm, side = bridge.warm(), bridge.vnode_side()
        if warm.state is abi.WarmState.FROZEN:
            return _resume(machine, unit, warm)
        if result == 0 and warm.state is abi.WarmState.REFUSED:
            raise FreezeError(f"{unit.label} goes on: {warm.reason or 'it gives no reason'}")
        if side is None or side.state in _DOWN:
            raise FreezeError(f"{unit.label} failed while it was being frozen")
        await asyncio.sleep(0.001)
    raise FreezeError(f"{unit.label} did not freeze in {FREEZE_S:g} s; is a script at it?")


def _resume(machine: Machine, unit: Unit, warm: abi.Warm) -> Resume:
    """What a vnode says is bounded here, once: from now on it is read from the image alone."""
    slot = unit.slot
    assert slot is not None
    cr3, entry, cr4 = warm.resume_cr3, warm.resume_entry, warm.resume_cr4
    ours = slot.base + PAGE <= cr3 < slot.end and not cr3 % PAGE
    if not ours or entry >> 56 != 0xFF or cr4 & ~0x1020 or not cr4 & 0x20:
        raise FreezeError(f"{unit.label}: page tables at {cr3:#x} or entry {entry:#x} are not its")
    return Resume(cr3, entry, cr4, machine.tsc(), time.time_ns())
