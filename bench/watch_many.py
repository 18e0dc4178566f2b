# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU share of the watch over many vnodes that beat: python -m bench.watch_many [VNODES] [SECONDS].

The daemon's own loop on bridges in shared memory; another process plays all agents and beats
in three layers at 100 Hz.  One vnode falls silent half way: it must be seen, and no other.
Prints one line; the share is of one core, of the watching process alone.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from adeos import abi
from adeos.bridge import Bridge
from adeos.fake import FakeMachine
from watchdog.config import Config, VnodeConfig
from watchdog.detector import REASONS
from watchdog.events import Silent, Suspected
from watchdog.service import Service
from watchdog.states import State
from watchdog.supervisor import Vnode
from watchdog.unit import Unit, Watched

PERIOD_S = 0.01
INCARNATION = 1


def agents(memory: mmap.mmap, vnodes: int, seconds: float) -> None:
    """Beat for every vnode; the last one stops half way."""
    began = time.monotonic()
    count, due = 1, began
    while (now := time.monotonic()) < began + seconds + 1:
        last = vnodes - (now > began + seconds / 2)
        tsc = time.monotonic_ns()
        beat = abi.BEAT.pack(abi.Beat((count,) * 4, (tsc,) * 4, (0,) * 8))
        for vnode in range(last):
            at = vnode * abi.VN_BRIDGE_SIZE + abi.VN_BR_BEATS
            memory[at : at + len(beat)] = beat
        count += 1
        due += PERIOD_S
        time.sleep(max(due - time.monotonic(), 0))


def service_of(memory: mmap.mmap, vnodes: int) -> tuple[Service, list[Any]]:
    """A service whose vnodes run, and the list its events go to."""
    machine = FakeMachine()
    seen: list[Any] = []
    root: Any = SimpleNamespace(beat=lambda *words: None)
    service = Service(Config(), machine, root, FakeMachine)
    service.post = lambda unit, event: seen.append((unit.id, event))  # type: ignore[method-assign]
    for number in range(1, vnodes + 1):
        at = (number - 1) * abi.VN_BRIDGE_SIZE
        view = memoryview(memory)[at : at + abi.VN_BRIDGE_SIZE]
        for key, value in (
            ("abi", abi.VN_ABI_VERSION),
            ("incarnation", INCARNATION),
            ("state", abi.State.RUNNING),
        ):
            abi.VNODE_SIDE.put(view, abi.VN_BR_VNODE, key, value)
        config = VnodeConfig(id=number, name=f"v{number}", kernel="-", cpus=(1,), memory="64M")
        state = Vnode(state=State.RUNNING, incarnation=INCARNATION, fenced=False)
        unit = Unit(config, state, bridge=Bridge(view))
        assert unit.bridge is not None
        unit.watched = Watched(unit.bridge, config, INCARNATION, service.tsc_khz, machine.tsc())
        service.units[number] = unit
    return service, seen


async def watch(service: Service, seconds: float) -> tuple[float, float]:
    """Run the loop; CPU and wall seconds."""
    await asyncio.sleep(0.5)
    cpu, wall = time.process_time(), time.monotonic()
    service._tick_again()
    await asyncio.sleep(seconds)
    service.done.set()
    return time.process_time() - cpu, time.monotonic() - wall


def main(vnodes: int = 1000, seconds: int = 20) -> None:
    """Measure and print."""
    memory = mmap.mmap(-1, vnodes * abi.VN_BRIDGE_SIZE)
    player = os.fork()
    if not player:
        agents(memory, vnodes, seconds)
        os._exit(0)
    service, seen = service_of(memory, vnodes)
    cpu, wall = asyncio.run(watch(service, seconds))
    os.waitpid(player, 0)
    silent = [event for vnode, event in seen if isinstance(event, Silent) and vnode == vnodes]
    wrong = [(v, e) for v, e in seen if isinstance(e, Silent | Suspected) and v != vnodes]
    assert silent and silent[0].fault.reason == REASONS[0], seen[:5]
    assert not wrong, wrong[:5]
    fault = silent[0].fault
    print(
        f"watch of {vnodes} vnodes at {1 / PERIOD_S:.0f} Hz: {100 * cpu / wall:.1f} % of a core,"
        f" {service.pace.ticks / wall:.0f} ticks/s, {service.pace.late} late,"
        f" worst tick {service.tick_max_ns / 1e6:.1f} ms; the silent one was seen"
        f" {(fault.seen_tsc - fault.fault_tsc) / 1e6:.0f} ms after its last beat"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
