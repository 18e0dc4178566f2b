# SPDX-License-Identifier: GPL-2.0-or-later
"""A fake machine that several real processes use: the ownership is a process's, as with kmb.ko.

    hardware = Hardware(directory)          # in the test's process: memory, CPUs, vnodes that beat
    python -m tests.watchdog.hardware DIRECTORY CONFIG [--standby]     # a daemon on it

Calls go over a Unix socket, memory is a shared file.  The owner is the process
whose connection has claimed; when the connection ends, by kill -9 too, it owns no more.
"""

from __future__ import annotations

import mmap
import pickle
import socket
import struct
import sys
import threading
import time
from pathlib import Path

from adeos.abi import Range
from adeos.errors import AdeosError, OwnerError
from adeos.fake import FakeMachine

BEAT_S = 0.005
CALLS = frozenset(
    [
        "info",
        "cpus",
        "bind",
        "unbind",
        "query",
        "start",
        "park",
        "nmi",
        "ipi",
        "clear",
        "claim",
        "successor",
        "arm",
        "disarm",
        "fire",
        "fire_kept",
        "settle",
    ]
)


def send(peer: socket.socket, value: object) -> None:
    data = pickle.dumps(value)
    peer.sendall(struct.pack("<I", len(data)) + data)


def receive(peer: socket.socket) -> object:
    """The next value; EOFError at the end."""
    head = exactly(peer, 4)
    return pickle.loads(exactly(peer, struct.unpack("<I", head)[0]))


def exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = peer.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def shared(directory: Path, part: Range) -> memoryview:
    """Memory that every process sees: a sparse file."""
    with (directory / f"{part.base:x}.mem").open("a+b") as file:
        file.truncate(part.size)
        return memoryview(mmap.mmap(file.fileno(), part.size))


class Hardware(FakeMachine):
    """The machine itself, and its vnodes' beats."""

    def __init__(self, directory: Path, **options: object) -> None:
        super().__init__(**options)
        self.directory = directory
        self._memory = [(part, shared(directory, part)) for part, _ in self._memory]
        self.owner: socket.socket | None = None
        self.owner_pid = 0
        self.claims: list[int] = []
        """Pids in the order in which they became owners."""
        self.starts: list[int] = []
        self.lock = threading.RLock()
        self.bells: list[socket.socket] = []
        self._claimed = True
        self._end = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "hardware.sock"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            for vnode in list(self.vnodes.values()):
                vnode.beat()

    def _accept(self) -> None:
        while not self._end.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        pid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        try:
            while True:
                name, args, options = receive(peer)
                if name == "bell":
                    self.bells.append(peer)
                    return
                try:
                    with self.lock:
                        answer = self._call(peer, pid, name, args, options)
                except AdeosError as error:
                    answer = error
                send(peer, answer)
        except (EOFError, OSError):
            pass
        with self.lock:
            if self.owner is peer:
                self.owner, self.owner_pid = None, 0

    def _call(self, peer, pid, name, args, options) -> object:
        assert name in CALLS
        if name == "claim":
            if self.owner not in (None, peer):
                raise OwnerError(f"process {self.owner_pid} owns the machine")
            self.owner, self.owner_pid = peer, pid
            self.claims.append(pid)
            return None
        if name == "info":
            return super().info()._replace(owner_pid=self.owner_pid)
        if name not in ("cpus", "query", "fire", "fire_kept") and self.owner is not peer:
            raise OwnerError("this process does not own the machine", "claim it first")
        if name == "start":
            self.starts.append(args[0])
        return getattr(super(), name)(*args, **options)

    def ring(self, vnode: int) -> None:
        super().ring(vnode)
        for bell in self.bells:
            try:
                bell.send(b"!", socket.MSG_DONTWAIT)
            except OSError:
                pass

    def close(self) -> None:
        self._end.set()
        self._listener.close()
        super().close()


class RemoteMachine:
    """The machine as a daemon's process has it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._memory: list[tuple[Range, memoryview]] = []
        self._lock = threading.Lock()
        self._peer = self._connect()
        self._bell = self._connect()
        send(self._bell, ("bell", (), {}))
        self._bell.setblocking(False)
        for path in directory.glob("*.mem"):
            part = Range(int(path.stem, 16), path.stat().st_size)
            self._memory.append((part, shared(directory, part)))

    def _connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(self._directory / "hardware.sock"))
        return peer

    def __getattr__(self, name: str):
        if name not in CALLS:
            raise AttributeError(name)

        def call(*args, **options):
            with self._lock:
                send(self._peer, (name, args, options))
                answer = receive(self._peer)
            if isinstance(answer, AdeosError):
                raise answer
            return answer

        return call

    def tsc(self) -> int:
        return time.monotonic_ns()

    def view(self, base: int, size: int, *, writable: bool = False) -> memoryview:
        for part, memory in self._memory:
            if part.contains(Range(base, size)):
                found = memory[base - part.base : base - part.base + size]
                return found if writable else found.toreadonly()
        raise AssertionError(f"{size:#x} bytes at {base:#x}")

    def fileno(self) -> int:
        return self._bell.fileno()

    def events(self) -> list:
        """Rings are not told apart: the tick looks at everything."""
        try:
            while self._bell.recv(4096):
                pass
        except BlockingIOError:
            pass
        return []

    def close(self) -> None:
        self._peer.close()
        self._bell.close()


def main() -> int:
    from watchdog import daemon

    directory, config = map(Path, sys.argv[1:3])
    return daemon.main(
        config,
        open_machine=lambda _config: RemoteMachine(directory),
        dumps_in_process=True,
        standby="--standby" in sys.argv,
    )


if __name__ == "__main__":
    sys.exit(main())
