# SPDX-License-Identifier: GPL-2.0-or-later
"""A target built in code, and a client that speaks the protocol by script."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from bench import rsp_guest
from bench.rsp_guest import Guest
from debugger import gdb, packet
from debugger.errors import AddressError, TargetError
from debugger.packet import Kind, Parser
from debugger.registers import Values
from debugger.server import Server
from debugger.session import Session
from debugger.target import Change, Identity, KernelTarget, Liveness, Thread
from introspect.errors import NotFound
from introspect.kallsyms import SymbolTable
from introspect.modules import Module
from introspect.printk import LogRecord
from introspect.symbols import Symbols
from introspect.tasks import Task

BASE = 0xFFFFFFFF81000000
GDBS = [
    path
    for path in (shutil.which("gdb"), os.environ.get("VNODE_DEBUG_TEST_GDB"))
    if path is not None and Path(path).exists()
]


class PlainTarget:
    """Two CPUs and 8 KiB of memory at BASE; the same bytes are physical memory at 0."""

    def __init__(self, liveness: Liveness = Liveness.RUNNING) -> None:
        self.identity = Identity(2, "web")
        self.liveness = liveness
        self.memory = bytearray(range(256)) * 32
        self.values: dict[int, dict[str, int]] = {
            1: {"rip": BASE + 0x10, "rax": 0x1122334455667788, "eflags": 0x246},
            2: {"rip": BASE + 0x20, "cr3": 0x1000},
        }
        self.focus = 1
        self.refreshed = 0
        self.next_change: Change | None = None
        self.pilot = None

    def threads(self) -> Sequence[Thread]:
        return [Thread(tid, "web", f"CPU {tid - 1} <running>", tid - 1) for tid in (1, 2)]

    def thread(self, tid: int) -> Thread | None:
        return next((thread for thread in self.threads() if thread.tid == tid), None)

    def tasks(self) -> tuple[Sequence[Task], str]:
        init = Task(0x1000, 1, 1, 0, "in\x1bit", "S", 0, False, False, 0, 0)
        worker = Task(0x2000, 7, 7, 2, "kworker", "I", 1, True, True, 0, 0)
        return [init, worker], "only these"

    def log(self) -> Iterable[LogRecord]:
        return [LogRecord(n, n * 10**9, 6, 0, f"line {n}\x1b[2J") for n in range(200)]

    def registers(self, tid: int) -> Values:
        if tid not in self.values:
            raise TargetError(f"no thread {tid}")
        return self.values[tid]

    def read(self, tid: int, address: int, size: int) -> bytes:
        if not BASE <= address < BASE + len(self.memory):
            raise AddressError(address, size, "not mapped")
        return bytes(self.memory[address - BASE : address - BASE + size])

    def read_physical(self, address: int, size: int) -> bytes:
        if address + size > len(self.memory):
            raise AddressError(address, size, "not RAM of this vnode")
        return bytes(self.memory[address : address + size])

    def regions(self) -> Sequence[tuple[int, int]]:
        return [(0, 1 << 47), (BASE, len(self.memory))]

    def refresh(self) -> None:
        self.refreshed += 1

    def forget_registers(self, tid: int) -> None:
        self.refreshed += 1

    def change(self) -> Change | None:
        return self.next_change

    def describe(self) -> Mapping[str, str]:
        return {"vnode": "2 (web)"}


class PlainKernel:
    """A kernel that has symbols and nothing else: no BTF, no ORC, no memory."""

    def __init__(self, table: SymbolTable, kaslr_offset: int, build_id: str = "") -> None:
        self.symbols = Symbols(table)
        self.kaslr_offset = kaslr_offset
        self.build_id = build_id
        self.release = "6.1.0-1-test"

    @property
    def orc(self) -> None:
        raise NotFound("no ORC")

    btf = orc

    def modules(self) -> Iterator[Module]:
        return iter(())


class Client:
    """Asks a session; replies are the payloads, still escaped, console output apart."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.console = ""

    def raw(self, data: bytes) -> list[bytes]:
        """The payloads of all packets sent back for these bytes."""
        return self.payloads(self.session.feed(data))

    def payloads(self, answer: bytes) -> list[bytes]:
        payloads = []
        for event in Parser().feed(answer):
            if event.kind is Kind.PACKET and event.payload[:1] == b"O" and len(event.payload) > 2:
                self.console += bytes.fromhex(event.payload[1:].decode()).decode()
            elif event.kind is Kind.PACKET:
                payloads.append(event.payload)
        return payloads

    def ask(self, payload: bytes) -> bytes:
        """The one reply to a packet."""
        (reply,) = self.raw(packet.frame(payload))
        return reply

    def words(self, command: str) -> str:
        """The output of a monitor command."""
        reply = self.ask(b"qRcmd," + command.encode().hex().encode())
        return bytes.fromhex(reply.decode()).decode()


@pytest.fixture
def target() -> PlainTarget:
    return PlainTarget()


@pytest.fixture
def client(target: PlainTarget) -> Client:
    return Client(Session(target))


@pytest.fixture
def dead_client() -> Client:
    return Client(Session(PlainTarget(Liveness.DEAD)))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    shared_cache: Path,
    request: pytest.FixtureRequest,
) -> None:
    """A cache of its own for each test; those with a guest share one: symbols are made once."""
    on_a_guest = {"guest", "dead"} & {*request.fixturenames}
    place = shared_cache if on_a_guest else tmp_path / "cache"
    monkeypatch.setenv("VNODE_DEBUG_CACHE", str(place))


@pytest.fixture(scope="module")
def guest(busy_guest: Guest) -> Iterator[Guest]:
    """A running kernel for all tests that leave it as they found it: running, with its shell.

    It is stopped between modules: what other tests measure has the host's CPUs.
    """
    busy_guest.qmp("cont")
    yield busy_guest
    busy_guest.qmp("stop")


@pytest.fixture(scope="session")
def busy_guest() -> Iterator[Guest]:
    """The machine of `guest`."""
    noise = b"while :; do cat /proc/uptime >/dev/null; done\n"
    with rsp_guest.alone(extra={"noise": noise}) as running:
        # an idle kernel stops its jiffies, and opens no files
        running.shell("sh /noise &")
        yield running


@pytest.fixture(scope="session")
def dead() -> Iterator[Guest]:
    """Another one, which has panicked and is stopped."""
    with rsp_guest.alone() as running:
        running.shell("while :; do :; done &")
        stop_in_panic(running)
        yield running


def stop_in_panic(guest: Guest) -> None:
    """Let it panic and stop it, no CPU in an interrupt: the last loop of panic() takes them."""
    guest.panic()
    symbols = guest.target(dead=True).kernel.symbols
    for _ in range(200):
        guest.qmp("stop")
        names = {symbols.lookup(values["rip"])[0] for values in guest.registers()}
        if names & {"delay_tsc", "panic"}:
            return
        guest.qmp("cont")
    raise AssertionError(names)


@pytest.fixture(scope="session")
def vmcore(dead: Guest) -> Path:
    """A dump of the dead one."""
    path = dead.directory / "vmcore"
    dead.qmp("dump-guest-memory", paging=False, protocol=f"file:{path}")
    return path


def ask_gdb(
    program: str, target: KernelTarget, commands: Sequence[str], timeout: float = 120
) -> str:
    """What gdb says to commands, each under its own headline."""
    args = ["-nx", "--batch"]
    for command in commands:
        args += ["-ex", f"echo \\n<{command}>\\n", "-ex", command]
    path = Path(os.environ["VNODE_DEBUG_CACHE"]) / "rsp.sock"
    server = Server(lambda: target, path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        setup = gdb.commands(target.kernel, volatile=True)
        line = gdb.command_line(program, path, setup, args)
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
    finally:
        server.close()
    assert done.returncode in (0, 1), done.stderr  # 1: the last command failed
    return done.stdout + done.stderr


def under(output: str, command: str) -> str:
    """The part of the output under a headline."""
    return output.partition(f"<{command}>\n")[2].partition("\n<")[0].strip()
