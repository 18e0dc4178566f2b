# SPDX-License-Identifier: GPL-2.0-or-later
"""The watch: reads every live vnode's bridge and says what it means.  Never blocks, writes nothing.

`look` is called when a vnode is due and at once when a portal rings.  It looks at levels, not at
edges, so a lost doorbell costs the time to the next look (half the shortest limit) and no more.
"""

from __future__ import annotations

from adeos import abi
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from watchdog.detector import Level, Verdict
from watchdog.events import Event, Faulted, Ready, Recovered, Silent, Suspected
from watchdog.states import Fault, State
from watchdog.unit import Unit, Watched

MALFORMED_LIMIT = 3
"""Ticks in a row that a bridge may be unreadable: a writer is at it for less than one."""

BOOTING = 4
"""How much longer a booting kernel may be silent: it probes devices and loads modules."""

_ORDERLY = {
    abi.State.HALTED: "halt",
    abi.State.REBOOT: "reboot",
    abi.State.KEXEC: "kexec",
}


def due_again(unit: Unit, now: int, event: Event | None, rest: int) -> int:
    """TSC of the next look, after one that found `event`.

    What beats is looked at when a limit could be reached, what is in doubt at each tick, what has
    no agent each `rest` cycles.
    """
    watched = unit.watched
    if watched is None or event is not None or watched.malformed:
        return now
    if unit.vnode.state is not State.RUNNING:
        return now
    return watched.detector.due or now + rest


def look(unit: Unit, now: int, rung: int = 0, doubt: float = 1) -> Event | None:
    """What has become of a live vnode; None when nothing has.

    `now`: TSC; `rung`: TSC of the portal's interrupt when one caused the look; `doubt`: factor on
    its limits.
    """
    watched = unit.watched
    if watched is None:
        return None
    settled = unit.vnode.state in (State.RUNNING, State.SUSPECT)
    try:
        word = watched.word()
        if word is abi.State.NONE and settled and unit.config.watch.agent:
            raise BridgeError("the words of the agent are gone")  # it came to run by them
        fault = fault_in(watched, word)
    except (BridgeError, ValueError):
        watched.malformed += 1
        if watched.malformed < MALFORMED_LIMIT:
            return None
        return _faulted(watched, Fault("corrupt", watched.incarnation), now, rung)
    watched.malformed = 0
    if fault is not None:
        return _faulted(watched, fault, now, rung)
    if word is abi.State.NONE:
        return _without_agent(unit, watched, now)
    watched.detector.patience = doubt if settled else max(doubt, BOOTING)
    verdict = watched.detector.observe(watched.counts(), now, watched.stamps())
    if unit.vnode.state is State.BOOTING and verdict.level < Level.FAILED:
        return _still_booting(watched, word, now)
    return _from_verdict(unit, watched, verdict, now)


def _without_agent(unit: Unit, watched: Watched, now: int) -> Event | None:
    """Judge by jiffies: they move, so it lives; they stopped, so it hangs; else what is late."""
    boot = watched.boot
    if unit.config.watch.agent or not boot.jiffies_seen:
        if boot.failed(now):
            return _boot_failed(watched, now)
        return None
    if boot.still > watched.jiffies_limit:
        return _faulted(watched, Fault("hang", watched.incarnation), now, 0, boot.jiffies_seen)
    if unit.vnode.state is State.BOOTING:
        return Ready(watched.incarnation)
    return _suspicion(unit, watched, watched.late)


def _still_booting(watched: Watched, word: abi.State, now: int) -> Event | None:
    if word is abi.State.RUNNING or watched.detector.armed(abi.Layer.USER):
        return Ready(watched.incarnation)
    if watched.boot.failed(now):
        return _boot_failed(watched, now)
    return None


def _boot_failed(watched: Watched, now: int) -> Faulted:
    """Nobody knows when it went wrong, so its time counts from the start."""
    fault = Fault("boot", watched.incarnation)
    return _faulted(watched, fault, now, 0, watched.boot.started)


def _from_verdict(unit: Unit, watched: Watched, verdict: Verdict, now: int) -> Event | None:
    if verdict.level is Level.FAILED:
        fault = Fault(verdict.reason, watched.incarnation, verdict.cpu)
        return Silent(_stamped(watched, fault, now, 0, verdict.quiet_since))
    return _suspicion(unit, watched, verdict.reason)


def _suspicion(unit: Unit, watched: Watched, reason: str) -> Event | None:
    """What is new about a running vnode that is late, or no more: `reason` "" = all is well."""
    suspect = unit.vnode.state is State.SUSPECT
    if not reason:
        return Recovered(watched.incarnation) if suspect else None
    if suspect and unit.vnode.reason == reason:
        return None
    return Suspected(watched.incarnation, reason)


def fault_in(watched: Watched, word: abi.State) -> Fault | None:
    """What the vnode itself reports: a crash record or an orderly end.  BridgeError."""
    view = watched.bridge.view
    if abi.CRASH.get(view, abi.VN_BR_CRASH, "state") != abi.VN_CRASH_EMPTY:
        crash = watched.bridge.crash()
        if crash is not None and crash.incarnation == watched.incarnation:
            return recorded_fault(crash)
    if word in _ORDERLY:
        return Fault(_ORDERLY[word], watched.incarnation, crash=False)
    return None


def recorded_fault(crash: abi.Crash) -> Fault:
    """A crash record as a fault; its reason is final only when the record is complete."""
    reason = crash.reason.name.lower() if crash.reason else "panic"
    return Fault(reason, crash.incarnation, crash.cpu, fault_tsc=crash.tsc)


def record_complete(bridge: Bridge, incarnation: int) -> bool:
    """Whether the crash record of this incarnation is done; False on garbage."""
    try:
        crash = bridge.crash()
    except BridgeError:
        return False
    return (
        crash is not None and crash.state == abi.VN_CRASH_DONE and crash.incarnation == incarnation
    )


def _faulted(watched: Watched, fault: Fault, now: int, rung: int, since: int = 0) -> Faulted:
    return Faulted(_stamped(watched, fault, now, rung, since))


def _stamped(watched: Watched, fault: Fault, now: int, rung: int, since: int = 0) -> Fault:
    """Stamp a fault; a vnode's own stamp counts only between its start and now."""
    tsc = fault.fault_tsc or since
    if not watched.boot.started <= tsc <= now:
        tsc = since or rung or now
    return Fault(
        fault.reason,
        fault.incarnation,
        fault.cpu,
        fault.crash,
        fault_tsc=tsc,
        reported_tsc=rung if tsc <= rung <= now else 0,
        seen_tsc=now,
    )
