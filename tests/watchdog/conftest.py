# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon on a FakeMachine, in this process, with vnodes that beat."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adeos.bridge import RootBridge
from adeos.fake import FakeMachine
from crashdump.store import IncidentStore
from watchdog import daemon, log
from watchdog.client import Client

BEAT_S = 0.005


def tiny_bzimage() -> bytes:
    """The smallest file that adeos.bootparams takes for a 64-bit bzImage."""
    setup_sectors, payload = 3, 0x4000
    image = bytearray((setup_sectors + 1) * 512 + payload)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb\x66"
    image[0x202:0x206] = b"HdrS"
    for fmt, offset, value in (
        ("B", 0x1F1, setup_sectors),
        ("I", 0x1F4, payload // 16),
        ("H", 0x206, 0x20F),
        ("B", 0x211, 1),
        ("I", 0x230, 0x200000),
        ("B", 0x234, 1),
        ("H", 0x236, 0x3),
        ("I", 0x238, 2047),
        ("I", 0x260, 0x400000),
    ):
        struct.pack_into("<" + fmt, image, offset, value)
    return bytes(image)


VNODE = """
[[vnode]]
id = {id}
name = "{name}"
kernel = "vmlinuz"
cpus = {cpus}
memory = "64M"
inject = true
autostart = {autostart}
[vnode.watch]
irq = {{ period_ms = 5, limit_ms = 500 }}
sched = {{ period_ms = 5, limit_ms = 700 }}
user = {{ period_ms = 5, limit_ms = 900 }}
boot_timeout_ms = 1500
probe_ms = 400
[vnode.restart]
intensity = 1000
{restart}
"""


def vnode_text(
    id: int, name: str, cpus: list[int], restart: str = "", autostart: bool = True
) -> str:
    return VNODE.format(
        id=id, name=name, cpus=cpus, restart=restart, autostart=str(autostart).lower()
    )


class LastingMachine(FakeMachine):
    """Outlives its daemons, as the real one does: closing gives up the ownership only."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.starts: list[int] = []

    def start(self, vnode: int, **registers: int) -> int:
        self.starts.append(vnode)
        return super().start(vnode, **registers)

    def close(self) -> None:
        self._claimed = False


class OpenedAgain:
    """Another open file of the same machine: closing it leaves the machine alone."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    def close(self) -> None:
        """Nothing of the machine's."""


class Rig:
    """The daemon in a thread of this process."""

    def __init__(self, directory: Path, machine: FakeMachine, text: str) -> None:
        self.machine = machine
        self.config = directory / "vnodes.toml"
        (directory / "vmlinuz").write_bytes(tiny_bzimage())
        self.config.write_text("[watch]\nrealtime = false\n" + text)
        self.state = directory / "state"
        self.client = Client(directory / "run" / "control.sock", timeout=20)
        self.code: int | None = None
        self.mute: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._beater = threading.Thread(target=self._beat, daemon=True)
        self._end = threading.Event()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            for number, vnode in list(self.machine.vnodes.items()):
                if number not in self.mute:
                    vnode.beat()

    def root(self) -> RootBridge:
        """As the daemon writes it."""
        self.machine.claim()
        try:
            return RootBridge.open(self.machine, writable=True)
        finally:
            self.machine.close()

    def start_and_kill(self, seconds: float) -> None:
        """A daemon that is killed so long after it opened the machine, ready or not."""
        self._loop = None
        self._launch()
        self.until(lambda: self._loop is not None, "a daemon")
        time.sleep(seconds)
        self.kill()

    def start(self) -> Rig:
        self._launch()
        self.until(self._answers, "the daemon answers")
        return self

    def _launch(self) -> None:
        def open_machine(_config: object) -> Any:
            if self.machine.info().owner_pid:
                return OpenedAgain(self.machine)
            self._loop = asyncio.get_running_loop()
            return self.machine

        def run() -> None:
            try:
                self.code = daemon.main(
                    self.config, open_machine=open_machine, dumps_in_process=True
                )
            except RuntimeError:
                self.code = -9  # its loop was stopped under it: see kill()

        self.code = None
        if not self._beater.is_alive():
            self._beater.start()
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def _answers(self) -> bool:
        assert self.code is None, "the daemon ended"
        try:
            return bool(self.client.call("ping")["ok"])
        except Exception:
            return False

    def until(self, true: Callable[[], Any], what: str, limit: float = 20.0) -> None:
        end = time.monotonic() + limit
        while not true():
            assert time.monotonic() < end, f"waited {limit} s for: {what}"
            time.sleep(0.01)

    def wait(self, vnode: int, state: str = "running", incarnation: int = 0) -> dict[str, Any]:
        return self.client.call(
            "wait", vnode=vnode, state=state, incarnation=incarnation, timeout_ms=15_000
        )

    def incidents(self, **query: Any) -> list[Any]:
        with IncidentStore(self.state, read_only=True) as store:
            return store.list(**query)

    def finished(self, count: int) -> list[Any]:
        """The incidents, once `count` of them are closed."""

        def done() -> bool:
            return len([one for one in self.incidents() if one.closed is not None]) >= count

        self.until(done, f"{count} closed incidents")
        return self.incidents()

    def stop(self, vnodes: str = "leave") -> int | None:
        if self._thread is not None and self._thread.is_alive():
            self.client.call("shutdown", vnodes=vnodes)
            self._thread.join(20)
            assert not self._thread.is_alive()
        return self.code

    def kill(self) -> None:
        """Stop the loop wherever it is: every task is cut off at its next await."""
        assert self._thread is not None and self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self._end.set()
        try:
            self.stop()
        finally:
            if self._beater.is_alive():
                self._beater.join(5)


@pytest.fixture
def make_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    monkeypatch.setenv("VNODE_DEBUG_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("VNODE_DEBUG_STATE", str(tmp_path / "state"))
    rigs: list[Rig] = []

    def make(text: str, machine: FakeMachine | None = None) -> Rig:
        rig = Rig(tmp_path, machine or LastingMachine(), text)
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """Two vnodes, "one" on CPU 1 and "two" on CPUs 2 and 3, running."""
    rig = make_rig(vnode_text(1, "one", [1]) + vnode_text(2, "two", [2, 3])).start()
    rig.wait(1)
    rig.wait(2)
    return rig


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    """What daemons have logged since the test began, a line each."""
    lines: list[str] = []

    def sink(record: log.Record) -> None:
        lines.append(log.words(record["event"], record))

    log.sinks.add(sink)
    yield lambda: "\n".join(lines)
    log.sinks.discard(sink)


@pytest.fixture
def rig_tools() -> Any:
    """What tests build rigs from."""
    return SimpleNamespace(
        vnode_text=vnode_text, LastingMachine=LastingMachine, tiny_bzimage=tiny_bzimage
    )
