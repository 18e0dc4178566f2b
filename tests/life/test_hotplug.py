# SPDX-License-Identifier: GPL-2.0-or-later
"""A root that reserved nothing: vnodes on CPUs and memory that it lends, and all of it back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.life.conftest import Vnodes

if TYPE_CHECKING:
    RunningBox = Any

pytestmark = [pytest.mark.box, pytest.mark.slow, pytest.mark.timeout(1200)]

FACTS = """cat /sys/devices/system/cpu/online; grep MemTotal /proc/meminfo
cat /sys/devices/system/memory/memory*/state | sort | uniq -c
ls /run/vnode-debug/loan.json /dev/kmb"""


@pytest.fixture(scope="module")
def bare(
    box_type: type[RunningBox], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBox]:
    """A box of its own; VNODE_DEBUG_BOX_REUSE=1 takes one that runs."""
    from box import machine

    reuse = os.environ.get("VNODE_DEBUG_BOX_REUSE") == "1" and machine.running()
    with pytest.MonkeyPatch.context() as patch:
        if not reuse:
            patch.setenv("VNODE_DEBUG_BOX", str(tmp_path_factory.mktemp("bare")))
            machine.up(machine.Options(hotplug=True, die_with_parent=True), print)
        running = box_type()
        try:
            yield running
        finally:
            running.verbs.close()
            if not reuse:
                machine.down(print)


def test_all_is_lent_and_comes_back(bare: RunningBox) -> None:
    vnodes = Vnodes(bare)
    before = bare.run(FACTS).stdout
    assert before.startswith("0-3\n")
    vnodes.text("up", "--wait")
    lent = bare.run(FACTS).stdout
    assert lent.startswith("0\n")
    assert "offline" in lent
    assert bare.run("echo 1 >/sys/devices/system/cpu/cpu1/online").returncode != 0
    bare.run("for f in /sys/devices/system/memory/memory*/state; do echo online >$f; done")
    assert bare.run(FACTS).stdout == lent  # kmb.ko keeps them
    incident = vnodes.fail(2, "panic")
    assert (incident["outcome"], incident["dump"]["state"]) == ("restarted", "done")
    assert "give back to the root: CPUs 1,2,3" in vnodes.text("down", "--dry-run")
    back = vnodes.json("down")
    assert back["returned"]["cpus"] == [1, 2, 3]
    assert bare.run(FACTS).stdout == before


def test_a_killed_daemon_leaves_nothing_lent_after_down(bare: RunningBox) -> None:
    vnodes = Vnodes(bare)
    before = bare.run(FACTS).stdout
    pid = vnodes.json("up", "--wait")["pid"]
    bare.check(f"kill -9 {pid}")
    vnodes.text("down")
    assert bare.run(FACTS).stdout == before


def test_an_up_that_fails_gives_back_at_once(bare: RunningBox) -> None:
    vnodes = Vnodes(bare)
    before = bare.run(FACTS).stdout
    line = '&\\nlow = "0x10000+0x90000"'  # the end of low memory is the root's
    bare.check(f"sed 's/^.machine./{line}/' /etc/vnode-debug/vnodes.toml >/tmp/low.toml")
    done = vnodes.run("up", "--config", "/tmp/low.toml")
    assert (done.returncode, "dmesg | grep kmb" in done.stderr) == (5, True)
    assert bare.run(FACTS).stdout == before
