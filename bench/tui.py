# SPDX-License-Identifier: GPL-2.0-or-later
"""What the dashboard costs: python -m bench.tui [first|refresh|key|idle]...

first    from the start of a process to the first screen with rows, on a terminal of its own
refresh  a look at 256 vnodes, all of which changed, on the UI loop
key      from a key to the screen that shows it, with 256 vnodes beating at 100 Hz
idle     CPU time in use with 3 vnodes that beat, of one core

The vnodes are on a machine in memory, so these are figures of a machine that does nothing else;
256 are made up above the machine, which has room for 31.  A line a figure, milliseconds or percent.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge, RootBridge
from adeos.fake import FakeMachine, root_side
from crashdump.store import IncidentStore
from tui.app import Dashboard
from tui.client import Client
from tui.look import LAYERS, Look, Vnode
from tui.screens.overview import Overview
from watchdog.observe import Layer, Row

MANY = 256
SIZE = (160, 48)
ROUNDS = 60
FIRST_ROUNDS = 5
IDLE_S = 10.0
STARTED = """
import bench.tui
bench.tui.dashboard(3).run()
"""


def machine(vnodes: int) -> FakeMachine:
    """A machine with so many vnodes that run, and a daemon that watches."""
    made = FakeMachine(ncpus=vnodes, ranges=(Range(0x100000000, (vnodes + 1) << 26),))
    made.claim()
    root = RootBridge.open(made, writable=True)
    now = made.tsc()
    head = abi.RootHead(0, abi.VN_ABI_VERSION, os.getpid(), 1, now, now, 1_000_000, 0, 10_000, 0)
    root.init(head)
    for number in range(1, vnodes + 1):
        region = Range(made.ranges[0].base + ((number - 1) << 26), 1 << 26)
        slot = Range(0x10000 * number, 0x10000)
        made.bind(number, [number], region, slot)
        Bridge.open(made, region, writable=True).init(root_side(number, 1, 1))
        made.start(
            number, cr3=slot.base + 0x1000, entry=region.base + 0x1000000, rsi=region.base
        )  # fmt: skip
        status = abi.STATUS.unpack(bytes(abi.STATUS.size))._replace(
            id=number, state=abi.StatusState.RUNNING, incarnation=1, since_tsc=now, ncpus=1,
            region_base=region.base, region_size=region.size, name=f"v{number}", cpu=(number,),
            limit_us=(300_000, 450_000, 1_000_000, 0),
        )  # fmt: skip
        root.publish(status)
    return made


class Crowd(Client):
    """A client whose machine has more vnodes than any: their beats are made up."""

    def look(self) -> Look:
        look = super().look()
        now = time.time()
        return look._replace(vnodes=tuple(_vnode(n, now) for n in range(1, MANY + 1)), wall=now)


def _vnode(number: int, now: float) -> Vnode:
    """Beats at 100 Hz, with a rate that is another at each look."""
    rate = 95 + (now * 1000 + number) % 10
    layers = {name: Layer(int(now * 100), rate, 0.005) for name in LAYERS}
    row = Row(
        id=number,
        name=f"v{number}",
        state="running",
        reason="",
        state_age_s=now % 1000,
        incarnation=1,
        uptime_s=now % 1000,
        cpus=(number,),
        memory=1 << 28,
        region=0,
        restarts=0,
        restarts_left=10,
        incidents=0,
        last_incident=0,
        release="6.1.0",
        way="cold",
        image_age_s=None,
        fire="",
        grants=(),
        beats=(layers,),
    )
    return Vnode(row, (0.3, 0.45, 1.0))


def dashboard(vnodes: int, client: type[Client] = Client) -> Dashboard:
    """The dashboard on a machine in memory."""
    directory = Path(tempfile.mkdtemp())
    made = client(machine(vnodes), _no_daemon, lambda: IncidentStore(directory, read_only=True))
    return Dashboard(made)


def _no_daemon() -> Any:
    raise RuntimeError("a benchmark asks nothing of a daemon")


def first() -> Iterator[str]:
    """On a pseudo-terminal, as a user starts it."""
    found = [_first_once() for _ in range(FIRST_ROUNDS)]
    yield f"first paint: median {statistics.median(found):.0f} ms, worst {max(found):.0f} ms"


def _first_once() -> float:
    ours, theirs = pty.openpty()
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", STARTED], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "48"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while b"running" not in seen:
            if not select.select([ours], [], [], 30)[0]:
                raise TimeoutError(f"no screen after 30 s: {seen[-500:]!r}")
            seen += os.read(ours, 65536)
        return (time.monotonic() - began) * 1000
    finally:
        child.kill()
        child.wait()
        os.close(ours)


@asynccontextmanager
async def overview(app: Dashboard) -> AsyncIterator[Overview]:
    """The first screen, at rest."""
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(1.5)
        board = app.screen
        assert isinstance(board, Overview)
        yield board


async def _refresh() -> list[float]:
    app = dashboard(3, Crowd)
    costs = []
    async with overview(app) as board:
        for _ in range(ROUNDS):
            look = app.client.look()
            began = time.thread_time()
            board.show(look)
            # what was marked dirty is drawn by the next turn of the loop
            board._compositor.render_strips()
            costs.append((time.thread_time() - began) * 1000)
            await asyncio.sleep(0.02)
    return costs


def refresh() -> Iterator[str]:
    """Rows compared, changed lines drawn; CPU time of the UI thread."""
    found = asyncio.run(_refresh())
    yield (
        f"refresh of {MANY} vnodes: median {statistics.median(found):.1f} ms, "
        f"worst {max(found):.1f} ms"
    )


async def _key() -> list[float]:
    app = dashboard(3, Crowd)
    costs = []
    async with overview(app) as board:
        for _ in range(ROUNDS):
            before, began = board.grid.cursor_key, time.monotonic()
            app.simulate_key("down")
            while board.grid.cursor_key == before:
                await asyncio.sleep(0)
            board._compositor.render_strips()
            costs.append((time.monotonic() - began) * 1000)
            await asyncio.sleep(0.03)
    return costs


def key() -> Iterator[str]:
    """Wall time, looks at all of them going on meanwhile."""
    found = asyncio.run(_key())
    yield f"key to screen: median {statistics.median(found):.1f} ms, worst {max(found):.1f} ms"


@contextmanager
def _beating(made: FakeMachine) -> Iterator[None]:
    """Beats at 100 Hz from outside the process that is measured would need shared memory; a task
    of its own loop beats at 10 Hz, which costs under 0.1 % of a core."""

    async def beat() -> None:
        root = RootBridge.open(made, writable=True)
        count = 1
        while True:
            count += 1
            root.beat(count, made.tsc(), 0)
            for vnode in made.vnodes.values():
                vnode.beat()
            await asyncio.sleep(0.1)

    task = asyncio.get_running_loop().create_task(beat())
    try:
        yield
    finally:
        task.cancel()


async def _idle() -> float:
    app = dashboard(3)
    made = app.client._machine
    assert isinstance(made, FakeMachine)
    async with app.run_test(size=SIZE) as pilot:
        with _beating(made):
            await pilot.pause(3)
            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.sleep(IDLE_S)
            return (time.process_time() - cpu) / (time.monotonic() - wall) * 100


def idle() -> Iterator[str]:
    """All threads of the process."""
    yield f"idle with 3 vnodes: {asyncio.run(_idle()):.1f} % of a core"


PARTS = {"first": first, "refresh": refresh, "key": key, "idle": idle}


def main(names: list[str]) -> None:
    """The parts named, all of them when none is."""
    for name in names or PARTS:
        for line in PARTS[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
