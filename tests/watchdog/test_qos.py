# SPDX-License-Identifier: GPL-2.0-or-later
"""The detector's quality: detection times by reason, mistakes from state changes."""

from __future__ import annotations

import pytest

from crashdump.incident import Incident
from watchdog.qos import detection, mistakes, quantile


def incident(reason: str, **stamps: int) -> Incident:
    return Incident(1, 2, "web", 1, reason, True, 0.0, stamps=stamps)


def test_detection_time_is_seen_less_fault_by_reason() -> None:
    found = detection(
        [
            *(incident("hang", fault=0, seen=ms * 1_000_000) for ms in (300, 100, 200)),
            incident("panic", fault=1_000, seen=2_000),
            incident("boot", seen=5),
        ]
    )
    assert set(found) == {"hang", "panic"}
    assert found["hang"] == (3, 0.2, 0.3, 0.3)
    assert found["panic"].max == pytest.approx(1e-6)


@pytest.mark.parametrize(("q", "value"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_quantiles_are_nearest_ranks(q: float, value: float) -> None:
    assert quantile([float(n) for n in range(1, 101)], q) == value
    assert quantile([7.0], q) == 7.0


def change(at: float, was: str, state: str, vnode: int = 2) -> dict:
    return {"time": at, "event": state, "was": was, "vnode": vnode, "name": "web"}


def test_a_suspicion_that_ends_in_running_is_a_mistake_and_one_in_a_crash_is_none() -> None:
    found = mistakes(
        [
            change(0, "booting", "running"),
            change(90, "running", "suspect"),
            change(92, "suspect", "running"),
            change(98, "running", "suspect"),
            change(100, "suspect", "crashed"),
            change(130, "restarting", "booting"),
            change(131, "booting", "running", vnode=3),
        ]
    )
    one = found[2]
    assert (one.count, one.seconds, one.watched) == (1, 2.0, 100.0)
    assert (one.rate, one.accuracy) == (0.01, 0.98)
    assert (found[3].rate, found[3].accuracy) == (0.0, 1.0)


def test_time_without_a_daemon_is_not_watched() -> None:
    found = mistakes(
        [
            change(0, "booting", "running"),
            {"time": 500, "event": "adopted", "vnode": 2, "state": "running", "was": "running"},
            {"time": 501, "event": "daemon", "pid": 5},
            change(510, "running", "suspect"),
            change(520, "suspect", "running"),
            # the machine was reset; a new daemon starts it
            change(9000, "offline", "loading"),
        ]
    )
    assert (found[2].watched, found[2].count) == (20.0, 1)


def test_rubbish_in_the_log_and_a_clock_that_steps_back_are_no_harm() -> None:
    rubbish = [{"vnode": "x"}, {"vnode": 2, "time": None, "was": 1}, {}]
    found = mistakes([*rubbish, change(100, "a", "running"), change(50, "running", "suspect")])
    assert found[2].watched == 0.0
