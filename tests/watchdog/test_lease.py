# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode that a debugger has stopped is held: not suspected, not restarted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from watchdog.events import Faulted, Held, Recovered, Silent, Suspected
from watchdog.lease import leased
from watchdog.states import Fault, State

NOW = 1000


class Armed:
    def __init__(self) -> None:
        self.times: list[int] = []

    def arm(self, counts: Any, now: int) -> None:
        self.times.append(now)


def unit(state: State) -> Any:
    watched = SimpleNamespace(
        incarnation=4, detector=Armed(), counts=lambda: (1, 2, 3, 0), lease_period=10, ask_lease=0
    )
    watched.released = NOW
    return SimpleNamespace(id=2, vnode=SimpleNamespace(state=state), watched=watched)


def machine(until: int) -> Any:
    return SimpleNamespace(query=lambda _id: SimpleNamespace(holder=77, held_until=until))


SILENCE = [
    Silent(Fault("irqhang", 4)),
    Suspected(4, "irqhang"),
    Faulted(Fault("boot", 4)),
    Faulted(Fault("hang", 4)),
]


@pytest.mark.parametrize("event", SILENCE)
def test_silence_under_a_lease_is_a_hold(event: Any) -> None:
    held = unit(State.RUNNING)
    assert leased(machine(NOW + 1), held, event, NOW) == Held(4, "debugger 77")
    assert held.watched.detector.times == [NOW]


@pytest.mark.parametrize("event", SILENCE)
@pytest.mark.parametrize("until", [0, NOW])
def test_without_a_lease_silence_is_what_it_is(event: Any, until: int) -> None:
    assert leased(machine(until), unit(State.RUNNING), event, NOW) is event


def test_a_hold_that_no_look_has_met_excuses_the_silence_until_its_end_once() -> None:
    running = unit(State.SUSPECT)
    running.watched.released = NOW - 100
    assert leased(machine(NOW - 10), running, SILENCE[0], NOW) is None
    assert running.watched.detector.times == [NOW]
    assert leased(machine(NOW - 10), running, SILENCE[0], NOW + 50) is SILENCE[0]


def test_a_held_vnode_stays_so_and_its_deadlines_move() -> None:
    held = unit(State.HELD)
    assert leased(machine(NOW + 1), held, None, NOW) is None
    assert leased(machine(NOW + 2), held, SILENCE[0], NOW + 1) is None
    assert held.watched.detector.times == [NOW, NOW + 1]


def test_a_held_vnode_is_not_asked_for_at_each_tick() -> None:
    asked: list[int] = []

    def query(vnode: int) -> Any:
        asked.append(vnode)
        return SimpleNamespace(holder=77, held_until=NOW + 100)

    held = unit(State.HELD)
    for tick in range(20):
        assert leased(SimpleNamespace(query=query), held, SILENCE[0], NOW + tick) is None  # type: ignore[arg-type]
    assert len(asked) == 2
    assert len(held.watched.detector.times) == 20


def test_the_end_of_the_lease_lets_it_run_with_fresh_deadlines() -> None:
    held = unit(State.HELD)
    assert leased(machine(NOW), held, SILENCE[0], NOW) == Recovered(4)


@pytest.mark.parametrize("reason", ["panic", "oops", "halt", "corrupt"])
@pytest.mark.parametrize("state", [State.RUNNING, State.HELD])
def test_what_the_vnode_reports_itself_counts_always(reason: str, state: State) -> None:
    event = Faulted(Fault(reason, 4))
    assert leased(machine(NOW + 1), unit(state), event, NOW) is event


def test_quiet_and_running_asks_nobody() -> None:
    def query(_vnode: int) -> None:
        raise AssertionError("asked")

    assert leased(SimpleNamespace(query=query), unit(State.RUNNING), None, NOW) is None  # type: ignore[arg-type]
