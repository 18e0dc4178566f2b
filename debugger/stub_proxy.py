# SPDX-License-Identifier: GPL-2.0-or-later
"""Run control of a QEMU guest: QEMU's own stub, with memory read from the shared file.

gdb talks to a Proxy, which hands packets on to QEMU's stub and its replies back.
What needs no stopped guest it answers itself: reads of kernel memory, and the
monitor's words, where QEMU has none of that name.  A gdb that vanishes is
detached from QEMU: no breakpoint stays, and the guest runs on.

Limits: threads are CPUs alone; when this process is killed, QEMU's stub keeps
the guest as it is: `gdbserver none` and `cont` in QEMU's monitor let it run.
"""

import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from debugger import gdb, monitor, packet, qemu
from debugger.attach import say, socket_directory
from debugger.errors import CommandError, NothingThere, TargetError
from debugger.packet import Kind, Parser
from debugger.qemu import Guest
from debugger.qmp import Qmp
from debugger.server import listen
from debugger.session import Session
from debugger.target import KernelTarget

_READ = 65536
_LIMIT = 1 << 20
_MEMORY = re.compile(rb"m([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,8})")
_CONNECT_SECONDS = 10.0
_QUIET_SECONDS = 0.1
# "gdb: filename=disconnected:unix:/path,server=on", "...tcp:0.0.0.0:1234,server=on"
_RUNNING = re.compile(r"^gdb: filename=(?:disconnected:)?(unix|tcp):([^,\r\n]+)", re.MULTILINE)


class Proxy:
    """Between one client and QEMU's stub; run() returns when one of them leaves."""

    def __init__(self, client: socket.socket, stub: socket.socket, target: KernelTarget) -> None:
        self._client, self._stub = client, stub
        self._session = Session(target)
        self._target = target
        self._from_client, self._from_stub = Parser(_LIMIT), Parser(_LIMIT)
        self._kernel_half = 1 << 63
        self._last = {client: b"", stub: b""}
        self._detached = False

    def run(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                self._skip_unasked()
                while self._turn():
                    pass
        finally:
            if not self._detached:
                self._let_go()

    def _skip_unasked(self) -> None:
        """QEMU says at once that it has stopped; gdb, which has not asked, drops that."""
        while select.select([self._stub], [], [], _QUIET_SECONDS)[0]:
            data = self._stub.recv(_READ)
            if not data:
                return
            self._stub.sendall(b"+" * len(self._from_stub.feed(data)))

    def _let_go(self) -> None:
        """The client vanished: stop the guest for a moment, remove breakpoints, let it run."""
        with contextlib.suppress(OSError):
            self._stub.sendall(b"\x03" + packet.frame(b"D;1"))
            self._stub.settimeout(1.0)
            self._stub.recv(_READ)  # else the stub sees the end before the packet

    def _turn(self) -> bool:
        for source in select.select([self._client, self._stub], [], [])[0]:
            data = source.recv(_READ)
            if not data:
                return False
            if source is self._client:
                self._take(data)
            else:
                for event in self._from_stub.feed(data):
                    self._hand_over(event, self._stub, self._client)
        return True

    def _take(self, data: bytes) -> None:
        for event in self._from_client.feed(data):
            if event.kind is Kind.INTERRUPT:
                self._stub.sendall(b"\x03")
                continue
            answer = self._answer(event.payload) if event.kind is Kind.PACKET else None
            if answer is None:
                self._detached |= event.payload[:1] == b"D"
                self._hand_over(event, self._client, self._stub)
            else:
                self._client.sendall(b"+")
                self._send(self._client, answer)

    def _hand_over(self, event: packet.Event, source: socket.socket, sink: socket.socket) -> None:
        """A packet goes on; acknowledgements are each side's own affair."""
        match event.kind:
            case Kind.PACKET:
                source.sendall(b"+")
                self._send(sink, packet.frame(event.payload))
            case Kind.DAMAGED:
                source.sendall(b"-")
            case Kind.NAK:
                source.sendall(self._last[source])

    def _send(self, sink: socket.socket, framed: bytes) -> None:
        self._last[sink] = framed
        sink.sendall(framed)

    def _answer(self, payload: bytes) -> bytes | None:
        """Our own reply to a packet; None for those that are QEMU's."""
        match = _MEMORY.fullmatch(payload)
        if match is not None and int(match[1], 16) >= self._kernel_half:
            size = min(int(match[2], 16), packet.PACKET_SIZE // 2)
            try:
                return packet.frame_hex(self._target.read(1, int(match[1], 16), size))
            except TargetError:
                return None  # a device's memory, say
        if payload.startswith(b"qRcmd,"):
            return self._words(payload.removeprefix(b"qRcmd,"))
        return None

    def _words(self, digits: bytes) -> bytes | None:
        try:
            words = bytes.fromhex(digits.decode("ascii")).decode().split()
            monitor.find(words)
        except (ValueError, CommandError):
            return None
        self._target.refresh()
        text = monitor.run(self._session, words)
        return packet.frame_hex(text.encode()) if text else packet.frame(b"OK")


@contextlib.contextmanager
def stub_of(qmp: Qmp, directory: Path) -> Iterator[socket.socket]:
    """A connection to QEMU's stub, which is started, and ended again, when it does not run."""
    running = _RUNNING.search(qmp.monitor("info chardev"))
    if running is None:
        place = directory / "stub"
        said = qmp.monitor(f"gdbserver unix:{place},server=on,wait=off").strip()
        kind, where = "unix", str(place)
    else:
        said, (kind, where) = "", running.groups()
    stub = _connected(kind, where, said)
    try:
        yield stub
    finally:
        stub.close()
        if running is None:
            with contextlib.suppress(TargetError):  # QEMU may be gone
                qmp.monitor("gdbserver none")


def _connected(kind: str, where: str, said: str) -> socket.socket:
    host, _, port = where.rpartition(":")
    end = time.monotonic() + _CONNECT_SECONDS
    while True:
        stub = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        try:
            stub.connect(where if kind == "unix" else (host or "127.0.0.1", int(port)))
            return stub
        except (OSError, ValueError) as error:
            stub.close()
            if time.monotonic() > end:
                why = said or str(error)
                raise NothingThere(f"QEMU's stub at {where} does not answer: {why}") from None
        time.sleep(0.05)


def attach(guest: Guest, gdb_args: Sequence[str] = ()) -> int:
    """Run gdb on a guest that it stops, steps and lets run; gdb's exit status."""
    path = gdb.find()
    qmp = Qmp(guest.qmp)
    with (
        contextlib.closing(qemu.target(guest, qmp)) as target,
        socket_directory() as directory,
        stub_of(qmp, directory) as stub,
        listen(directory / "rsp") as listener,
    ):
        setup = gdb.commands(target.kernel, volatile=True, progress=say)

        def serve() -> None:
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                with client:
                    Proxy(client, stub, target).run()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            return gdb.run(gdb.command_line(path, directory / "rsp", setup, gdb_args))
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=_CONNECT_SECONDS)
