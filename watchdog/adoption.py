# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new daemon makes of a vnode that an earlier one left behind.  Pure.

The earlier daemon published its state before it acted on it, so the root
bridge is the journal.  Running vnodes are taken over untouched.  Whatever was
half done about a fault is done again from the fence, which harms nothing a
second time; an incident that is recorded is never recorded again.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from kexec_restart.slots import Slots
from watchdog.actions import Actions, FinishIncident, Release
from watchdog.config import Restart
from watchdog.events import Event, Faulted, FenceRequested, RestartRequested, StopRequested
from watchdog.states import LIVE, OPERATOR, Fault, State
from watchdog.supervisor import Vnode, step


class Evidence(Struct, frozen=True):
    """What was found.

    `bound`: the machine knows it; `started`: CPUs running.  `word`, `reason`,
    `incarnation`, `restarts`, `incidents`: the earlier daemon's, `word` None =
    it said nothing.  `bridge_incarnation`: of the kernel in memory, 0 =
    unreadable.  `up`: its user space has beaten.  `fault`: what its bridge shows.
    `open_incident`: one is unfinished in the store; `recorded`: the store has
    one for this incarnation, finished or not.
    """

    bound: bool = False
    started: int = 0
    word: State | None = None
    reason: str = ""
    incarnation: int = 0
    restarts: int = 0
    incidents: int = 0
    bridge_incarnation: int = 0
    up: bool = False
    fault: Fault | None = None
    open_incident: bool = False
    recorded: bool = False


def adopt(
    found: Evidence, policy: Restart, now: int, slots: Slots | None = None
) -> tuple[Vnode, Actions]:
    """The vnode's state and what to do about it at once; `slots`: its images, as stored."""
    incarnation = max(found.incarnation, found.bridge_incarnation)
    if found.fault is not None and found.fault.incarnation < found.incarnation:
        found = replace(found, fault=None)  # the predecessor's, still in memory: dealt with
    vnode = Vnode(
        policy=policy,
        reason=found.reason,
        incarnation=incarnation,
        incident=found.open_incident,
        restarts=found.restarts,
        incidents=found.incidents,
        slots=slots or Slots(),
    )
    if not found.bound:
        return _adopt_unbound(vnode, found)
    if found.started:
        return _adopt_running(vnode, found, now)
    return _adopt_parked(vnode, found, now)


def wants_start(found: Evidence, autostart: bool) -> bool:
    """Whether a vnode that is not bound is to be started now."""
    if found.bound:
        return False
    if found.word is None:
        return autostart
    return found.word in (State.LOADING, State.RESTARTING)


_KEPT = frozenset({State.OFFLINE, State.HALTED, State.STOPPED, State.QUARANTINED})


def _adopt_unbound(vnode: Vnode, found: Evidence) -> tuple[Vnode, Actions]:
    closed = (FinishIncident("interrupted"),) if vnode.incident else ()
    word = found.word if found.word in _KEPT else State.OFFLINE
    if found.word in (State.CRASHED, State.FENCED):
        word = State.STOPPED
    return replace(vnode, state=word or State.OFFLINE, incident=False), closed


def _adopt_running(vnode: Vnode, found: Evidence, now: int) -> tuple[Vnode, Actions]:
    if found.word is State.QUARANTINED:
        closed = (FinishIncident("interrupted"),) if vnode.incident else ()
        return replace(vnode, state=State.QUARANTINED, fenced=False, incident=False), closed
    closing: Actions = ()
    if found.up and vnode.incident:
        closing = (FinishIncident("restarted"),)
        vnode = replace(vnode, incident=False)
    state = State.RUNNING if found.up else State.BOOTING
    since = now if found.up else None
    vnode = replace(vnode, state=state, fenced=False, running_since=since)
    event: Event | None = None
    if found.word is State.STOPPED:
        event = StopRequested()
    elif found.fault is not None:
        event = Faulted(replace(found.fault, incarnation=vnode.incarnation))
    elif found.word is State.FENCED and found.reason == OPERATOR:
        event = FenceRequested()
    elif found.word in (State.CRASHED, State.FENCED):
        event = Faulted(Fault(found.reason or "interrupted", vnode.incarnation))
    if event is None:
        return replace(vnode, reason=found.reason if state not in LIVE else ""), closing
    vnode, actions = step(vnode, event, now)
    return vnode, closing + actions


def _adopt_parked(vnode: Vnode, found: Evidence, now: int) -> tuple[Vnode, Actions]:
    """All CPUs parked: do again, from the fence, what the earlier daemon was at."""
    vnode = replace(vnode, state=State.BOOTING, fenced=False)
    word = found.word
    if word is State.QUARANTINED:
        return replace(vnode, state=word, fenced=True, incident=False), _interrupted(vnode)
    if word in (None, State.STOPPED, State.OFFLINE):
        return step(vnode, StopRequested(), now)
    if word is State.HALTED and found.recorded:
        released = (*_interrupted(vnode), Release())
        return replace(vnode, state=word, fenced=True, incident=False), released
    kept = found.recorded or found.reason == OPERATOR
    if word is State.FENCED and kept and not vnode.incident:
        return replace(vnode, state=word, fenced=True), ()  # preserved
    if word in (State.CRASHED, State.FENCED) and vnode.incident:
        vnode, actions = step(vnode, Faulted(Fault(found.reason, vnode.incarnation)), now)
        return replace(vnode, fault=None), actions  # recorded already: fence, capture, restart
    if word in (State.LOADING, State.RESTARTING) and (found.recorded or found.fault is None):
        # the same restart again, under a number of its own: half of the last may be in memory
        again = replace(vnode, restarts=max(vnode.restarts - 1, 0))
        again, actions = step(again, RestartRequested(), now)
        return replace(again, reason=found.reason), actions
    fault = found.fault or Fault(found.reason or "interrupted", vnode.incarnation)
    return step(vnode, Faulted(replace(fault, incarnation=vnode.incarnation)), now)


def _interrupted(vnode: Vnode) -> Actions:
    return (FinishIncident("interrupted"),) if vnode.incident else ()
