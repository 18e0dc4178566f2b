# SPDX-License-Identifier: GPL-2.0-or-later
"""What vCont does: which CPUs run, which step, and what a client is told that cannot have it.

The CPUs of a watched target run whatever the client believes: to continue is to wait.  Under
control only those that an action names run; the others stay parked.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from debugger import nonstop
from debugger.errors import TargetError
from debugger.session import EINVAL, SIGINT, Failure, Phase, Reply, Session
from debugger.target import Liveness, Target


class Way(Enum):
    """What an action does to a thread."""

    CONTINUE = b"c"
    STEP = b"s"
    STOP = b"t"
    """In non-stop alone."""


WAYS = {way.value: way for way in Way}


class Action(NamedTuple):
    """Of a vCont packet: a process and a thread, -1 is every one."""

    way: Way
    pid: int
    tid: int


def resume(session: Session, actions: Sequence[Action]) -> Reply:
    """Carry the actions out; the first that fits a thread counts.  None: a stop reply follows."""
    if session.nonstop:
        return _resume_nonstop(session, actions)
    running = session.pid
    for pid, target in list(session.targets.items()):
        mine = [action for action in actions if action.pid in (-1, pid)]
        if not mine:
            continue
        session.pid = pid
        reply = _resume_one(session, target, mine)
        if reply is not None:
            return reply
        session.resumed.add(pid)
    session.pid = running
    if not session.resumed:
        raise Failure(EINVAL, "no such process")
    session.phase = Phase.RESUMED
    return None


def _resume_nonstop(session: Session, actions: Sequence[Action]) -> Reply:
    """Each action at once; what stops is told later."""
    for action in actions:
        for pid, target in session.targets.items():
            if action.pid not in (-1, pid):
                continue
            session.resumed.add(pid)
            if action.way is Way.STOP:
                nonstop.stop(session, pid, target, action.tid)
            elif target.pilot is not None and target.pilot.held:
                target.pilot.resume(_of_cpus(target, [action]))
    return b"OK"


def _resume_one(session: Session, target: Target, actions: Sequence[Action]) -> Reply:
    """A reply when the target does not run, else None."""
    change = target.change()
    if change is not None and change.gone:
        return session.end(change)
    steps = [action for action in actions if action.way is Way.STEP]
    if steps and steps[0].tid > 0 and target.thread(steps[0].tid) is not None:
        session.focus = steps[0].tid
    why = _refusal(session, target, steps)
    if why:
        session.breakpoint_refused = False
        session.say(why)
        return session.stop(SIGINT)
    if target.pilot is not None and target.pilot.held:
        try:
            target.pilot.resume(_of_cpus(target, actions))
        except TargetError as error:
            session.say(str(error))
            return session.stop(SIGINT)
    return None


def _of_cpus(target: Target, actions: Sequence[Action]) -> dict[int, bool]:
    """CPU threads that run -> whether they step."""
    chosen: dict[int, bool] = {}
    for thread in target.threads():
        if not thread.is_cpu:
            continue
        action = next((a for a in actions if a.tid in (-1, thread.tid)), None)
        if action is not None:
            chosen[thread.tid] = action.way is Way.STEP
    return chosen


def _refusal(session: Session, target: Target, steps: Sequence[Action]) -> str:
    name = target.identity.name
    if target.liveness is Liveness.DEAD:
        return f"{name} is dead: its CPUs do not run"
    if target.pilot is not None and target.pilot.held:
        thread = target.thread(steps[0].tid) if steps and steps[0].tid > 0 else None
        if thread is not None and not thread.is_cpu:
            return f"{thread.name} is on no CPU: it cannot be stepped"
        return ""
    if steps:
        return f"{name} is watched, not stopped: it cannot be stepped"
    if session.breakpoint_refused:  # gdb may not have told: symbols of an added file
        return f"{name} is watched, not stopped: no breakpoint was set"
    return ""
