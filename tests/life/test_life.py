# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole toolkit in the box: real kernels are started, fail, are captured and restarted.

Every fault is put into vnode 2 (beta) or 3 (pair); vnode 1 (alpha) is the witness and must live
through all of it as the incarnation it started as.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Vnodes = Any  # of conftest.py

pytestmark = [pytest.mark.box, pytest.mark.timeout(900)]

FAULTS = ("panic", "oops", "hang", "softlockup", "irqhang", "reboot")


def user_beats(status: dict[str, Any]) -> int:
    return sum(cpu["user"]["beats"] for cpu in status["beats"])


@pytest.fixture(autouse=True)
def _alpha_lives(vnodes: Vnodes) -> Iterator[None]:
    before = vnodes.status(1)
    assert before["state"] == "running"
    yield
    after = vnodes.status(1)
    assert after["state"] == "running"
    assert after["incarnation"] == before["incarnation"]
    assert user_beats(after) > user_beats(before)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_and_the_vnode_restarted(vnodes: Vnodes, fault: str) -> None:
    before = vnodes.wait(2, "running")
    incident = vnodes.fail(2, fault)
    assert incident["reason"] == fault
    assert incident["state"] == "complete"
    assert incident["outcome"] == "restarted"
    assert incident["crash"] == (fault != "reboot")
    assert incident["dump"]["state"] == ("none" if fault == "reboot" else "done")
    assert incident["witnesses"][0]["after"] > incident["witnesses"][0]["before"]
    after = vnodes.wait(2, "running")
    assert after["incarnation"] == before["incarnation"] + 1


def test_halt_is_no_crash(vnodes: Vnodes) -> None:
    vnodes.wait(2, "running")
    incident = vnodes.fail(2, "halt")
    assert (incident["reason"], incident["crash"]) == ("halt", False)
    assert incident["dump"]["state"] == "none"
    assert vnodes.status(2)["state"] == "halted"
    vnodes.text("start", "2", "--wait")
    assert vnodes.status(2)["state"] == "running"


@pytest.fixture(scope="module")
def oopsed(vnodes: Vnodes) -> dict[str, Any]:
    """The incident of an oops."""
    vnodes.wait(2, "running")
    return dict(vnodes.fail(2, "oops"))


def test_faults_in_a_row(vnodes: Vnodes) -> None:
    for _ in range(2):
        incident = vnodes.fail(2, "panic")
        assert (incident["reason"], incident["outcome"]) == ("panic", "restarted")
        assert incident["dump"]["state"] == "done"


def test_stages_come_in_order(oopsed: dict[str, Any]) -> None:
    stages = ["fault", "reported", "seen", "fenced", "captured", "started", "running"]
    stamps = oopsed["stamps"]
    assert list(stamps) == stages
    assert list(stamps.values()) == sorted(stamps.values())


def test_log_of_a_running_and_of_a_dead_vnode(vnodes: Vnodes, oopsed: dict[str, Any]) -> None:
    assert "Linux version 6.1" in vnodes.text("log", "2")
    log = vnodes.text("log", "--incident", str(oopsed["id"]))
    assert "BUG: kernel NULL pointer dereference" in log
    assert "Kernel panic - not syncing" in log


def test_attach_to_a_running_vnode(vnodes: Vnodes) -> None:
    vnodes.wait(2, "running")
    text = vnodes.text(
        "attach", "2", "--batch", "-ex", "x/s linux_banner", "-ex", "info threads", "-ex", "x/i $pc"
    )
    assert "Linux version 6.1" in text
    assert "CPU 0" in text
    assert "=> 0xffffffff" in text
    assert vnodes.status(2)["state"] == "running"


def test_drgn_on_a_running_vnode_without_debuginfo(vnodes: Vnodes) -> None:
    code = "print(len(list(for_each_task(prog))), find_task(prog, 1).comm.string_())"
    count, comm = vnodes.text("drgn", "-e", code, "1").split()
    assert int(count) > 20
    assert comm == "b'init'"


def test_attach_to_a_dead_vnode(vnodes: Vnodes, oopsed: dict[str, Any]) -> None:
    arguments = ("--batch", "-ex", "x/s linux_banner", "-ex", "info threads", "-ex", "bt 2")
    text = vnodes.text("attach", "--incident", str(oopsed["id"]), *arguments)
    assert "Linux version 6.1" in text
    assert "do_oops" in text


@pytest.mark.parametrize("cpu", [0, 1])
def test_panic_on_either_cpu_of_a_pair(vnodes: Vnodes, cpu: int) -> None:
    if vnodes.status(2)["state"] != "stopped":
        vnodes.text("stop", "2", "--wait")
    if vnodes.status(3)["state"] != "running":
        vnodes.text("start", "3", "--wait")
    incident = vnodes.fail(3, "panic", "--cpu", str(cpu))
    assert (incident["reason"], incident["cpu"]) == ("panic", cpu)
    assert f"CPU {cpu}" in incident["message"]
    text = vnodes.text(
        "attach",
        "--no-tasks",
        "--incident",
        str(incident["id"]),
        "--batch",
        "-ex",
        "thread apply all p $pc",
    )
    pcs = re.findall(r"^\$\d = .*(0xffffffff\w{8})", text, re.MULTILINE)
    assert len(set(pcs)) == 2, text  # registers of both CPUs


def test_back_to_beta(vnodes: Vnodes) -> None:
    """A vnode whose CPU another one has is refused, and started once it is free."""
    if vnodes.status(3)["state"] != "running":
        vnodes.text("start", "3", "--wait")
    refused = vnodes.run("start", "2")
    assert refused.returncode != 0
    assert "pair" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    vnodes.text("stop", "3", "--wait")
    vnodes.text("start", "2", "--wait")


def kill_daemon(vnodes: Vnodes) -> None:
    """kill -9, and wait until the kernel has taken its files from it: the owner's among them."""
    root = next(one for one in vnodes.json("status") if one["id"] == 0)
    pid = root["reason"].removeprefix("daemon ")
    assert "daemon" in vnodes.box.check(f"tr '\\0' ' ' </proc/{pid}/cmdline")
    vnodes.box.check(f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")


def test_killed_daemon_is_replaced_and_adopts(vnodes: Vnodes) -> None:
    before = vnodes.wait(2, "running")
    kill_daemon(vnodes)
    assert "dead" in vnodes.text("status")
    vnodes.text("up", "--wait")
    after = vnodes.status(2)
    assert (after["state"], after["incarnation"]) == ("running", before["incarnation"])


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(0.0, marks=pytest.mark.slow),
        0.1,
        pytest.param(0.5, marks=pytest.mark.slow),
        2.0,
    ],
)
def test_daemon_killed_during_an_incident(vnodes: Vnodes, moment: float) -> None:
    """Whatever it was at, its successor ends it: one incident, one restart, a dump or a reason."""
    before = vnodes.wait(2, "running")
    last = vnodes.last_incident(2)
    vnodes.text("inject", "2", "panic")
    time.sleep(moment)
    kill_daemon(vnodes)
    vnodes.text("up", "--wait")
    incident = vnodes.incident_after(last, 2)
    assert incident["reason"] == "panic"
    assert incident["state"] in ("complete", "interrupted")
    assert incident["dump"]["state"] == "done" or incident["dump"]["reason"]
    # a number is left out when it died between loading and starting
    assert vnodes.wait(2, "running")["restarts"] == before["restarts"] + 1
    assert vnodes.last_incident(2) == incident["id"]
