# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's vitals, read from its memory: whether it lives when no agent says so.

Its jiffies, for a vnode whose boot takes long and for kernels without the agent; for the latter
also what progress.py looks at.  The kernel is searched in the region, with no help from it; a
region may hold the remains of a predecessor too, so all kernels found are read and any that moves
counts.  Limits: one reading a period; the search takes a second of CPU under emulation, in a worker
thread, so it begins only when it is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from adeos import abi
from adeos.machine import Machine
from watchdog import log
from watchdog.config import VnodeWatch
from watchdog.states import State
from watchdog.unit import Unit, Watched

if TYPE_CHECKING:
    from introspect.kernel import Kernel

SEARCH_AGAIN_S = 2.0
PROGRESS_S = 5.0

Reader = Callable[[], int]
Late = Callable[[float], str]


class Found(NamedTuple):
    """A kernel in a region: reads its jiffies, and tells what is late there (Progress.late)."""

    jiffies: Reader
    late: Late


def readers(machine: Machine, base: int, size: int, watch: VnodeWatch) -> list[Found]:
    """Of every kernel in a region; [] when there is none yet."""
    from introspect.errors import IntrospectError
    from introspect.kernel import Kernel
    from introspect.memory import BufferMemory
    from watchdog.progress import Progress

    memory = BufferMemory([(base, machine.view(base, size))])
    found: list[Found] = []
    for kernel in Kernel.find_all(memory, live=True):
        try:
            address = kernel.symbols.address("jiffies")
        except IntrospectError:
            continue
        late = Progress(kernel, watch.stall_s, watch.hung_s).late
        found.append(Found(_reader(kernel, address), late))
    return found


def _reader(kernel: Kernel, address: int) -> Reader:
    from introspect.errors import IntrospectError

    def read() -> int:
        try:
            return int.from_bytes(kernel.read(address, 8), "little")
        except IntrospectError:
            return 0

    return read


async def follow(machine: Machine, unit: Unit, watched: Watched) -> None:
    """Feed jiffies to the boot watch of one incarnation, as long as it needs them."""
    watch = unit.config.watch
    if watch.agent:
        await asyncio.sleep(watch.boot_timeout_ms / 2000)
    found: list[Found] = []
    before: list[int] = []
    look = time.monotonic() + PROGRESS_S
    looking: asyncio.Task[None] | None = None
    while unit.watched is watched and needed(unit, watched):
        region = unit.region
        if not found and region is not None:
            found = await asyncio.to_thread(_search, machine, region.base, region.size, watch)
            if found:
                log.write("info", "jiffies", vnode=unit.id, kernels=len(found))
            else:
                await asyncio.sleep(SEARCH_AGAIN_S)
                continue
        ticks = [one.jiffies() for one in found]
        watched.boot.vital(sum(ticks), machine.tsc())
        alive = [one for one, was, is_ in zip(found, before, ticks, strict=False) if was != is_]
        before = ticks
        if looking is not None and looking.done():
            looking, look = None, time.monotonic() + PROGRESS_S
        if alive and not watch.agent and looking is None and time.monotonic() > look:
            looking = asyncio.create_task(_look(watched, alive[-1].late))
        await asyncio.sleep(watch.jiffies.period_ms / 1000)


async def _look(watched: Watched, late: Late) -> None:
    """Takes long: jiffies are read meanwhile."""
    watched.late = await asyncio.to_thread(late, time.monotonic())


def _search(machine: Machine, base: int, size: int, watch: VnodeWatch) -> list[Found]:
    from introspect.errors import IntrospectError

    try:
        return readers(machine, base, size, watch)
    except IntrospectError:
        return []


def needed(unit: Unit, watched: Watched) -> bool:
    """Whether nothing better than jiffies tells of this incarnation."""
    if not unit.config.watch.agent:
        return True
    try:
        return unit.vnode.state is State.BOOTING and watched.word() is abi.State.NONE
    except ValueError:
        return False
