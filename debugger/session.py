# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's session with a target: bytes in, bytes out, no I/O of its own.

The session keeps what the protocol makes stateful: acknowledgements, what both
sides can do, the selected thread, whether the client believes the target runs.
What each packet means is in handlers.TABLE.
"""

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum

from adeos.text import printable
from debugger import nonstop, packet
from debugger.errors import TargetError
from debugger.nonstop import Stops
from debugger.packet import Event, Kind
from debugger.pilot import Pilot
from debugger.target import Change, Liveness, Target, Thread

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


_ID = re.compile(rb"-1|[0-9a-fA-F]{1,8}")

EFAULT = 14
EINVAL = 22


Catalog = Mapping[int, Callable[[], Target]]
"""What makes the targets that a client may attach to, by number."""


class Session:
    """One client and what it debugs: one target, or those of `catalog` that it attaches to.

    A process id on the wire is a target's number, a thread id its CPU + 1 or a task's.
    """

    def __init__(self, target: Target | None = None, catalog: Catalog | None = None) -> None:
        from debugger.handlers import dispatch  # which needs this module

        self._dispatch = dispatch
        self.targets: dict[int, Target] = {}
        self.catalog = catalog or {}
        self.phase = Phase.STOPPED
        self.acks = True
        self.error_texts = False
        self.multiprocess = False
        self.stop_words = False
        self.physical = False
        self.pid = self.tid = 0  # what `g`, `m` and the like are about
        self.breakpoint_refused = False
        self.nonstop = False
        self.stops = Stops()
        self.resumed: set[int] = set()
        """The targets that a stop reply is awaited of."""
        self._focus: dict[int, int] = {}
        self._parser = packet.Parser()
        self._last = b""
        self._extra: list[bytes] = []
        if target is not None:
            self.adopt(target)

    @property
    def target(self) -> Target:
        """The selected target; Failure when there is none yet."""
        if self.pid not in self.targets:
            raise Failure(EINVAL, "attach to a vnode first")
        return self.targets[self.pid]

    @property
    def focus(self) -> int:
        """The thread of the selected target that stop replies name: gdb shall not switch."""
        return self._focus[self.pid]

    @focus.setter
    def focus(self, tid: int) -> None:
        self._focus[self.pid] = tid

    def adopt(self, target: Target) -> None:
        """Debug this target too, and select it."""
        self.pid = target.identity.number
        self.targets[self.pid] = target
        self.focus = self.tid = target.focus

    def let_go(self, pid: int) -> None:
        """End the debugging of a target: it runs on as if nobody had been here."""
        target = self.targets.pop(pid, None)
        self.resumed.discard(pid)
        if target is not None and target.pilot is not None:
            target.pilot.give_back()

    def close(self) -> None:
        """The client is gone."""
        self.phase = Phase.CLOSED
        for pid in list(self.targets):
            self.let_go(pid)

    @property
    def waits(self) -> bool:
        """Whether poll() may have something to tell."""
        return self.phase is Phase.RESUMED or (self.nonstop and bool(self.resumed))

    def wakeups(self) -> list[int]:
        """Descriptors that become readable when poll() may have something, while RESUMED."""
        pilots = [self.targets[pid].pilot for pid in self.resumed if pid in self.targets]
        with suppress(TargetError):
            held = [pilot for pilot in pilots if pilot is not None and pilot.held]
            return [fd for pilot in held if (fd := pilot.fileno()) >= 0]
        return []

    def feed(self, data: bytes) -> bytes:
        """Take what the client sent; return what to send it."""
        if not self.acks and not self._parser.pending and (asked := packet.WHOLE_READ(data)):
            reply = self._word(int(asked[1], 16), int(asked[2], 16))
            if reply:
                return reply
        out = [self._take(event) for event in self._parser.feed(data)]
        return out[0] if len(out) == 1 else b"".join(out)

    def _word(self, address: int, size: int) -> bytes:
        """The answer to `m` without the table, in a third of the time; b"" leaves it to that.

        Debuggers send little else.  Without acknowledgements nobody needs the checksum.
        """
        if self.physical or self._extra or not 0 < size <= packet.PACKET_SIZE // 2:
            return b""
        try:
            return packet.frame_hex(self.targets[self.pid].read(self.tid, address, size))
        except Exception:  # the table's way turns it into an answer
            return b""

    def poll(self) -> bytes:
        """While RESUMED: a stop or exit reply when something happened to a target."""
        if self.nonstop:
            nonstop.collect(self)
            return self._with_console(self.stops.notification())
        if self.phase is Phase.RESUMED:
            for pid in sorted(self.resumed):
                reply = self._poll_one(pid)
                if reply:
                    return self._send(reply)
        return b""

    def _poll_one(self, pid: int) -> bytes:
        target = self.targets[pid]
        change = target.change()
        if change is not None:
            self.pid = pid
            if change.gone:
                return self.end(change)
            self.say(f"{target.identity.name}: {change.text}")
            self.focus = target.focus
            return self.stop(SIGTRAP)
        return self._halted(pid, target.pilot) if target.pilot and target.pilot.taken else b""

    def _halted(self, pid: int, pilot: Pilot) -> bytes:
        """A stop reply when a CPU under control has stopped by itself, or control is lost."""
        try:
            halt = pilot.halted()
        except TargetError as error:
            self.pid = pid
            self.say(str(error))
            if not pilot.held:
                pilot.give_back()
            return self.stop(SIGINT)
        if halt is None:
            return b""
        self.pid = pid
        self.focus = halt.tid
        return self.stop(SIGTRAP, halt.why)

    def end(self, change: Change) -> bytes:
        """The exit reply: the kernel that was looked at is no more."""
        self.phase = Phase.STOPPED
        self.say(f"{self.target.identity.name}: {change.text}")
        pid = self.pid
        self.resumed.clear()
        if len(self.targets) > 1:
            self.let_go(pid)
            self.pid = next(iter(self.targets))
            self.tid = self.focus
        return b"X09" + (b";process:%x" % pid if self.multiprocess else b"")

    def say(self, text: str) -> None:
        """A line for the client's console; goes out before the next stop reply only."""
        line = f"{printable(text.encode())}\n"
        self._extra.append(packet.frame(b"O" + line.encode().hex().encode()))

    def stop(self, signal: int, why: str = "") -> bytes:
        """The stop reply of a stop event that happens now."""
        self.phase = Phase.STOPPED
        self.resumed.clear()
        self.target.refresh()
        return self.stop_reply(signal, why)

    def stop_reply(self, signal: int, why: str = "") -> bytes:
        """The stop reply for the state as it is."""
        if self.target.thread(self.focus) is None:  # a task that has ended, or runs now
            self.focus = self.target.focus
        self.tid = self.focus
        thread = self.thread(b"%x" % self.focus)
        return self._stopped(signal, thread, why)

    def event(self, pid: int, signal: int, tid: int, why: str = "") -> bytes:
        """A stop reply for any thread of any target."""
        selected, self.pid = self.pid, pid
        thread = self.target.thread(tid) or Thread(tid, "", "", 0)
        reply = self._stopped(signal, thread, why)
        self.pid = selected
        return reply

    def _stopped(self, signal: int, thread: Thread, why: str) -> bytes:
        # clients that do not know the words would take them for register numbers
        word = b"%b;" % why.encode() if why and (self.stop_words or "watch" in why) else b""
        return b"T%02xthread:%b;core:%x;%b" % (signal, self.ident(thread.tid), thread.cpu, word)

    def ident(self, tid: int) -> bytes:
        """A thread id of the selected target as this client wants it."""
        if self.multiprocess:
            return b"p%x.%x" % (self.pid, tid)
        return b"%x" % tid

    def idents(self) -> list[tuple[bytes, Thread]]:
        """Every thread of every target."""
        selected, found = self.pid, []
        for pid, target in self.targets.items():
            self.pid = pid
            found += [(self.ident(thread.tid), thread) for thread in target.threads()]
        self.pid = selected
        return found

    def numbers(self, ident: bytes) -> tuple[int, int]:
        """(process, thread) of an id on the wire, -1 for all; 0 is the selected one."""
        process, dot, text = ident.rpartition(b".")
        if not dot and text.startswith(b"p"):  # a process without a thread
            process, text = text, b"-1"
        if not _ID.fullmatch(text) or (process and not _ID.fullmatch(process[1:])):
            raise Failure(EINVAL, "malformed thread id")
        pid = int(process[1:], 16) if process else self.pid
        return pid or self.pid, int(text, 16)

    def thread(self, ident: bytes) -> Thread:
        """The thread of an id on the wire, in any target; 0 and -1 give the selected one."""
        return self.find(ident)[1]

    def find(self, ident: bytes) -> tuple[int, Thread]:
        """The process and the thread of an id on the wire."""
        pid, tid = self.numbers(ident)
        pid = self.pid if pid == -1 else pid
        if pid not in self.targets:
            raise Failure(EINVAL, "no such process")
        if tid <= 0:
            tid = self.tid if pid == self.pid else self._focus[pid]
        thread = self.targets[pid].thread(tid)
        if thread is None:
            raise Failure(EINVAL, f"no thread {tid}")
        return pid, thread

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
        """Ctrl-C: the CPUs are stopped where that can be had; else the client looks again."""
        if self.phase is not Phase.RESUMED:
            return b""
        if self.pid not in self.resumed:
            self.pid = min(self.resumed)
        self.halt()
        return self._send(self.stop(SIGINT))

    def halt(self) -> None:
        """Stop the selected target's CPUs; says so, or why it cannot be done."""
        target = self.target
        pilot = target.pilot
        if pilot is None or target.liveness is Liveness.DEAD:
            return
        watched = not pilot.held
        try:
            pilot.halt()
        except TargetError as error:
            self.say(f"{error}; {target.identity.name} runs on, watched")
            return
        if watched:
            self.say(f"{target.identity.name} is stopped; `monitor release` or detach lets it run")

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
        framed = self._with_console(framed)
        self._last = framed
        return framed

    def _with_console(self, framed: bytes) -> bytes:
        """What say() said goes before it."""
        if self._extra and framed:
            framed = b"".join([*self._extra, framed])
            self._extra.clear()
        return framed
