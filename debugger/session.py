# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's session with a target: bytes in, bytes out, no I/O of its own.

The session keeps what the protocol makes stateful: acknowledgements, what both
sides can do, the selected thread, whether the client believes the target runs.
What each packet means is in handlers.TABLE.
"""

import logging
from enum import Enum

from adeos.text import printable
from debugger import packet
from debugger.errors import TargetError
from debugger.packet import Event, Kind
from debugger.target import Change, Target, Thread

_log = logging.getLogger(__name__)

SIGINT = 2
SIGTRAP = 5


class Phase(Enum):
    """Where a session is."""

    STOPPED = "stopped"
    """The client may ask; the target itself may well run on (watching)."""
    RESUMED = "resumed"
    """The client waits for a stop reply: until Ctrl-C or until something happens."""
    CLOSED = "closed"
    """Detached or killed: the connection is to be closed after the last bytes."""


class Hex(bytes):
    """A reply that goes out in hex digits."""

    __slots__ = ()


Reply = bytes | None
"""An escaped payload; None when the reply comes later."""


class Failure(Exception):
    """A handler's error reply: errno `code`, `text` for clients that take it.

    `always` sends the text even to a client that did not ask for error texts: gdb 13
    shows it for packets that write, but stumbles over it when it reads memory.
    """

    def __init__(self, code: int, text: str, *, always: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.always = always


EFAULT = 14
EINVAL = 22


class Session:
    """One client, one target."""

    def __init__(self, target: Target) -> None:
        from debugger.handlers import dispatch  # which needs this module

        self._dispatch = dispatch
        self.target = target
        self.phase = Phase.STOPPED
        self.acks = True
        self.error_texts = False
        self.multiprocess = False
        self.physical = False
        self.focus = target.focus  # what stop replies name, so that gdb does not switch threads
        self.tid = self.focus  # what `g`, `m` and the like are about
        self.breakpoint_refused = False
        self._parser = packet.Parser()
        self._last = b""
        self._extra: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Take what the client sent; return what to send it."""
        out = [self._take(event) for event in self._parser.feed(data)]
        return out[0] if len(out) == 1 else b"".join(out)

    def poll(self) -> bytes:
        """While RESUMED: a stop or exit reply when something happened to the target."""
        change = self.target.change() if self.phase is Phase.RESUMED else None
        if change is None:
            return b""
        if change.gone:
            return self._send(self.end(change))
        self.say(f"{self.target.identity.name}: {change.text}")
        self.focus = self.target.focus
        return self._send(self.stop(SIGTRAP))

    def end(self, change: Change) -> bytes:
        """The exit reply: the kernel that was looked at is no more."""
        self.phase = Phase.STOPPED
        self.say(f"{self.target.identity.name}: {change.text}")
        return b"X09" + (b";process:%x" % self.target.identity.number if self.multiprocess else b"")

    def say(self, text: str) -> None:
        """A line for the client's console; goes out before the next stop reply only."""
        line = f"{printable(text.encode())}\n"
        self._extra.append(packet.frame(b"O" + line.encode().hex().encode()))

    def stop(self, signal: int) -> bytes:
        """The stop reply of a stop event that happens now."""
        self.phase = Phase.STOPPED
        self.target.refresh()
        return self.stop_reply(signal)

    def stop_reply(self, signal: int) -> bytes:
        """The stop reply for the state as it is."""
        if self.target.thread(self.focus) is None:  # a task that has ended, or runs now
            self.focus = self.target.focus
        self.tid = self.focus
        thread = self.thread(b"%x" % self.focus)
        return b"T%02xthread:%b;core:%x;" % (signal, self.ident(thread.tid), thread.cpu)

    def ident(self, tid: int) -> bytes:
        """A thread id as this client wants it."""
        if self.multiprocess:
            return b"p%x.%x" % (self.target.identity.number, tid)
        return b"%x" % tid

    def thread(self, ident: bytes) -> Thread:
        """The thread of an id on the wire; 0 and -1 give the selected one."""
        process, dot, text = ident.rpartition(b".")
        try:
            if dot and int(process.removeprefix(b"p"), 16) not in (
                -1,
                0,
                self.target.identity.number,
            ):
                raise Failure(EINVAL, "no such process")
            if not dot and text.startswith(b"p"):  # a process without a thread
                text = b"0"
            tid = int(text, 16)
        except ValueError:
            raise Failure(EINVAL, "malformed thread id") from None
        if tid <= 0:
            tid = self.tid
        thread = self.target.thread(tid)
        if thread is None:
            raise Failure(EINVAL, f"no thread {tid}")
        return thread

    def _take(self, event: Event) -> bytes:
        match event.kind:
            case Kind.PACKET:
                ack = b"+" if self.acks else b""
                return ack + self._answer(event.payload)
            case Kind.DAMAGED:
                _log.debug("damaged packet dropped")
                return b"-" if self.acks else b""
            case Kind.NAK:
                return self._last if self.acks else b""
            case Kind.INTERRUPT:
                return self._interrupt()
            case Kind.ACK:
                return b""

    def _interrupt(self) -> bytes:
        if self.phase is not Phase.RESUMED:
            return b""
        return self._send(self.stop(SIGINT))

    def _answer(self, payload: bytes) -> bytes:
        try:
            reply = self._dispatch(self, payload)
        except Failure as failure:
            reply = self._error(failure)
        except TargetError as error:
            reply = self._error(Failure(EFAULT, str(error)))
        except Exception:  # a mistake here must not end the user's session
            _log.exception("packet %r failed", payload[:80])
            reply = self._error(Failure(1, "internal error of the server"))
        return b"" if reply is None else self._send(reply)

    def _error(self, failure: Failure) -> bytes:
        if self.error_texts or failure.always:
            return b"E." + packet.escape(str(failure).encode("ascii", "replace"))
        return b"E%02x" % failure.code

    def _send(self, reply: bytes) -> bytes:
        framed = packet.frame_hex(reply) if type(reply) is Hex else packet.frame(reply)
        if self._extra:
            framed = b"".join([*self._extra, framed])
            self._extra.clear()
        self._last = framed
        return framed
