# SPDX-License-Identifier: GPL-2.0-or-later
"""Non-stop: one CPU stops, the others run on, and the client asks meanwhile.

Stops are told by a notification, and the client fetches them one by one with vStopped.
Source: "Debugging with GDB", appendices E.9 (remote non-stop) and E.8 (notifications).
"""

from collections import deque
from typing import TYPE_CHECKING

from debugger import packet
from debugger.errors import TargetError
from debugger.target import Liveness, Target

if TYPE_CHECKING:
    from debugger.session import Session

_MOST_EVENTS = 8192
_ASKED, _TRAPPED = 0, 5


class Stops:
    """The stops of a session that its client has not fetched yet."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque(maxlen=_MOST_EVENTS)
        self._told = False

    def add(self, event: bytes) -> None:
        self._events.append(event)

    def notification(self) -> bytes:
        """The first of them, told unasked; b"" when there is none, or one is told already."""
        if self._told or not self._events:
            return b""
        self._told = True
        text = b"Stop:" + self._events[0]
        return b"%%%b#%02x" % (text, packet.checksum(text))

    def fetched(self) -> bytes:
        """The client has the first: the reply to vStopped."""
        if self._told and self._events:
            self._events.popleft()
        self._told = bool(self._events)
        return self._events[0] if self._events else b"OK"

    def first(self) -> bytes:
        """The reply to `?`: the first, whose rest is fetched."""
        self._told = bool(self._events)
        return self._events[0] if self._events else b"OK"


def list_stopped(session: "Session") -> bytes:
    """Every thread that stands still now: the reply to `?`."""
    session.stops = Stops()
    for pid in session.targets:
        _add_stopped(session, pid)
    return session.stops.first()


def attached(session: "Session", pid: int) -> None:
    """Another target: what stands still of it becomes events, and what stops later will."""
    session.resumed.add(pid)
    _add_stopped(session, pid)


def _add_stopped(session: "Session", pid: int) -> None:
    target = session.targets[pid]
    for thread in target.threads():
        parked = target.pilot is not None and target.pilot.parked(thread.tid)
        if parked or not thread.is_cpu or target.liveness is Liveness.DEAD:
            session.stops.add(session.event(pid, _ASKED, thread.tid))


def stop(session: "Session", pid: int, target: Target, tid: int) -> None:
    """Stop a CPU, or all of them (tid -1); each stop becomes an event.  TargetError."""
    pilot = target.pilot
    if pilot is None:
        raise TargetError(f"{target.identity.name} cannot be stopped: it can only be watched")
    cpus = [t.tid for t in target.threads() if t.is_cpu and tid in (-1, t.tid)]
    running = [cpu for cpu in cpus if not pilot.parked(cpu)]
    pilot.halt([cpu - 1 for cpu in running])
    target.refresh()
    for cpu in running:
        if pilot.parked(cpu):
            session.stops.add(session.event(pid, _ASKED, cpu))


def collect(session: "Session") -> None:
    """CPUs that stopped by themselves become events; so does the end of a target."""
    for pid, target in list(session.targets.items()):
        change = target.change() if pid in session.resumed else None
        if change is not None:
            session.resumed.discard(pid)
            session.say(f"{target.identity.name}: {change.text}")
            gone = b"X09;process:%x" % pid if session.multiprocess else b"X09"
            target.refresh()
            focus = target.focus
            session.stops.add(gone if change.gone else session.event(pid, _TRAPPED, focus))
        pilot = target.pilot
        while pilot is not None and pilot.held and (halt := pilot.halted(others=False)):
            target.forget_registers(halt.tid)
            session.stops.add(session.event(pid, _TRAPPED, halt.tid, halt.why))
