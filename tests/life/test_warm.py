# SPDX-License-Identifier: GPL-2.0-or-later
"""Restarts without booting, of real kernels: vnode 2 stands by, vnode 1 is the witness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Vnodes = Any  # of conftest.py

pytestmark = [pytest.mark.box, pytest.mark.timeout(1200)]

CONFIG = "/etc/vnode-debug/vnodes.toml"
CLOCK = (
    "import drgn; at = prog.symbol('shadow_timekeeper').address; "
    "print(drgn.Object(prog, 'struct timekeeper', address=at).xtime_sec.value_())"
)
STANDBY = """
import sys
text = open(sys.argv[1]).read()
first, last = text.split("id = 2", 1)
last = last.replace("[vnode.restart]", '[vnode.restart]\\nstrategy = "standby"')
open(sys.argv[1], "w").write(first + "id = 2" + last)
"""


def roles(vnodes: Vnodes, vnode: int) -> set[str]:
    return {one["role"] for one in vnodes.json("images", str(vnode))}


def until_it_stands_by(vnodes: Vnodes, vnode: int = 2) -> None:
    end = time.monotonic() + 300
    while (
        roles(vnodes, vnode) != {"running", "standby"} or vnodes.status(vnode)["state"] != "running"
    ):
        assert time.monotonic() < end, vnodes.text("images")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def warm(vnodes: Vnodes) -> Iterator[Vnodes]:
    """The vnodes with a standby of vnode 2 (and of 3, when that is started)."""
    vnodes.text("down", timeout=120)
    vnodes.box.check(["cp", CONFIG, "/tmp/before.toml"])
    vnodes.box.check(["python3", "-c", STANDBY, CONFIG])
    vnodes.text("up", "--wait", "--timeout", "300", timeout=320)
    until_it_stands_by(vnodes)
    yield vnodes
    vnodes.text("down", timeout=120)
    vnodes.box.check(["cp", "/tmp/before.toml", CONFIG])
    vnodes.text("up", "--wait", "--timeout", "300", timeout=320)


@pytest.mark.parametrize("fault", ["panic", "irqhang"])
def test_a_failure_is_answered_by_the_standby_and_the_dump_is_whole(
    warm: Vnodes, fault: str
) -> None:
    until_it_stands_by(warm)
    witness, before = warm.status(1), warm.status(2)
    incident = warm.fail(2, fault)
    assert (incident["restart"], incident["outcome"]) == ("standby", "restarted")
    assert incident["image_age"] > 0
    assert incident["dump"]["state"] == "done"
    assert [s for s in incident["stamps"] if s in ("restored", "resumed")] == [
        "restored",
        "resumed",
    ]
    after = warm.wait(2, "running")
    assert (after["way"], after["incarnation"]) == ("standby", before["incarnation"] + 1)
    assert after["region"] != before["region"]
    assert "Linux version 6.1" in warm.text("log", "--incident", str(incident["id"]))
    now = warm.status(1)
    assert (now["state"], now["incarnation"]) == ("running", witness["incarnation"])


def test_the_resumed_kernel_has_no_complaint_and_the_right_time(warm: Vnodes) -> None:
    until_it_stands_by(warm)
    warm.text("restart", "2", "--strategy", "standby", "--wait")
    assert warm.status(2)["way"] == "standby"
    time.sleep(2)
    log = warm.text("log", "2")
    assert "vnode_agent: resumed as incarnation" in log
    assert not [line for line in log.splitlines() if "WARN" in line or "BUG" in line]
    before = time.time()
    vnode = int(warm.text("drgn", "-e", CLOCK, "2"))
    assert before - 5 < vnode < time.time() + 5


def test_freeze_on_demand_then_warm(warm: Vnodes) -> None:
    before = warm.status(1)
    assert [one["role"] for one in warm.json("freeze", "1")] == ["running"]
    frozen = warm.status(1)
    assert (frozen["state"], frozen["incarnation"]) == ("running", before["incarnation"])
    warm.text("restart", "1", "--strategy", "warm", "--wait")
    after = warm.status(1)
    assert (after["way"], after["incarnation"]) == ("warm", before["incarnation"] + 1)


def test_a_task_that_does_not_freeze_is_named_and_the_vnode_goes_on(warm: Vnodes) -> None:
    before = warm.status(1)
    warm.text("inject", "1", "stuck")
    refused = warm.run("freeze", "1")
    assert refused.returncode == 6
    assert 'task "vnode_inject/0"' in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    time.sleep(1)
    after = warm.status(1)
    assert (after["state"], after["incarnation"]) == ("running", before["incarnation"])


def test_a_vnode_of_two_cpus_comes_back_on_both(warm: Vnodes) -> None:
    """Vnode 3, on the CPU of vnode 2 and another one."""
    warm.text("stop", "2")
    warm.text("start", "3", "--wait")
    try:
        until_it_stands_by(warm, 3)
        for fault in (("panic", "--cpu", "1"), ("irqhang",)):
            until_it_stands_by(warm, 3)
            before = warm.status(3)["incarnation"]
            incident = warm.fail(3, *fault)
            assert (incident["restart"], incident["outcome"]) == ("standby", "restarted")
            after = warm.wait(3, "running")
            assert (after["way"], after["incarnation"]) == ("standby", before + 1)
            assert len(after["beats"]) == 2
            assert all(cpu["irq"]["beats"] and cpu["irq"]["age_s"] < 5 for cpu in after["beats"])
            log = warm.text("log", "3")
            assert not [line for line in log.splitlines() if "WARN" in line or "BUG" in line]
    finally:
        warm.text("stop", "3")
        warm.text("start", "2", "--wait")
