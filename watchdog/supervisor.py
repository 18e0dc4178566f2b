# SPDX-License-Identifier: GPL-2.0-or-later
"""The pure core: what to do with one vnode when something happens.

`step(vnode, event, now)` gives the vnode's next state and the actions to
carry out, in order.  No I/O, no clock: the daemon carries the actions out and
answers each with an event.  RULES is the whole behaviour; an event that has
no rule in a state changes nothing.

Three promises, tested as invariants: a vnode's memory is touched (Load,
Capture) only after a confirmed fence; between two starts there is a fence;
each fault gives one incident.

Times: `now` and what is derived from it are nanoseconds of a steady clock;
names ending in _tsc are TSC cycles, passed through to the incident.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from kexec_restart import budget as budgets
from kexec_restart import slots as slotting
from kexec_restart.budget import SECOND, Account, Budget
from kexec_restart.slots import Slots
from watchdog.actions import (
    Actions,
    Capture,
    Fence,
    FinishIncident,
    Load,
    OpenIncident,
    Probe,
    Release,
    Start,
    Wait,
)
from watchdog.config import Restart
from watchdog.events import (
    Captured,
    CaptureFailed,
    ClearRequested,
    DelayElapsed,
    Event,
    Faulted,
    Fenced,
    FenceFailed,
    FenceRequested,
    Healthy,
    Held,
    ImageRefused,
    Loaded,
    LoadFailed,
    Probed,
    Ready,
    Recovered,
    RestartRequested,
    Silent,
    Started,
    StartFailed,
    StartRequested,
    StopRequested,
    Suspected,
)
from watchdog.states import IDLE, LIVE, OPERATOR, PROBED, RECORDED, Fault, State


class Vnode(Struct, frozen=True):
    """All that is known of one vnode.

    `fenced`: every CPU is confirmed parked, its memory may be touched.
    `fencing`: a Fence was asked for and not answered yet.
    `probe`: a fault that is being probed and not believed yet.
    `fault`: seen, and its incident not yet opened.  `incident`: one is open.
    `running_since` is None unless running.  `wait`: end of the back-off, ns.
    `slots`: the images it may be started from.
    """

    policy: Restart = field(default_factory=Restart)
    state: State = State.OFFLINE
    reason: str = ""
    incarnation: int = 0
    fenced: bool = True
    fencing: bool = False
    probe: Fault | None = None
    fault: Fault | None = None
    incident: bool = False
    running_since: int | None = None
    healthy_for: int = 0
    wait: int | None = None
    account: Account = field(default_factory=Account)
    slots: Slots = field(default_factory=Slots)
    restarts: int = 0
    incidents: int = 0
    false_alarms: int = 0


Result = tuple[Vnode, Actions]


def step(vnode: Vnode, event: Event, now: int) -> Result:
    """The next state and what to do; unchanged and () where RULES has nothing."""
    rule = TABLE.get((vnode.state, type(event)))
    if rule is None or _stale(vnode, event):
        return vnode, ()
    after, actions = rule.handle(vnode, event, now)
    if after.state not in LIVE:
        after = replace(after, probe=None)  # whatever it finds comes too late
    return after, actions


Wish = StartRequested | StopRequested | RestartRequested | ClearRequested | FenceRequested


def restarts_left(vnode: Vnode, now: int) -> int | None:
    """How often it may still be restarted by itself; None when its policy never does."""
    if not vnode.policy.on_crash.endswith("restart"):
        return None
    return budgets.left(_budget(vnode.policy), vnode.account, now)


def refusal(vnode: Vnode, event: Wish) -> str:
    """Why an operator's wish cannot be had now; empty when it can."""
    if isinstance(event, ClearRequested) and vnode.state is not State.QUARANTINED:
        return f"is {vnode.state.word}; only a quarantined vnode is cleared"
    if isinstance(event, FenceRequested) and vnode.state not in LIVE:
        return f"is {vnode.state.word}; only a vnode that runs is fenced"
    if isinstance(event, StartRequested):
        if vnode.state is State.QUARANTINED and not event.force:
            return _look_first(vnode)
        if vnode.state in LIVE:
            return f"is already {vnode.state.word}"
        if vnode.state not in IDLE or not _settled(vnode):
            return f"is {vnode.state.word}; wait for it"
    if isinstance(event, RestartRequested):
        if vnode.state is State.QUARANTINED and not event.force:
            return _look_first(vnode)
        if vnode.state not in LIVE and (vnode.state not in IDLE or not _settled(vnode)):
            return f"is {vnode.state.word}; wait for it"
    return ""


def _look_first(vnode: Vnode) -> str:
    why = vnode.reason or "restarts did not help"
    return f"is quarantined ({why}); look at its incidents, then clear it or use --force"


def _settled(vnode: Vnode) -> bool:
    """Nothing is in progress; a quarantined vnode's fence may have failed."""
    return (vnode.fenced or vnode.state is State.QUARANTINED) and not vnode.incident


def _stale(vnode: Vnode, event: Event) -> bool:
    if isinstance(event, Faulted | Silent):
        return event.fault.incarnation != vnode.incarnation
    if isinstance(event, DelayElapsed):
        return event.until != vnode.wait
    if isinstance(event, Fenced | FenceFailed) and not vnode.fencing:
        return True
    if isinstance(event, Probed) and vnode.probe is None:
        return True
    return getattr(event, "incarnation", vnode.incarnation) != vnode.incarnation


@cache
def _budget(policy: Restart) -> Budget:
    return Budget(
        intensity=policy.intensity,
        period=policy.period_s * SECOND,
        delay=policy.delay_ms * 1_000_000,
        backoff=policy.backoff_s * SECOND,
        backoff_max=policy.backoff_max_s * SECOND,
        attempts=policy.attempts,
        healthy=policy.healthy_s * SECOND,
    )


# --- Handlers: (vnode, event, now) -> (vnode, actions) ---


def _start(vnode: Vnode, event: Event, now: int) -> Result:
    assert isinstance(event, StartRequested | RestartRequested)
    if refusal(vnode, event):
        return vnode, ()
    account = Account() if event.force else vnode.account
    vnode = replace(vnode, reason="", fault=None, account=account)
    if not vnode.fenced:
        return _fence(replace(vnode, state=State.RESTARTING))
    return _load(vnode, State.LOADING)


def _fence(vnode: Vnode, gather: str = "") -> Result:
    return replace(vnode, fencing=True), (Fence(vnode.incarnation, gather),)


def _is_fenced(vnode: Vnode, event: Event) -> Vnode:
    assert isinstance(event, Fenced)
    vnode = replace(vnode, fenced=True, fencing=False)
    if event.fault is None or vnode.fault is None:
        return vnode
    return replace(vnode, fault=event.fault, reason=event.fault.reason)


def _load(vnode: Vnode, state: State) -> Result:
    incarnation = vnode.incarnation + 1
    slot = slotting.choose(vnode.slots)
    slots = slotting.started(vnode.slots, slot)
    vnode = replace(vnode, state=state, incarnation=incarnation, wait=None, slots=slots)
    return vnode, (Load(incarnation, slot),)


def _loaded(vnode: Vnode, event: Event, now: int) -> Result:
    return replace(vnode, fenced=False), (Start(vnode.incarnation),)


def _started(vnode: Vnode, event: Event, now: int) -> Result:
    if vnode.fenced:
        return vnode, ()
    return replace(vnode, state=State.BOOTING), ()


def _ready(vnode: Vnode, event: Event, now: int) -> Result:
    done = (FinishIncident("restarted"),) if vnode.incident else ()
    vnode = replace(vnode, state=State.RUNNING, reason="", incident=False, running_since=now)
    return vnode, done


def _healthy(vnode: Vnode, event: Event, now: int) -> Result:
    """The image in its slot is good, and what was spent on restarts is forgotten."""
    if vnode.running_since is None:
        return vnode, ()
    slots = slotting.blessed(vnode.slots, vnode.slots.current)
    return replace(vnode, account=Account(paused=vnode.account.paused), slots=slots), ()


def _suspected(vnode: Vnode, event: Event, now: int) -> Result:
    assert isinstance(event, Suspected)
    if vnode.probe is not None:
        return vnode, ()  # the probe will tell
    return replace(vnode, state=State.SUSPECT, reason=event.reason), ()


def _held(vnode: Vnode, event: Event, now: int) -> Result:
    """A debugger's stop is no fault; a probe that is under way comes to nothing."""
    assert isinstance(event, Held)
    return replace(vnode, state=State.HELD, reason=event.by, probe=None), ()


def _recovered(vnode: Vnode, event: Event, now: int) -> Result:
    if vnode.probe is not None:
        return vnode, ()
    return replace(vnode, state=State.RUNNING, reason=""), ()


def _faulted(vnode: Vnode, event: Event, now: int) -> Result:
    assert isinstance(event, Faulted)
    gather = "record" if event.fault.reason in RECORDED else "nmi"
    return _fail(vnode, event.fault, gather, now)


def _silent(vnode: Vnode, event: Event, now: int) -> Result:
    """Missing beats: probed where the CPU may only have stood still."""
    assert isinstance(event, Silent)
    if vnode.probe is not None:
        return vnode, ()
    fault = event.fault
    if fault.reason not in PROBED:
        return _fail(vnode, fault, "nmi", now)
    state = vnode.state if vnode.state is State.BOOTING else State.SUSPECT
    return replace(vnode, state=state, reason=fault.reason, probe=fault), (Probe(fault),)


def _probed(vnode: Vnode, event: Event, now: int) -> Result:
    assert isinstance(event, Probed) and vnode.probe is not None
    fault, vnode = vnode.probe, replace(vnode, probe=None)
    if not event.moving:
        return _fail(vnode, fault, "probe", now)
    state = vnode.state if vnode.state is State.BOOTING else State.RUNNING
    return replace(vnode, state=state, reason="", false_alarms=vnode.false_alarms + 1), ()


def _fail(vnode: Vnode, fault: Fault, gather: str, now: int) -> Result:
    """Believe a fault: a crash is fenced and captured, an orderly end goes by its own policy."""
    if vnode.fenced or vnode.fencing:
        return vnode, ()
    ran = now - vnode.running_since if vnode.running_since is not None else 0
    vnode = replace(vnode, fault=fault, reason=fault.reason, healthy_for=ran, running_since=None)
    if fault.crash:
        return _fence(replace(vnode, state=State.CRASHED), gather)
    policy = vnode.policy.on_halt if fault.reason == "halt" else vnode.policy.on_reboot
    state = State.RESTARTING if policy == "restart" else State.HALTED
    return _fence(replace(vnode, state=state))


def _open(vnode: Vnode) -> Result:
    """Open the pending fault's incident; an older one still open is closed first."""
    if vnode.fault is None:
        return vnode, ()
    before = (FinishIncident("failed again"),) if vnode.incident else ()
    opened = OpenIncident(vnode.fault)
    vnode = replace(vnode, fault=None, incident=True, incidents=vnode.incidents + 1)
    return vnode, (*before, opened)


def _close(vnode: Vnode, outcome: str) -> Result:
    if not vnode.incident:
        return vnode, ()
    return replace(vnode, incident=False), (FinishIncident(outcome),)


def _fenced_crash(vnode: Vnode, event: Event, now: int) -> Result:
    vnode, opened = _open(replace(_is_fenced(vnode, event), state=State.FENCED))
    if vnode.policy.on_crash.startswith("coredump"):
        return vnode, (*opened, Capture(vnode.incarnation))
    vnode, actions = _after_capture(vnode, now)
    return vnode, opened + actions


def _captured(vnode: Vnode, event: Event, now: int) -> Result:
    assert isinstance(event, Captured | CaptureFailed)
    vnode = replace(vnode, account=budgets.pause(vnode.account, event.duration))
    return _after_capture(vnode, now)


def _after_capture(vnode: Vnode, now: int) -> Result:
    policy = vnode.policy.on_crash
    if policy == "preserve":
        return _close(vnode, "preserved")
    if policy.endswith("destroy"):
        vnode, closed = _close(replace(vnode, state=State.STOPPED), "destroyed")
        return vnode, (*closed, Release())
    return _relaunch(vnode, now)


def _relaunch(vnode: Vnode, now: int) -> Result:
    """Restart by policy: at once, after a wait, from the other slot, or not any more."""
    budget, was = _budget(vnode.policy), vnode.slots.current
    vnode = replace(vnode, slots=slotting.failed(vnode.slots))
    verdict = budgets.charge(budget, vnode.account, now, vnode.healthy_for)
    if verdict.delay is None and slotting.fallback(vnode.slots):
        vnode = replace(vnode, slots=slotting.condemned(vnode.slots, was, "restarts did not help"))
        verdict = budgets.charge(budget, Account(), now, 0)
    vnode = replace(vnode, account=verdict.account, healthy_for=0)
    if verdict.delay is None:
        vnode, closed = _close(replace(vnode, state=State.QUARANTINED), "quarantined")
        return vnode, closed
    vnode = replace(vnode, state=State.RESTARTING, restarts=vnode.restarts + 1)
    if verdict.delay:
        until = now + verdict.delay
        return replace(vnode, wait=until), (Wait(until),)
    return _load(vnode, State.RESTARTING)


def _fenced_restart(vnode: Vnode, event: Event, now: int) -> Result:
    vnode = _is_fenced(vnode, event)
    if vnode.fault is None:
        return _load(replace(vnode, restarts=vnode.restarts + 1), State.RESTARTING)
    vnode, opened = _open(vnode)
    vnode, actions = _relaunch(vnode, now)
    return vnode, opened + actions


def _fenced_halt(vnode: Vnode, event: Event, now: int) -> Result:
    vnode, opened = _open(_is_fenced(vnode, event))
    vnode, closed = _close(vnode, "halted")
    return vnode, (*opened, *closed, Release())


def _fenced_stop(vnode: Vnode, event: Event, now: int) -> Result:
    """Stopped by an operator; a fault that came first is still recorded, with its dump."""
    crashed = vnode.fault is not None and vnode.fault.crash
    vnode, opened = _open(_is_fenced(vnode, event))
    if crashed and vnode.policy.on_crash.startswith("coredump"):
        return vnode, (*opened, Capture(vnode.incarnation))
    vnode, closed = _close(vnode, "stopped")
    return vnode, (*opened, *closed, Release())


def _stop(vnode: Vnode, event: Event, now: int) -> Result:
    vnode = replace(_unspent(vnode), state=State.STOPPED, wait=None, running_since=None)
    if vnode.fault is None:
        vnode = replace(vnode, reason=OPERATOR)
    if vnode.fenced or vnode.fencing:
        return vnode, ()
    return _fence(vnode)


def _park(vnode: Vnode, event: Event, now: int) -> Result:
    """Its CPUs stop, its memory stays as it is: to look at, to dump, to start anew or to stop."""
    vnode = replace(_unspent(vnode), state=State.FENCED, reason=OPERATOR, running_since=None)
    return _fence(vnode)


def _parked(vnode: Vnode, event: Event, now: int) -> Result:
    return _close(_is_fenced(vnode, event), "fenced")


def _unspent(vnode: Vnode) -> Vnode:
    """A start that an operator ends has not failed: its try is given back."""
    if vnode.state not in LIVE and vnode.state is not State.LOADING:
        return vnode
    return replace(vnode, slots=slotting.returned(vnode.slots, vnode.policy.tries))


def _clear(vnode: Vnode, event: Event, now: int) -> Result:
    return _stop_idle(replace(vnode, account=Account()), event, now)


def _stop_waiting(vnode: Vnode, event: Event, now: int) -> Result:
    """Out of a back-off nothing is in progress; out of a load its end is awaited."""
    waiting = vnode.wait is not None
    vnode, actions = _stop(vnode, event, now)
    if not waiting:
        return vnode, actions
    vnode, closed = _close(vnode, "stopped")
    return vnode, (*closed, Release())


def _stop_idle(vnode: Vnode, event: Event, now: int) -> Result:
    if vnode.state is State.FENCED and vnode.incident:
        return replace(vnode, state=State.STOPPED), ()  # the capture's end releases it
    if not vnode.fenced:
        return _stop(vnode, event, now)
    return replace(vnode, state=State.STOPPED, reason=OPERATOR), (Release(),)


def _release(vnode: Vnode, event: Event, now: int) -> Result:
    """In state stopped: what was in progress has ended."""
    vnode, closed = _close(vnode, "stopped")
    return vnode, (*closed, Release())


def _restart(vnode: Vnode, event: Event, now: int) -> Result:
    vnode = _unspent(vnode)
    return _fence(replace(vnode, state=State.RESTARTING, reason=OPERATOR, running_since=None))


def _delay_elapsed(vnode: Vnode, event: Event, now: int) -> Result:
    return _load(vnode, State.RESTARTING)


def _load_failed(vnode: Vnode, event: Event, now: int) -> Result:
    """A first start leaves nothing behind; a restart that cannot load needs an operator."""
    assert isinstance(event, LoadFailed)
    if vnode.state is State.LOADING:
        return replace(vnode, state=State.OFFLINE, reason=event.text), (Release(),)
    vnode = replace(vnode, state=State.QUARANTINED, reason=event.text)
    return _close(vnode, "load failed")


def _image_refused(vnode: Vnode, event: Event, now: int) -> Result:
    """The slot is bad; the other one is loaded instead, if it may be."""
    assert isinstance(event, ImageRefused)
    slots = vnode.slots
    if not slotting.fallback(slots):
        return _load_failed(vnode, LoadFailed(event.incarnation, event.text), now)
    slots = slotting.condemned(slots, slots.current, event.text)
    return _load(replace(vnode, slots=slots), vnode.state)


def _start_failed(vnode: Vnode, event: Event, now: int) -> Result:
    assert isinstance(event, StartFailed)
    vnode = replace(vnode, state=State.QUARANTINED, reason=event.text)
    return _close(vnode, "start failed")


def _fence_failed(vnode: Vnode, event: Event, now: int) -> Result:
    vnode, opened = _open(vnode)
    vnode, closed = _close(vnode, "fence failed")
    vnode = replace(
        vnode, state=State.QUARANTINED, reason="fence failed", fenced=False, fencing=False
    )
    return vnode, opened + closed


class Rule(NamedTuple):
    """One row: in these states, on this event, this happens, and may lead to `to`."""

    states: frozenset[State]
    event: type
    handle: Callable[[Vnode, Event, int], Result]
    to: frozenset[State]


def _in(*states: State) -> frozenset[State]:
    return frozenset(states)


_S = State
_RELAUNCH = _in(_S.RESTARTING, _S.QUARANTINED)
_DOWN = _in(_S.CRASHED, _S.RESTARTING, _S.HALTED)
_COMPOSING = _in(_S.LOADING, _S.RESTARTING)

RULES: tuple[Rule, ...] = (
    Rule(IDLE, StartRequested, _start, _in(_S.LOADING, _S.RESTARTING)),
    Rule(IDLE, RestartRequested, _start, _in(_S.LOADING, _S.RESTARTING)),
    Rule(LIVE, RestartRequested, _restart, _in(_S.RESTARTING)),
    Rule(_in(_S.QUARANTINED), ClearRequested, _clear, _in(_S.STOPPED)),
    Rule(IDLE, StopRequested, _stop_idle, _in(_S.STOPPED)),
    Rule(LIVE, FenceRequested, _park, _in(_S.FENCED)),
    Rule(_in(_S.FENCED), Fenced, _parked, frozenset()),
    Rule(LIVE | _in(_S.LOADING, _S.CRASHED), StopRequested, _stop, _in(_S.STOPPED)),
    Rule(_in(_S.RESTARTING), StopRequested, _stop_waiting, _in(_S.STOPPED)),
    Rule(_COMPOSING, Loaded, _loaded, _COMPOSING),
    Rule(_COMPOSING, LoadFailed, _load_failed, _in(_S.OFFLINE, _S.QUARANTINED)),
    Rule(_COMPOSING, ImageRefused, _image_refused, _COMPOSING | _in(_S.OFFLINE, _S.QUARANTINED)),
    Rule(_COMPOSING, Started, _started, _in(_S.BOOTING)),
    Rule(_COMPOSING, StartFailed, _start_failed, _in(_S.QUARANTINED)),
    Rule(_in(_S.BOOTING), Ready, _ready, _in(_S.RUNNING)),
    Rule(_in(_S.RUNNING, _S.SUSPECT, _S.HELD), Healthy, _healthy, frozenset()),
    Rule(_in(_S.RUNNING), Suspected, _suspected, _in(_S.SUSPECT)),
    Rule(_in(_S.SUSPECT), Suspected, _suspected, _in(_S.SUSPECT)),
    Rule(_in(_S.RUNNING, _S.SUSPECT), Held, _held, _in(_S.HELD)),
    Rule(_in(_S.SUSPECT, _S.HELD), Recovered, _recovered, _in(_S.RUNNING)),
    Rule(LIVE, Silent, _silent, _in(_S.SUSPECT, _S.CRASHED)),
    Rule(LIVE, Probed, _probed, _in(_S.RUNNING, _S.CRASHED)),
    Rule(LIVE | _COMPOSING, Faulted, _faulted, _DOWN),
    Rule(
        _in(_S.CRASHED),
        Fenced,
        _fenced_crash,
        _RELAUNCH | _in(_S.FENCED, _S.STOPPED),
    ),
    Rule(_in(_S.RESTARTING), Fenced, _fenced_restart, _RELAUNCH),
    Rule(_in(_S.HALTED), Fenced, _fenced_halt, _in(_S.HALTED)),
    Rule(_in(_S.STOPPED), Fenced, _fenced_stop, _in(_S.STOPPED)),
    Rule(_DOWN | _in(_S.STOPPED, _S.FENCED), FenceFailed, _fence_failed, _in(_S.QUARANTINED)),
    Rule(_in(_S.FENCED), Captured, _captured, _RELAUNCH | _in(_S.STOPPED, _S.FENCED)),
    Rule(_in(_S.FENCED), CaptureFailed, _captured, _RELAUNCH | _in(_S.STOPPED, _S.FENCED)),
    Rule(_in(_S.STOPPED), Captured, _release, _in(_S.STOPPED)),
    Rule(_in(_S.STOPPED), CaptureFailed, _release, _in(_S.STOPPED)),
    Rule(_in(_S.STOPPED), Loaded, _release, _in(_S.STOPPED)),
    Rule(_in(_S.STOPPED), LoadFailed, _release, _in(_S.STOPPED)),
    Rule(_in(_S.STOPPED), ImageRefused, _release, _in(_S.STOPPED)),
    Rule(_in(_S.RESTARTING), DelayElapsed, _delay_elapsed, _in(_S.RESTARTING)),
)

TABLE: dict[tuple[State, type], Rule] = {
    (state, rule.event): rule for rule in RULES for state in rule.states
}
