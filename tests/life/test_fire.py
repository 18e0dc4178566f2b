# SPDX-License-Identifier: GPL-2.0-or-later
"""In-kernel fire without a daemon that acts: kmb.ko restarts vnode 2, a daemon finds it done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Vnodes = Any  # of conftest.py

pytestmark = [pytest.mark.box, pytest.mark.timeout(600)]

CONFIG = "/etc/vnode-debug/vnodes.toml"
ARM = """
import sys
text = open(sys.argv[1]).read()
first, last = text.split("id = 2", 1)
last = last.replace("[vnode.restart]", "[vnode.restart]\\n" + "\\n".join(sys.argv[2:]), 1)
open(sys.argv[1], "w").write(first + "id = 2" + last)
"""
INJECT = """
import sys
from adeos import abi
from adeos.bridge import Bridge
from adeos.kmb import KmbMachine
machine = KmbMachine(writable=True)
machine.claim()
bridge = Bridge.open(machine, machine.query(2).region, writable=True)
bridge.command(abi.Cmd.INJECT, abi.Inject[sys.argv[1]])
machine.ipi(2, 0, bridge.vnode_side().vector)
"""
STOP = """
import base64, os, signal, sys
from watchdog.client import Client
line = base64.b64encode(b"(sleep 3; echo c >/proc/sysrq-trigger)&\\n").decode()
Client(timeout=30).call("console-input", vnode=2, data=line)
os.kill(int(sys.argv[1]), signal.SIGSTOP)
"""
UNTIL = 200.0


def until(vnodes: Vnodes, word: str) -> dict[str, Any]:
    end = time.monotonic() + UNTIL
    while (one := vnodes.status(2))["fire"] != word:
        assert time.monotonic() < end, f"{one['fire']!r}, not {word!r}"
        time.sleep(0.5)
    return dict(one)


def daemon(vnodes: Vnodes) -> int:
    return int(vnodes.status(0)["reason"].removeprefix("daemon "))


def kill_daemon(vnodes: Vnodes) -> None:
    pid = daemon(vnodes)
    vnodes.box.check(f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")


def python(vnodes: Vnodes, program: str, *words: str) -> None:
    vnodes.box.check(["env", "-C", "/opt/vnode-debug", "python3", "-c", program, *words])


@contextmanager
def arming(vnodes: Vnodes, *policy: str) -> Iterator[dict[str, Any]]:
    """Vnode 2 armed, with these lines in its [vnode.restart]; its status then."""
    vnodes.wait(2, "running")
    vnodes.box.check(["cp", CONFIG, "/tmp/before.toml"])
    try:
        python(vnodes, ARM, CONFIG, "fire_s = 1", *policy)
        vnodes.text("reload")
        yield until(vnodes, "armed")
    finally:
        vnodes.box.check(["cp", "/tmp/before.toml", CONFIG])
        vnodes.text("up", "--wait")  # with a daemon that a failed test has left dead
        vnodes.text("reload")


@pytest.fixture
def armed(vnodes: Vnodes) -> Iterator[dict[str, Any]]:
    with arming(vnodes) as status:
        yield status


def fired(vnodes: Vnodes, armed: dict[str, Any], last: int) -> dict[str, Any]:
    """The incident, once kmb.ko has fired and a new daemon has filed it; the vnode runs again."""
    until(vnodes, "fired")
    vnodes.text("up", "--wait")
    incident = vnodes.incident_after(last, 2)
    assert incident["restart"] == "fire"
    assert (incident["state"], incident["outcome"]) == ("complete", "restarted")
    assert incident["successor"] == armed["incarnation"] + 1
    after = vnodes.wait(2, "running")
    assert after["incarnation"] == armed["incarnation"] + 1
    assert after["restarts"] == armed["restarts"] + 1
    assert vnodes.last_incident(2) == incident["id"]
    return incident


def test_a_panic_with_no_daemon_is_answered_by_the_kernel(
    vnodes: Vnodes, armed: dict[str, Any]
) -> None:
    last, witness = vnodes.last_incident(2), vnodes.status(1)
    kill_daemon(vnodes)
    python(vnodes, INJECT, "PANIC")
    incident = fired(vnodes, armed, last)
    assert incident["reason"] == "panic"
    assert incident["dump"]["state"] == "done"
    assert "Linux version 6.1" in vnodes.text("log", "--incident", str(incident["id"]))
    assert vnodes.status(2)["region"] != armed["region"]
    assert vnodes.status(1)["incarnation"] == witness["incarnation"]


@pytest.mark.slow
def test_a_hang_with_no_daemon_is_answered_by_the_kernel(
    vnodes: Vnodes, armed: dict[str, Any]
) -> None:
    last = vnodes.last_incident(2)
    kill_daemon(vnodes)
    python(vnodes, INJECT, "IRQHANG")
    incident = fired(vnodes, armed, last)
    assert incident["reason"] == "irqhang"
    assert incident["dump"]["state"] == "done"
    known = f"/var/lib/vnode-debug/incidents/{incident['id']:04}/crash.json"
    assert json.loads(vnodes.box.check(["cat", known]))["cpus"][0]  # asked for by NMI


@pytest.mark.slow
def test_without_a_spare_region_it_is_started_where_it_crashed(vnodes: Vnodes) -> None:
    with arming(vnodes, 'on_crash = "restart"') as armed:
        last = vnodes.last_incident(2)
        kill_daemon(vnodes)
        python(vnodes, INJECT, "PANIC")
        incident = fired(vnodes, armed, last)
        assert incident["reason"] == "panic"
        assert vnodes.status(2)["region"] == armed["region"]
        assert incident["dump"]["state"] == "skipped"


@pytest.mark.slow
def test_a_daemon_that_stands_still_is_killed_and_the_kernel_acts(
    vnodes: Vnodes, armed: dict[str, Any]
) -> None:
    last, pid = vnodes.last_incident(2), daemon(vnodes)
    python(vnodes, STOP, str(pid))
    incident = fired(vnodes, armed, last)
    assert incident["reason"] == "panic"
    assert vnodes.box.run(f"kill -0 {pid}").returncode != 0
