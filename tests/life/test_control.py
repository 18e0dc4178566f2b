# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb stops, steps and breaks a running stock kernel, and leaves it as it found it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Vnodes = Any  # of conftest.py

pytestmark = [pytest.mark.box, pytest.mark.timeout(900)]

TOOLKIT = "/opt/vnode-debug"
FORKS = b"while :; do /bin/busybox true; done & forks=$!\n"
QUIET = b"kill $forks\n"


def stress(vnodes: Vnodes, *words: str, timeout: float = 600) -> dict[str, Any]:
    line = f"cd {TOOLKIT} && PYTHONPATH=. python3 -m tests.life.control_stress {' '.join(words)}"
    return dict(json.loads(vnodes.box.check(line, timeout)))


def type_into(vnodes: Vnodes, vnode: int, line: bytes) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from watchdog import paths\n"
        "from watchdog.client import Client\n"
        "client = Client(paths.control_socket())\n"
        "client.call('console-input', vnode=int(sys.argv[2]), data=sys.argv[3])\n"
    )
    data = base64.b64encode(line).decode()
    vnodes.box.check(["python3", "-c", code, TOOLKIT, str(vnode), data])


def seen_after(vnodes: Vnodes, number: int) -> dict[str, Any]:
    """The first incident of vnode 2 later than `number`.

    Asked seldom, for that starves the dump's writer.
    """
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        later = [i for i in vnodes.json("incidents", "--vnode", "2") if i["id"] > number]
        if later:
            return dict(later[0])
        time.sleep(3)
    pytest.fail(f"no incident after {number}")


@pytest.fixture
def forking(vnodes: Vnodes) -> Iterator[Vnodes]:
    """Vnode 2 forks all the time."""
    vnodes.wait(2, "running")
    type_into(vnodes, 2, FORKS)
    yield vnodes
    type_into(vnodes, 2, QUIET)


def test_gdb_breaks_steps_and_watches(vnodes: Vnodes) -> None:
    before = vnodes.wait(2, "running")
    commands = [
        "p init_task.comm",
        "break schedule_hrtimeout_range_clock",
        "continue",
        "bt 3",
        "stepi",
        "x/i $pc",
        "set $saved = $rax",
        "set $rax = 0x1234",
        "p/x $rax",
        "set $rax = $saved",
        "x/2xb schedule_hrtimeout_range_clock",
        "delete",
        "watch jiffies",
        "continue",
        "delete",
        "shell vnode-debug status --json",
        "shell vnode-debug attach --stop 2 --batch -ex quit; echo code $?",
        "detach",
    ]
    words = [word for command in commands for word in ("-ex", command)]
    done = vnodes.run("attach", "--stop", "--no-tasks", "2", "--batch", *words, timeout=600)
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    assert '$1 = "swapper/0' in out
    assert "Breakpoint 1, 0x" in out and "in schedule_hrtimeout_range_clock ()" in out
    assert "#1  0x" in out
    assert "$2 = 0x1234" in out
    assert "0xcc" not in out.partition("$2 = ")[2].partition("watchpoint")[0]
    assert "Hardware watchpoint 2: jiffies" in out and "New value = " in out
    assert '"held"' in out
    assert "controls it" in out and "code 6" in out
    after = vnodes.wait(2, "running")
    assert after["incarnation"] == before["incarnation"]


def test_breakpoints_under_load(forking: Vnodes) -> None:
    found = stress(forking, "hits", "2", "30")
    assert (found["hits"], found["lost"], found["held"], found["complaints"]) == (30, 0, 0, [])


def test_kill_9_leaves_a_clean_vnode(forking: Vnodes) -> None:
    found = stress(forking, "kills", "2", "20", "1")
    assert (found["bad"], found["complaints"]) == ([], [])
    assert found["held_when_killed"] > 4


def test_a_frozen_debugger_leaves_a_clean_vnode(forking: Vnodes) -> None:
    found = stress(forking, "lapse", "2", "10", "1")
    assert (found["bad"], found["complaints"]) == ([], [])
    assert found["held_when_frozen"] > 2


def test_attach_and_detach(forking: Vnodes) -> None:
    found = stress(forking, "attach", "2", "20")
    assert (found["held"], found["complaints"]) == (0, [])


def test_a_hang_with_interrupts_off_is_stopped(vnodes: Vnodes) -> None:
    before = vnodes.last_incident(2)
    vnodes.wait(2, "running")
    found = stress(vnodes, "hang", "2")
    assert found["state"] == "HELD"
    assert found["reason"].startswith("debugger ")
    assert "vnode_agent" in found["where"][0]
    assert found["off"] == [True]
    assert seen_after(vnodes, before)["reason"] == "irqhang"  # once nobody holds it
    vnodes.wait(2, "running")


def test_both_cpus_of_a_vnode(vnodes: Vnodes) -> None:
    vnodes.text("stop", "2", "--wait")
    vnodes.text("start", "3", "--wait")
    try:
        type_into(vnodes, 3, FORKS)
        found = stress(vnodes, "hits", "3", "20")
        assert (found["hits"], found["lost"], found["complaints"]) == (20, 0, [])
        found = stress(vnodes, "again", "3", "60")
        assert (found["stops"], found["complaints"]) == (60, [])
        found = stress(vnodes, "lapse", "3", "10", "2")
        assert (found["bad"], found["complaints"]) == ([], [])
        assert vnodes.wait(3, "running")["incarnation"] == vnodes.status(3)["incarnation"]
    finally:
        vnodes.text("stop", "3", "--wait")
        vnodes.text("start", "2", "--wait")
