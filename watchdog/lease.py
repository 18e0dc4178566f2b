# SPDX-License-Identifier: GPL-2.0-or-later
"""Deadlines that are leased to a debugger: a vnode that it has stopped is no hung one.

kmb.ko keeps the lease, not the vnode's memory: a vnode that scribbles cannot excuse
itself.  Asked only when beats are missing, and while a vnode is held.  What the vnode
reports itself, a crash or a halt, counts with a debugger as without.
"""

from __future__ import annotations

from adeos.machine import Machine
from watchdog.events import Event, Faulted, Held, Recovered, Silent, Suspected
from watchdog.states import State
from watchdog.unit import Unit

_REPORTED = frozenset({"panic", "oops", "mce", "halt", "reboot", "kexec", "corrupt"})


def leased(
    machine: Machine, unit: Unit, event: Event | None, now: int, holder: int = 0
) -> Event | None:
    """What remains of an event where a debugger may have stopped the vnode.

    `now`: TSC; `holder`: the vnode whose debugger it is, 0 = a process of the root.  Every layer
    counts as beating until the lease ends.
    """
    held = unit.vnode.state is State.HELD
    silence = isinstance(event, Silent | Suspected) or (
        isinstance(event, Faulted) and event.fault.reason not in _REPORTED
    )
    watched = unit.watched
    if watched is None or not (silence or (held and event is None)):
        return event
    if held and now < watched.ask_lease:
        watched.detector.arm(watched.counts(), now)
        return None
    watched.ask_lease = now + watched.lease_period
    binding = machine.query(unit.id)
    if binding is None or binding.held_until <= now:
        if binding is not None and binding.held_until > watched.released:
            # short holds, one after the other, that no look has met: it may not have run in between
            watched.released = binding.held_until
            watched.detector.arm(watched.counts(), now)
            event = None
        return Recovered(watched.incarnation) if held else event
    watched.detector.arm(watched.counts(), now)
    by = f"vnode {holder}" if holder else f"debugger {binding.holder}"
    return None if held else Held(watched.incarnation, by)
