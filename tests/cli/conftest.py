# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: command lines run in this process on a fake machine, with places of their own."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge, RootBridge
from adeos.fake import FakeMachine, FakeVnode, root_side
from cli.main import run

DAEMON_PID = 4711
MIB = 1 << 20


class Result(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]


class ManualClock:
    """A TSC that stands still until it is told to go on; nanoseconds, as TSC_KHZ says."""

    def __init__(self) -> None:
        self.now = 10_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


class FakeWorld:
    """A fake machine with a root bridge that the tests write as a daemon would."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.machine = FakeMachine(clock=self.clock)
        self.machine.claim()
        self.root = RootBridge.open(self.machine, writable=True)

    def daemon(self, pid: int = DAEMON_PID) -> None:
        """A daemon has started, and its watch tick is fresh."""
        tsc = self.clock()
        self.root.init(
            abi.RootHead(0, abi.VN_ABI_VERSION, pid, 1, tsc, tsc, 1_000_000, 0, 10_000, 0)
        )
        self.tick()

    def tick(self) -> None:
        """A watch tick."""
        self.root.beat(int(self.clock() // 10_000_000), self.clock(), 0)

    def vnode(self, number: int, name: str, **changes: object) -> FakeVnode:
        """A running vnode with 64 MiB on CPU `number`; changes are made to its status."""
        region = Range(0x20200000 + (number - 1) * 64 * MIB, 64 * MIB)
        slot = Range(0x10000 * number, 0x10000)
        binding = self.machine.bind(number, [number], region, slot)
        bridge = Bridge.open(self.machine, region, writable=True)
        side = root_side(
            number,
            1,
            1,
            region_base=region.base,
            region_size=region.size,
            slot_base=slot.base,
            slot_size=slot.size,
            tsc_khz=1_000_000,
            name=name,
        )
        bridge.init(side)
        self.machine.start(
            number,
            cr3=slot.base + 0x1000,
            entry=region.base + 0x1000000,
            rsi=region.base + 0x10000,
        )
        self.publish(number, name, region, slot, binding.cpus, **changes)
        return self.machine.vnodes[number]

    def publish(
        self,
        number: int,
        name: str,
        region: Range,
        slot: Range,
        cpus: Sequence[int],
        **changes: object,
    ) -> None:
        """The daemon's word on a vnode."""
        blank = abi.STATUS.unpack(bytes(abi.STATUS.size))
        status = blank._replace(
            id=number,
            state=abi.StatusState.RUNNING,
            incarnation=1,
            since_tsc=self.clock(),
            region_base=region.base,
            region_size=region.size,
            slot_base=slot.base,
            slot_size=slot.size,
            ncpus=len(cpus),
            name=name,
            cpu=tuple(cpus),
        )
        self.root.publish(status._replace(**changes))


@pytest.fixture
def world() -> Iterator[FakeWorld]:
    """A fake machine with two vnodes, 1 (alpha) and 2 (beta), and a living daemon."""
    made = FakeWorld()
    made.daemon()
    made.vnode(1, "alpha")
    made.vnode(2, "beta", restarts=3, incidents=4, last_incident=9, incarnation=1)
    yield made
    made.machine.close()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config, run and state directories of this test; no box, no colours."""
    for name, path in (
        ("VNODE_DEBUG_CONFIG", "vnodes.toml"),
        ("VNODE_DEBUG_RUN", "run"),
        ("VNODE_DEBUG_STATE", "state"),
        ("VNODE_DEBUG_BOX", "box"),
    ):
        monkeypatch.setenv(name, str(tmp_path / path))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.fixture
def call(places: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line: call("status", "--json", world=world)."""

    def call_it(*arguments: str, world: FakeWorld | None = None, machine: Any = None) -> Result:
        capfd.readouterr()
        on = machine if world is None else world.machine
        code = run(arguments, machine=None if on is None else lambda: on)
        out, err = capfd.readouterr()
        return Result(int(code), out, err)

    return call_it
