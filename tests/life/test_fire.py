# SPDX-License-Identifier: GPL-2.0-or-later
"""In-kernel fire with no daemon at all: kmb.ko restarts vnode 2, a daemon finds it done."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
last = last.replace("[vnode.restart]", "[vnode.restart]\\nfire_s = 1", 1)
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
UNTIL = 200.0


def until(vnodes: Vnodes, word: str) -> dict[str, Any]:
    end = time.monotonic() + UNTIL
    while (one := vnodes.status(2))["fire"] != word:
        assert time.monotonic() < end, f"{one['fire']!r}, not {word!r}"
        time.sleep(0.5)
    return dict(one)


def kill_daemon(vnodes: Vnodes) -> None:
    pid = vnodes.status(0)["reason"].removeprefix("daemon ")
    vnodes.box.check(f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")


@pytest.fixture
def armed(vnodes: Vnodes) -> Iterator[dict[str, Any]]:
    vnodes.wait(2, "running")
    vnodes.box.check(["cp", CONFIG, "/tmp/before.toml"])
    vnodes.box.check(["python3", "-c", ARM, CONFIG])
    vnodes.text("reload")
    yield until(vnodes, "armed")
    vnodes.box.check(["cp", "/tmp/before.toml", CONFIG])
    vnodes.text("reload")


def test_a_panic_with_no_daemon_is_answered_by_the_kernel(
    vnodes: Vnodes, armed: dict[str, Any]
) -> None:
    last, witness = vnodes.last_incident(2), vnodes.status(1)
    kill_daemon(vnodes)
    vnodes.box.check(["sh", "-c", f"cd /opt/vnode-debug && python3 -c '{INJECT}' PANIC"])
    until(vnodes, "fired")
    vnodes.text("up", "--wait")
    incident = vnodes.incident_after(last, 2)
    assert (incident["reason"], incident["restart"]) == ("panic", "fire")
    assert (incident["state"], incident["outcome"]) == ("complete", "restarted")
    assert incident["dump"]["state"] == "done"
    assert incident["successor"] == armed["incarnation"] + 1
    assert "Linux version 6.1" in vnodes.text("log", "--incident", str(incident["id"]))
    after = vnodes.wait(2, "running")
    assert after["incarnation"] == armed["incarnation"] + 1
    assert after["restarts"] == armed["restarts"] + 1
    assert after["region"] != armed["region"]
    assert vnodes.last_incident(2) == incident["id"]
    assert vnodes.status(1)["incarnation"] == witness["incarnation"]
