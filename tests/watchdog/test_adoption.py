# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new daemon does with each state an earlier one may have died in."""

from __future__ import annotations

import pytest

from watchdog import events
from watchdog.adoption import Evidence, adopt, wants_start
from watchdog.config import Restart
from watchdog.states import IDLE, LIVE, Fault, State
from watchdog.supervisor import step


def names(actions) -> str:
    return " ".join(type(action).__name__ for action in actions)


S = State
PANIC = Fault("panic", 3)
RUNS = {"bound": True, "started": 1, "incarnation": 3, "bridge_incarnation": 3}
PARKED = {**RUNS, "started": 0}
OPEN = {"open_incident": True, "recorded": True}

CASES = [
    # evidence, state, actions
    ({}, S.OFFLINE, ""),
    ({"word": S.STOPPED}, S.STOPPED, ""),
    ({"word": S.QUARANTINED}, S.QUARANTINED, ""),
    ({"word": S.LOADING}, S.OFFLINE, ""),
    ({"word": S.FENCED, **OPEN}, S.STOPPED, "FinishIncident"),
    # running: not touched
    ({**RUNS, "word": S.RUNNING, "up": True}, S.RUNNING, ""),
    ({**RUNS, "word": S.SUSPECT, "up": True}, S.RUNNING, ""),
    ({**RUNS, "word": None, "up": True}, S.RUNNING, ""),
    ({**RUNS, "word": S.BOOTING}, S.BOOTING, ""),
    ({**RUNS, "word": S.RESTARTING, **OPEN}, S.BOOTING, ""),
    ({**RUNS, "word": S.BOOTING, "up": True, **OPEN}, S.RUNNING, "FinishIncident"),
    ({**RUNS, "word": S.QUARANTINED}, S.QUARANTINED, ""),
    # running, but something had happened
    ({**RUNS, "word": S.RUNNING, "up": True, "fault": PANIC}, S.CRASHED, "Fence"),
    ({**RUNS, "word": S.CRASHED, "reason": "irqhang", "up": True}, S.CRASHED, "Fence"),
    ({**RUNS, "word": S.STOPPED, "up": True}, S.STOPPED, "Fence"),
    ({**RUNS, "word": S.HALTED, "fault": Fault("halt", 3, crash=False)}, S.HALTED, "Fence"),
    ({**RUNS, "word": S.FENCED, "reason": "operator", "up": True}, S.FENCED, "Fence"),
    # parked: again, from the fence
    ({**PARKED, "word": S.CRASHED, "reason": "hang"}, S.CRASHED, "Fence"),
    ({**PARKED, "word": S.FENCED, "fault": PANIC}, S.CRASHED, "Fence"),
    ({**PARKED, "word": S.FENCED, "reason": "panic", **OPEN}, S.CRASHED, "Fence"),
    ({**PARKED, "word": S.FENCED, "recorded": True}, S.FENCED, ""),
    ({**PARKED, "word": S.FENCED, "reason": "operator"}, S.FENCED, ""),
    ({**PARKED, "word": S.RESTARTING, **OPEN}, S.RESTARTING, "Fence"),
    ({**PARKED, "word": S.LOADING}, S.RESTARTING, "Fence"),
    # killed before the successor was in memory: its predecessor's crash is recorded
    (
        {**PARKED, "word": S.RESTARTING, "incarnation": 4, "fault": PANIC, "open_incident": True},
        S.RESTARTING,
        "Fence",
    ),
    ({**PARKED, "word": S.STOPPED}, S.STOPPED, "Fence"),
    ({**PARKED, "word": S.HALTED, "recorded": True}, S.HALTED, "Release"),
    ({**PARKED, "word": None}, S.STOPPED, "Fence"),
    ({**PARKED, "word": S.RUNNING, "up": True}, S.CRASHED, "Fence"),
]


@pytest.mark.parametrize(("evidence", "state", "wanted"), CASES)
def test_cases(evidence, state, wanted) -> None:
    vnode, actions = adopt(Evidence(**evidence), Restart(), 5)
    assert vnode.state is state
    assert names(actions) == wanted


def finish(vnode, actions) -> tuple[object, list[str]]:
    """Answer every action with success until nothing is left to do."""
    queue, done = list(actions), []
    while queue:
        action = queue.pop(0)
        done.append(type(action).__name__)
        answer = {
            "Fence": events.Fenced,
            "Capture": events.Captured,
            "Load": events.Loaded,
            "Start": events.Started,
        }.get(done[-1])
        if answer:
            vnode, more = step(vnode, answer(action.incarnation), 6)
            queue.extend(more)
    return vnode, done


@pytest.mark.parametrize("evidence", [case[0] for case in CASES])
def test_every_adoption_ends_well_and_doubles_nothing(evidence) -> None:
    found = Evidence(**evidence)
    vnode, actions = adopt(found, Restart(), 5)
    vnode, done = finish(vnode, actions)
    assert vnode.state in LIVE | IDLE
    assert done.count("Start") <= 1
    assert done.count("OpenIncident") == 0 or not found.recorded
    if "Capture" in done or "Load" in done:
        assert "Fence" in done
    if vnode.state is S.BOOTING and vnode.incident:
        vnode, actions = step(vnode, events.Ready(vnode.incarnation), 7)
        assert names(actions) == "FinishIncident"


def test_who_is_started() -> None:
    assert wants_start(Evidence(), True) and not wants_start(Evidence(), False)
    assert not wants_start(Evidence(word=S.STOPPED), True)
    assert wants_start(Evidence(word=S.LOADING), False)
    assert not wants_start(Evidence(bound=True), True)
