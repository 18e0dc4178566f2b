# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU time of one watch tick over N vnodes that beat: python -m bench.watch_tick [VNODES] [TICKS].

Runs the daemon's own tick on a machine in memory; natively or in the box
(there the limit is 2 ms for 3 vnodes).  Prints one line, microseconds.
"""

from __future__ import annotations

import statistics
import sys
import time

from msgspec.structs import replace

from adeos import abi
from adeos.abi import Range
from adeos.bridge import RootBridge
from adeos.fake import FakeMachine
from watchdog.config import Config, VnodeConfig
from watchdog.placement import Placement
from watchdog.service import Service
from watchdog.states import State
from watchdog.unit import Watched


def build(vnodes: int) -> Service:
    """A service whose vnodes run; no threads, no loop."""
    machine = FakeMachine(
        ncpus=vnodes,
        ranges=(Range(0x100000000, (vnodes + 1) << 26),),
        low=Range(0x10000, (vnodes + 1) << 16),
    )
    machine.claim()
    configs = tuple(
        VnodeConfig(id=n, name=f"v{n}", kernel="-", cpus=(n,), memory="64M")
        for n in range(1, vnodes + 1)
    )
    service = Service(
        Config(vnode=configs), machine, RootBridge.open(machine, writable=True), FakeMachine
    )
    placement = Placement(machine)
    for unit in service.units.values():
        placement.place(unit)
        assert unit.region is not None and unit.slot is not None and unit.bridge is not None
        tables = unit.slot.base + abi.VN_SLOT_PAGE_TABLES
        machine.start(unit.id, cr3=tables, entry=unit.region.base, rsi=unit.region.base)
        unit.watched = Watched(unit.bridge, unit.config, 0, service.tsc_khz, machine.tsc())
        unit.vnode = replace(unit.vnode, state=State.RUNNING, fenced=False)
    return service


def main(vnodes: int = 3, ticks: int = 2000) -> None:
    """Measure and print."""
    service = build(vnodes)
    machine = service.machine
    assert isinstance(machine, FakeMachine)
    costs = []
    for _ in range(ticks):
        for vnode in machine.vnodes.values():
            vnode.beat()
        began = time.thread_time_ns()
        service.tick()
        costs.append((time.thread_time_ns() - began) / 1000)
    running = sum(unit.vnode.state is State.RUNNING for unit in service.units.values())
    assert running == vnodes, "a beating vnode was judged"
    costs.sort()
    print(
        f"watch tick, {vnodes} vnodes, {ticks} ticks: median {statistics.median(costs):.1f} us,"
        f" p99 {costs[int(len(costs) * 0.99)]:.1f} us, max {costs[-1]:.1f} us"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
