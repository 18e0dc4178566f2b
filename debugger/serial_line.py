# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb on a stub at the end of a serial line that is a console as well: kgdb, or any RSP stub.

    attach("serial:/dev/ttyS0,115200", gdb_args)

The line is shared: gdb talks through a Unix socket, the console is a pty whose
path is printed.  What lies where, splitter.py tells.  The console may be left
unread: it then keeps its last bytes.

Limits: one gdb; what is typed on the console while gdb waits reaches the stub too.
"""

import contextlib
import os
import select
import socket
import threading
import time
import tty
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import serial

from debugger import gdb
from debugger.attach import say, socket_directory
from debugger.errors import NothingThere, WrongTarget
from debugger.server import listen
from debugger.splitter import HOLD_SECONDS, Splitter

PREFIX = "serial:"
BAUD = 115200
_READ = 4096
_BACKLOG = 1 << 16
_BREAK_SECONDS = 0.25
_INTERRUPT = b"\x03"


class Line(NamedTuple):
    """A serial line: a device, a pty, or a URL of pyserial.

    `sysrq`: an interrupt is a break and g, as kgdb wants it, and not Ctrl-C.
    """

    device: str
    baud: int
    sysrq: bool

    @classmethod
    def parse(cls, text: str) -> "Line":
        """ "serial:DEVICE[,BAUD][,sysrq]"; WrongTarget."""
        device, *words = text.removeprefix(PREFIX).split(",")
        sysrq = words[-1:] == ["sysrq"]
        rates = words[:-1] if sysrq else words
        is_rate = len(rates) < 2 and all(word.isascii() and word.isdigit() for word in rates)
        if not device or not is_rate or len("".join(rates)) > 8:
            raise WrongTarget(f"{text}: a serial line is serial:DEVICE[,BAUD][,sysrq]")
        return cls(device, int(rates[0]) if rates else BAUD, sysrq)

    def open(self) -> serial.SerialBase:
        """The port, which never blocks a read; NothingThere."""
        try:
            port = serial.serial_for_url(self.device, self.baud, timeout=0)
            port.fileno()
            if "://" not in self.device:
                port.exclusive = True
        except (OSError, ValueError, AttributeError) as error:  # SerialException is an OSError
            words = " ".join(str(error).split()) or type(error).__name__
            raise NothingThere(
                f"{self.device}: cannot be opened as a serial line: {words}"
            ) from None
        return port


class Sharer:
    """Carries bytes between a line, a console and one gdb at a time, in a thread of its own."""

    def __init__(self, port: serial.SerialBase, listener: socket.socket, *, sysrq: bool) -> None:
        self._port = port
        self._listener = listener
        self._sysrq = sysrq
        self._gdb: socket.socket | None = None
        self._splitter = Splitter()
        self._backlog = b""
        self._console, self._terminal = os.openpty()
        tty.setraw(self._terminal)  # held open: without it reading gives EIO
        os.set_blocking(self._console, False)
        self.console = os.ttyname(self._terminal)
        self._wake, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        for descriptor in (self._console, self._terminal, self._wake, self._end):
            os.close(descriptor)
        self._port.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the line is gone: gdb sees its connection end
            while self._turn():
                pass
        self._leave()
        self._listener.close()

    def _turn(self) -> bool:
        """Wait for bytes from somewhere and carry them on; False when it is to end."""
        sources: list[int | socket.socket] = [self._port.fileno(), self._console, self._wake]
        sources.append(self._gdb or self._listener)
        sinks = [self._console] if self._backlog else []
        wait = HOLD_SECONDS if self._splitter.holding else None
        ready, writable, _ = select.select(sources, sinks, [], wait)
        if self._wake in ready:
            return False
        if self._port.fileno() in ready:
            self._from_line(self._port.read(_READ))
        if self._gdb in ready:
            self._from_gdb()
        elif self._listener in ready:
            self._gdb, _ = self._listener.accept()
            self._splitter.attach()
        if self._console in ready:
            self._port.write(os.read(self._console, _READ))
        self._show(self._splitter.expire(time.monotonic()))
        if writable:
            self._show(b"")
        return True

    def _from_line(self, data: bytes) -> None:
        console, packets = self._splitter.feed(data, time.monotonic())
        self._show(console)
        if packets and self._gdb is not None:
            with contextlib.suppress(ConnectionError):  # it left: _from_gdb() sees that
                self._gdb.sendall(packets)

    def _from_gdb(self) -> None:
        assert self._gdb is not None
        try:
            data = self._gdb.recv(_READ)
        except ConnectionError:
            data = b""
        if not data:
            self._leave()
            return
        self._splitter.sent(data)
        if self._sysrq and data == _INTERRUPT:
            self._port.send_break(_BREAK_SECONDS)
            data = b"g"
        self._port.write(data)

    def _leave(self) -> None:
        if self._gdb is not None:
            self._gdb.close()
            self._gdb = None
        self._show(self._splitter.detach())

    def _show(self, text: bytes) -> None:
        self._backlog = (self._backlog + text)[-_BACKLOG:]
        if self._backlog:
            with contextlib.suppress(BlockingIOError):
                self._backlog = self._backlog[os.write(self._console, self._backlog) :]


@contextlib.contextmanager
def shared(text: str) -> Iterator[tuple[str, str]]:
    """(console's path, gdb's socket) of a line while in the block; WrongTarget, NothingThere."""
    line = Line.parse(text)
    with socket_directory() as directory, contextlib.closing(line.open()) as port:
        path = directory / "rsp"
        with listen(path) as listener:
            sharer = Sharer(port, listener, sysrq=line.sysrq)
            try:
                yield sharer.console, str(path)
            finally:
                sharer.close()


def attach(text: str, gdb_args: Sequence[str] = ()) -> int:
    """Run gdb on the stub of a serial line until the user leaves it; gdb's exit status."""
    from pathlib import Path

    path = gdb.find()
    with shared(text) as (console, place):
        say(f"the console of this line is at {console}")
        return gdb.run(gdb.command_line(path, Path(place), (), gdb_args))
