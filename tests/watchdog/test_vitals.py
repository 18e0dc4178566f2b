# SPDX-License-Identifier: GPL-2.0-or-later
"""Vnodes without an agent: jiffies tell.  Finding a real kernel is introspect's test."""

from __future__ import annotations

import time

import pytest

from watchdog import vitals


def reason(rig) -> str:
    return next(one["reason"] for one in rig.client.call("status")["vnodes"] if one["id"] == 1)


@pytest.fixture
def silent(make_rig, rig_tools, monkeypatch):
    """A vnode whose kernel has no agent, with jiffies that this test moves."""
    clock = {"ticks": 100, "move": True, "late": "", "slow": 0}

    def read() -> int:
        clock["ticks"] += clock["move"]
        return clock["ticks"]

    def late(_now) -> str:
        time.sleep(clock["slow"])
        return clock["late"]

    found = vitals.Found(read, late)
    monkeypatch.setattr(vitals, "readers", lambda machine, base, size, watch: [found])
    monkeypatch.setattr(vitals, "PROGRESS_S", 0.05)

    def make(agent: bool):
        watch = f"agent = {str(agent).lower()}\njiffies = {{ period_ms = 50, limit_ms = 400 }}\n"
        text = rig_tools.vnode_text(1, "one", [1], 'on_crash = "destroy"')
        text = text.replace("[vnode.restart]", watch + "[vnode.restart]")
        return make_rig(text, rig_tools.LastingMachine(boots=False)).start(), clock

    return make


def test_moving_jiffies_are_life_and_standing_ones_a_hang(silent) -> None:
    rig, clock = silent(agent=False)
    rig.wait(1, "running")
    clock["move"] = False
    rig.wait(1, "stopped")
    (incident,) = rig.finished(1)
    assert incident.reason == "hang" and incident.crash


def test_what_gets_nothing_done_is_suspect_and_recovers(silent) -> None:
    rig, clock = silent(agent=False)
    rig.wait(1, "running")
    for words in ("RCU stall", "hung task cp"):
        clock["late"] = words
        rig.wait(1, "suspect")
        rig.until(lambda words=words: reason(rig) == words, words)
    clock["late"] = ""
    rig.wait(1, "running")
    assert rig.incidents() == []


def test_a_look_that_takes_longer_than_the_limit_is_no_hang(silent) -> None:
    rig, clock = silent(agent=False)
    clock["slow"] = 1
    rig.wait(1, "running")
    clock["late"] = "RCU stall"
    rig.wait(1, "suspect")
    assert rig.incidents() == []


def test_moving_jiffies_double_the_time_to_boot(silent) -> None:
    rig, _clock = silent(agent=True)
    rig.wait(1, "stopped")
    (incident,) = rig.finished(1)
    assert incident.reason == "boot"
    assert incident.stamps["seen"] >= 2 * 1500 * 1_000_000  # ns since the start
