# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads of a kernel's memory over the GDB protocol: ours against QEMU's own stub.

    .venv/bin/python -m bench.rsp [--rounds 10] [--json]

One stock kernel in QEMU; both servers are asked in turn, by the same client over
Unix sockets: the guest runs while ours answers and stands still while QEMU's
does.  Medians over all reads of all rounds; "ratio" is ours / QEMU's time.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import sys
import time
from binascii import unhexlify
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import rsp_guest
from bench.rsp_guest import Guest
from debugger.packet import frame
from debugger.server import serve

QEMU_CHUNK = 2048  # its packets hold 4096 hex digits
OUR_CHUNK = 65536
SIZES = {"64 B": 64, "4 KiB": 4096, "64 KiB": 65536, "16 MiB": 16 << 20}
READS = {"64 B": 400, "4 KiB": 200, "64 KiB": 40, "16 MiB": 1}


class Reader:
    """A client without acknowledgements where the server knows how.

    It receives into one buffer: bytes of 256 KiB for each answer, from fresh pages of the
    kernel's, cost more than a server's work.
    """

    def __init__(self, path: Path, chunk: int) -> None:
        self.chunk = chunk
        self._buffer = bytearray(1 << 18)
        self._view = memoryview(self._buffer)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.acks = True
        if chunk == QEMU_CHUNK:
            self.socket.sendall(b"\x03")  # stops the guest; a stop reply comes unasked
            self._packet(b"")
        elif self.ask(b"QStartNoAckMode") == b"OK":
            self.acks = False

    def ask(self, payload: bytes) -> bytes:
        return bytes(self._packet(frame(payload)))

    def _packet(self, request: bytes) -> memoryview:
        """The payload of the answer; the next one overwrites it."""
        self.socket.sendall(request)
        size = self.socket.recv_into(self._buffer)
        while self._buffer[size - 3] != ord("#"):
            size += self.socket.recv_into(self._view[size:])
        if self.acks:
            self.socket.sendall(b"+")
        return self._view[self._buffer.index(b"$") + 1 : size - 3]

    def read(self, address: int, size: int) -> bytes:
        """Memory, in as many requests as the server's packets ask for."""
        parts = []
        for at in range(0, size, self.chunk):
            wanted = min(self.chunk, size - at)
            reply = self._packet(frame(b"m%x,%x" % (address + at, wanted)))
            if len(reply) != 2 * wanted:
                raise SystemExit(f"bench: bad reply of {len(reply)} bytes: {bytes(reply[:20])!r}")
            parts.append(unhexlify(reply))
        return b"".join(parts)

    def close(self) -> None:
        self.ask(b"D")
        self.socket.close()


def timed(action: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    spent = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return spent


def floor() -> float:
    """Median seconds of an echo over a socket pair: no server can be faster."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        ours.close()
        while data := theirs.recv(4096):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()

    def echo() -> None:
        ours.sendall(b"m" * 30)
        ours.recv(4096)

    median = statistics.median(timed(echo, 2000))
    ours.close()
    os.waitpid(child, 0)
    return median


@contextmanager
def our_server(guest: Guest, path: Path) -> Iterator[None]:
    """The product's server in a process of its own."""
    target = guest.target()
    child = os.fork()
    if not child:
        try:
            serve(lambda: target, path)
        finally:
            os._exit(1)
    try:
        while not path.exists():
            time.sleep(0.01)
        yield
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        path.unlink(missing_ok=True)


Samples = dict[str, dict[str, list[float]]]


def measure(guest: Guest, directory: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds by size and server."""
    return {
        name: {server: statistics.median(values) for server, values in row.items()}
        for name, row in samples(guest, directory, rounds).items()
    }


def samples(guest: Guest, directory: Path, rounds: int) -> Samples:
    """Seconds of every read, by size and server."""
    kernel = guest.target().kernel
    address = kernel.page_offset + (64 << 20)
    spent: Samples = {name: {"ours": [], "qemu": []} for name in SIZES}
    servers = {
        "ours": (directory / "ours.sock", OUR_CHUNK),
        "qemu": (guest.gdb_socket, QEMU_CHUNK),
    }
    with our_server(guest, servers["ours"][0]):
        for number in range(rounds):
            order = list(servers) if number % 2 else list(servers)[::-1]
            for server in order:
                reader = Reader(*servers[server])
                reader.read(address, 65536)
                for name, size in SIZES.items():
                    if size <= 65536 or number < 3:
                        take = timed(partial(reader.read, address, size), READS[name])
                        spent[name][server] += take
                reader.close()
            if sys.stderr.isatty():
                print(f"round {number + 1}/{rounds}", end="\r", file=sys.stderr)
    return spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if rsp_guest.missing():
        print(f"bench: {rsp_guest.missing()}", file=sys.stderr)
        return 5
    with rsp_guest.alone() as guest:
        medians = measure(guest, guest.directory, options.rounds)
    echo = floor()
    if options.json:
        print(json.dumps({"medians_s": medians, "echo_s": echo}))
        return 0
    print(f"{'read':8} {'ours':>12} {'QEMU stub':>12} {'ratio':>6}   (echo {echo * 1e6:.1f} us)")
    for size, row in medians.items():
        ours, qemu = row["ours"], row["qemu"]
        if SIZES[size] > 1 << 20:
            mib = SIZES[size] / 1e6
            ours_text, qemu_text = f"{mib / ours:.0f} MB/s", f"{mib / qemu:.0f} MB/s"
        else:
            ours_text, qemu_text = f"{ours * 1e6:.1f} us", f"{qemu * 1e6:.1f} us"
        print(f"{size:8} {ours_text:>12} {qemu_text:>12} {ours / qemu:6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
