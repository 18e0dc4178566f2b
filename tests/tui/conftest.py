# SPDX-License-Identifier: GPL-2.0-or-later
"""A dashboard on a fake machine, worked by keys; and screens as text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from crashdump.incident import IncidentState
from crashdump.store import IncidentStore
from debugger.target import KernelTarget
from introspect.printk import LogRecord
from introspect.tasks import Task
from tests.cli.conftest import FakeWorld
from tui.app import Dashboard
from tui.client import Client
from tui.kernels import Cpu, Facts, Kernels, Unreadable
from tui.look import Usage
from watchdog.errors import NoDaemonError

LIMIT_S = 20.0
LIMITS = (300_000, 450_000, 1_000_000, 0)
STAMPS = {
    "fault": 0, "reported": 100_000, "seen": 700_000, "fenced": 2_300_000,
    "captured": 30_000_000, "started": 66_000_000, "running": 2_066_000_000,
}  # fmt: skip


class FakeDaemon:
    """Notes what it is asked; answers as the real one does, or is dead."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.dead = False
        self.error: Exception | None = None

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if self.dead:
            raise NoDaemonError("no daemon at /run/x; start it: vnode-debug up")
        self.asked.append((verb, arguments))
        if self.error is not None:
            raise self.error
        return {"ok": True, "state": "restarting", "taken": 3}


class FakeKernels(Kernels):
    """Kernels that say what they are told to; `logs`, `task_list` and the rest are by vnode."""

    def __init__(self, machine: Any) -> None:
        super().__init__(machine, self._no_target)
        self.logs: dict[int, list[LogRecord]] = {}
        self.task_list: list[Task] = []
        self.fact_list: dict[int, Facts] = {}
        self.slow_s = 0.0

    @staticmethod
    def _no_target(machine: Any, vnode: int, name: str) -> KernelTarget:
        raise Unreadable("no kernel here")

    def log(self, vnode: int) -> list[LogRecord]:
        time.sleep(self.slow_s)
        if vnode not in self.logs:
            raise Unreadable(f"vnode {vnode} has no kernel")
        return self.logs[vnode]

    def tasks(self, vnode: int) -> tuple[list[Task], str]:
        return self.task_list, ""

    def stack(self, vnode: int, task: Task) -> list[str]:
        return [f"stack_of_{task.pid}+0x1/0x2", "ret_from_fork+0x22/0x30"]

    def cpus(self, vnode: int) -> list[Cpu]:
        registers = {"ip": 0xFFFFFFFF81000000, "sp": 0x10, "bp": 0}
        code = ("   0x10: f4  hlt", "=> 0x11: c3  ret")
        return [Cpu(n, "running [sampled]", registers, code, (f"idle_{n}+0x1",)) for n in (0, 1)]

    def measure(self, vnode: int) -> None:
        self._usage[vnode] = Usage(0.25, 16 << 20, 64 << 20)

    def facts(self, vnode: int) -> Facts:
        return self.fact_list[vnode]


class Bench:
    """A fake machine, its daemon, its store, and what the dashboard made of them."""

    def __init__(self, directory: Path) -> None:
        self.world = FakeWorld()
        self.world.daemon()
        self.world.vnode(1, "alpha", limit_us=LIMITS)
        self.world.vnode(2, "beta", limit_us=LIMITS, restarts=3, incidents=2, last_incident=2)
        self.beat(0.5)  # a first beat has no rate
        self.daemon = FakeDaemon()
        self.kernels = FakeKernels(self.world.machine)
        self.directory = directory / "state"
        self.children: list[list[str]] = []
        self.child_code = 0

    def change(self, vnode: int, **changes: Any) -> None:
        """The daemon's word on a vnode changes."""
        status = self.world.root.status(vnode)
        assert status is not None
        self.world.root.publish(status._replace(**changes))

    def beat(self, seconds: float = 1.0, hz: int = 10) -> None:
        """Time goes on, and all that do not hang beat."""
        for _ in range(int(seconds * hz)):
            self.world.clock.advance(1 / hz)
            for vnode in self.world.machine.vnodes.values():
                vnode.beat()
            self.world.tick()

    def incident(self, vnode: int, title: str, **fields: Any) -> int:
        """A closed incident in the store; its number."""
        with IncidentStore(self.directory) as store:
            name = {1: "alpha", 2: "beta"}[vnode]
            made = store.create(vnode=vnode, name=name, incarnation=1, reason="panic", crash=True)
            fields = {"title": title, "outcome": "restarted", "stamps": STAMPS, **fields}
            store.finish(made.id, IncidentState.COMPLETE, **fields)
            (store.path(made.id) / "kmsg.txt").write_text("[ 1.0] the last words\n")
            return made.id

    def client(self) -> Client:
        return Client(
            self.world.machine,
            lambda: self.daemon,  # type: ignore[arg-type,return-value]
            lambda: IncidentStore(self.directory, read_only=True),
            self.kernels,
        )

    @asynccontextmanager
    async def open(
        self, size: tuple[int, int] = (80, 24), **options: Any
    ) -> AsyncIterator[Pilot[None]]:
        """The dashboard on a screen of this size, after its first look."""

        def run(argv: Any) -> int:
            self.children.append(list(argv))
            return self.child_code

        client = options.pop("client", None) or self.client()
        app = Dashboard(client, command=["vnode-debug"], run=run, period=0.25, **options)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(lambda: app.look.wall > 0, "a first look")
            await until(lambda: app.board is not None, "a board")
            await pilot.pause()
            yield pilot


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("VNODE_DEBUG_CONFIG", str(tmp_path / "vnodes.toml"))
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path)
    yield made
    made.world.machine.close()


async def until(true: Callable[[], Any], what: str) -> None:
    """Waits until something is so."""
    end = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end, f"waited {LIMIT_S} s for: {what}"
        await asyncio.sleep(0.02)


def text_of(pilot: Pilot[None]) -> str:
    """The screen as text, a line a row."""
    height = pilot.app.size.height
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips[:height])


async def shows(pilot: Pilot[None], *words: str) -> str:
    """The screen once it shows all these words."""
    end = time.monotonic() + LIMIT_S
    while not all(word in text_of(pilot) for word in words):
        assert time.monotonic() < end, f"waited {LIMIT_S} s for {words} on\n{text_of(pilot)}"
        await asyncio.sleep(0.02)
    return text_of(pilot)


def record(seq: int, text: str, level: int = 6) -> LogRecord:
    return LogRecord(seq, seq * 10**9, level, "", text)


def task(pid: int, ppid: int, comm: str, state: str = "S") -> Task:
    return Task(0x1000 * (pid + 1), pid, pid, ppid, comm, state, 0, False, False, 0, 0)
