# SPDX-License-Identifier: GPL-2.0-or-later
"""Vnodes that the kernel restarts while no daemon is there, and the daemons that come after."""

from __future__ import annotations

import random
import time

import pytest

from adeos import abi
from adeos.abi import FireCause, FireState
from crashdump.incident import DumpState, IncidentState

FIRE = "fire_s = 1"


@pytest.fixture
def armed(make_rig, rig_tools):
    """A rig with vnode 1 armed in a spare region."""
    rig = make_rig(rig_tools.vnode_text(1, "one", [1], FIRE)).start()
    rig.wait(1)
    rig.until(lambda: state(rig) is FireState.ARMED, "armed")
    return rig


def state(rig, vnode: int = 1) -> FireState:
    found = rig.machine.fire(vnode)
    return found.state if found is not None else FireState.NONE


def region(rig, vnode: int = 1) -> abi.Range:
    return rig.machine.query(vnode).region


def fire(rig, cause: FireCause = FireCause.RECORD, cpu: int = 0) -> abi.Range:
    """The daemon is killed, then the vnode fails and the kernel fires; the region it left."""
    old = region(rig)
    rig.kill()
    if cause is FireCause.RECORD:
        rig.machine.vnodes[1].crash(message="nobody looks")
    assert rig.machine.fire_now(1, cause, cpu) is FireState.FIRED
    return old


def test_a_fire_becomes_an_incident_with_its_dump_and_no_second_restart(armed) -> None:
    old = fire(armed)
    starts = list(armed.machine.starts)
    assert region(armed) != old
    armed.start()
    (one,) = armed.finished(1)
    assert (one.reason, one.message, one.incarnation) == ("panic", "nobody looks", 1)
    assert (one.state, one.outcome) == (IncidentState.COMPLETE, "restarted")
    assert (one.restart, one.successor) == ("fire", 2)
    assert list(one.stamps)[:4] == ["fault", "seen", "fenced", "captured"]
    armed.until(lambda: armed.incidents()[0].dump.state is DumpState.DONE, "the dump")
    status = armed.wait(1)
    assert (status["incarnation"], status["restarts"]) == (2, 1)
    assert armed.machine.starts == starts
    armed.until(lambda: state(armed) is FireState.ARMED, "armed anew")
    assert armed.machine.fire(1).incarnation == 2


@pytest.mark.parametrize("moment", range(12))
def test_a_daemon_killed_over_it_leaves_it_to_the_next(armed, moment: int) -> None:
    fire(armed)
    starts = list(armed.machine.starts)
    chance = random.Random(moment)
    for _ in range(2):
        armed.start_and_kill(chance.uniform(0, 0.4))
    armed.start()
    (one,) = armed.finished(1)
    assert one.state is IncidentState.COMPLETE and one.restart == "fire"
    armed.until(lambda: armed.incidents()[0].dump.state is DumpState.DONE, "the dump")
    status = armed.wait(1)
    assert (status["incarnation"], status["restarts"]) == (2, 1)
    assert armed.machine.starts == starts


def test_killed_between_fault_and_fence_it_is_not_restarted_twice(armed) -> None:
    """The root bridge still says crashed, of the one that is gone."""
    armed.kill()
    root = armed.root()
    root.publish(root.status(1)._replace(state=abi.StatusState.CRASHED, reason="panic"))
    armed.machine.vnodes[1].crash()
    assert armed.machine.fire_now(1) is FireState.FIRED
    armed.start()
    armed.finished(1)
    assert armed.wait(1)["incarnation"] == 2
    assert len(armed.incidents()) == 1


def test_a_hang_is_named_by_its_layer(armed) -> None:
    fire(armed, FireCause.SCHED)
    armed.start()
    (one,) = armed.finished(1)
    assert (one.reason, one.layer, one.cpu) == ("softlockup", "sched", 0)


def test_without_a_spare_it_is_restarted_where_it_was(make_rig, rig_tools) -> None:
    text = rig_tools.vnode_text(1, "one", [1], FIRE).replace('"64M"', '"64M@0x20200000"')
    rig = make_rig(text).start()
    rig.wait(1)
    rig.until(lambda: state(rig) is FireState.ARMED, "armed")
    old = fire(rig)
    assert region(rig) == old
    rig.start()
    (one,) = rig.finished(1)
    assert (one.reason, one.message, one.restart) == ("panic", "nobody looks", "fire")
    assert one.dump.state is DumpState.SKIPPED and "no spare region" in one.dump.reason
    assert rig.wait(1)["incarnation"] == 2


def test_what_was_altered_is_not_fired_and_the_next_daemon_restarts(armed) -> None:
    place = armed.machine.fire(1).region
    armed.kill()
    armed.machine.raw(place.base + abi.VN_OFF_KERNEL, 4)[:] = b"gone"
    armed.machine.vnodes[1].crash()
    assert armed.machine.fire_now(1) is FireState.REFUSED
    armed.start()
    (one,) = armed.finished(1)
    assert (one.reason, one.restart) == ("panic", "spare")
    assert armed.wait(1)["incarnation"] == 2


def test_cpus_that_do_not_park_are_left_to_the_next_daemon(armed) -> None:
    armed.kill()
    armed.machine.vnodes[1].crash()
    armed.machine.unparkable = {1}
    assert armed.machine.fire_now(1) is FireState.FAILED
    armed.machine.unparkable = set()
    armed.start()
    (one,) = armed.finished(1)
    assert (one.reason, one.outcome) == ("panic", "restarted")
    assert armed.wait(1)["incarnation"] == 2


def test_an_operators_stop_disarms(armed) -> None:
    armed.client.call("stop", vnode=1)
    armed.wait(1, "stopped")
    assert state(armed) is FireState.NONE


def test_a_daemon_takes_over_what_is_armed(armed) -> None:
    before = armed.machine.fire(1)
    armed.kill()
    armed.start()
    time.sleep(0.3)
    assert armed.machine.fire(1) == before
    armed.machine.vnodes[1].crash()
    armed.finished(1)
    assert armed.incidents()[0].restart == "spare"
    assert region(armed) == before.region
    armed.until(lambda: state(armed) is FireState.ARMED, "armed anew")


def test_memory_that_is_needed_is_taken_from_it(make_rig, rig_tools) -> None:
    """Another vnode's start comes first: it is armed in its own region then."""
    machine = rig_tools.LastingMachine(ranges=[abi.Range(0x20000000, (2 << 20) + (128 << 20))])
    text = rig_tools.vnode_text(1, "one", [1], FIRE)
    text += rig_tools.vnode_text(2, "two", [2, 3], autostart=False)
    rig = make_rig(text, machine).start()
    rig.wait(1)
    rig.until(lambda: state(rig) is FireState.ARMED, "armed")
    assert machine.fire(1).region != region(rig)
    rig.client.call("start", vnode=2)
    rig.wait(2)
    rig.until(lambda: state(rig) is FireState.ARMED, "armed again")
    assert machine.fire(1).region == region(rig)


def test_reload_switches_it_off(armed) -> None:
    armed.config.write_text(armed.config.read_text().replace(FIRE, "fire_s = 0"))
    armed.client.call("reload")
    armed.until(lambda: state(armed) is FireState.NONE, "disarmed")


def test_off_by_default(rig) -> None:
    time.sleep(0.3)
    assert state(rig) is FireState.NONE
