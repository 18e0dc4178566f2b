# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon on a fake machine: every reason, restart policies, refusals, adoption."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from adeos import abi
from adeos.abi import Range
from adeos.bridge import RootBridge
from adeos.errors import FenceError
from adeos.fake import FakeMachine
from crashdump import incident as incidents
from crashdump.errors import DiskFull
from crashdump.incident import DumpState, IncidentState
from crashdump.store import IncidentStore
from watchdog.client import CommandError


def test_vnodes_come_up_and_observers_see_it(rig):
    statuses = {s.id: s for s in RootBridge.open(rig.machine).statuses()}
    assert statuses[1].name == "one" and statuses[2].name == "two"
    assert statuses[2].state is abi.StatusState.RUNNING
    assert statuses[2].cpu[:2] == (2, 3) and statuses[2].apicid[:2] == (2, 3)
    head = RootBridge.open(rig.machine).head()
    rig.until(lambda: RootBridge.open(rig.machine).head().beat > head.beat, "ticks")


@pytest.mark.parametrize(
    ("kind", "reason", "layer"),
    [
        ("panic", "panic", ""),
        ("oops", "oops", ""),
        ("irqhang", "irqhang", "irq"),
        ("softlockup", "softlockup", "sched"),
        ("hang", "hang", "user"),
    ],
)
def test_faults_are_told_apart_captured_and_restarted(rig, kind, reason, layer):
    rig.client.call("inject", vnode="two", kind=kind)
    rig.wait(2, "running", incarnation=2)
    (incident,) = rig.finished(1)
    assert (incident.vnode, incident.reason, incident.crash) == (2, reason, True)
    assert incident.layer == layer
    assert incident.state is IncidentState.COMPLETE and incident.outcome == "restarted"
    assert incident.successor == 2
    stages = ["fault", "seen", "fenced", "captured", "started", "running"]
    times = [incident.stamps[stage] for stage in stages]
    assert times == sorted(times)
    assert ("reported" in incident.stamps) == (kind in ("panic", "oops"))
    rig.until(lambda: rig.incidents()[0].dump.state is DumpState.DONE, "the dump")
    assert (rig.state / "incidents" / "0001" / "vmcore").stat().st_size > 64 << 20
    (witness,) = incident.witnesses
    assert witness.vnode == 1 and witness.after > witness.before > 0
    assert rig.client.call("status")["vnodes"][0]["incarnation"] == 1


class Stolen:
    """A vnode's CPUs as a busy host leaves them: they beat and take NMIs later."""

    def __init__(self, rig, number):
        self.rig, self.number, self.vnode = rig, number, rig.machine.vnodes[number]
        self.nmis = []
        self.vnode.on_nmi = self.nmis.append
        rig.mute.add(number)

    def give_back(self):
        del self.vnode.on_nmi
        for cpu in self.nmis:
            self.vnode.on_nmi(cpu)
        self.rig.mute.discard(self.number)


def test_cpus_that_stood_still_are_no_fault(rig):
    stolen = Stolen(rig, 2)
    rig.until(lambda: stolen.nmis, "the probe")
    assert rig.client.call("status")["vnodes"][1]["state"] == "suspect"
    stolen.give_back()
    rig.until(lambda: rig.client.call("ping")["false_alarms"] == 1, "a false alarm")
    reply = rig.wait(2, "running")
    assert (reply["incarnation"], reply["false_alarms"]) == (1, 1)
    assert rig.incidents() == []


def test_dead_cpus_fail_when_the_probe_ends_their_registers_unknown(rig):
    stolen = Stolen(rig, 2)
    rig.until(lambda: rig.machine.vnodes[2] is not stolen.vnode, "its successor")
    rig.mute.clear()
    rig.wait(2, "running", incarnation=2)
    (incident,) = rig.finished(1)
    assert incident.reason == "irqhang" and len(stolen.nmis) == 2, "asked once, each CPU"
    evidence = (rig.state / "incidents" / "0001" / "crash.json").read_bytes()
    evidence = incidents.decode_evidence(evidence)
    assert evidence.cpus == (None, None) and "no NMI" in evidence.message


def test_a_real_hang_is_asked_once_and_its_registers_kept(rig):
    vnode = rig.machine.vnodes[2]
    answer, asked = vnode.on_nmi, []
    vnode.on_nmi = lambda cpu: (asked.append(cpu), answer(cpu))
    vnode.hang(abi.Layer.IRQ)
    rig.wait(2, "running", incarnation=2)
    rig.finished(1)
    assert asked == [0, 1]
    evidence = (rig.state / "incidents" / "0001" / "crash.json").read_bytes()
    assert None not in incidents.decode_evidence(evidence).cpus


def test_a_panic_during_a_probe_wins_at_once(rig):
    stolen = Stolen(rig, 2)
    rig.until(lambda: stolen.nmis, "the probe")
    stolen.vnode.crash(message="at last")
    rig.mute.clear()
    rig.wait(2, "running", incarnation=2)
    (incident,) = rig.finished(1)
    assert (incident.reason, incident.message) == ("panic", "at last")


def test_a_stop_during_a_probe_does_not_wait_for_it(rig):
    stolen = Stolen(rig, 2)
    rig.until(lambda: stolen.nmis, "the probe")
    rig.client.call("stop", vnode=2)
    rig.until(lambda: rig.machine.query(2) is None, "unbound", limit=2)
    assert rig.incidents() == []


def test_a_kernel_without_the_agent_gets_no_nmi(make_rig, rig_tools, monkeypatch):
    text = rig_tools.vnode_text(1, "one", [1], 'on_crash = "destroy"')
    text = text.replace("boot_timeout_ms = 1500", "boot_timeout_ms = 300\nagent = false")
    machine = rig_tools.LastingMachine(boots=False)
    asked = []
    monkeypatch.setattr(machine, "nmi", lambda *at: asked.append(at))
    rig = make_rig(text, machine).start()
    rig.wait(1, "stopped")
    rig.finished(1)
    assert asked == []


def test_orderly_ends_are_no_crashes(rig):
    rig.client.call("inject", vnode=1, kind="halt")
    rig.wait(1, "halted")
    rig.client.call("inject", vnode=2, kind="reboot")
    rig.wait(2, "running", incarnation=2)
    halt, reboot = sorted(rig.finished(2), key=lambda one: one.vnode)
    assert (halt.reason, halt.crash, halt.outcome) == ("halt", False, "halted")
    assert (reboot.reason, reboot.crash, reboot.outcome) == ("reboot", False, "restarted")
    assert halt.dump.state is DumpState.NONE
    assert rig.machine.query(1) is None


def test_a_kernel_that_never_comes_up(make_rig, rig_tools):
    machine = rig_tools.LastingMachine(boots=False)
    rig = make_rig(rig_tools.vnode_text(1, "one", [1], 'on_crash = "destroy"'), machine).start()
    rig.wait(1, "stopped")
    (incident,) = rig.finished(1)
    assert incident.reason == "boot" and incident.crash


def test_twenty_panics_in_a_row(rig):
    for round_ in range(1, 21):
        rig.wait(2, "running", incarnation=round_)
        rig.machine.vnodes[2].crash(cpu=round_ % 2, message=f"round {round_}")
    rig.wait(2, "running", incarnation=21)
    incidents = rig.finished(20)
    assert [one.message for one in incidents] == [f"round {n}" for n in range(1, 21)]
    assert {one.cpu for one in incidents} == {0, 1}

    def dumped() -> bool:
        return all(one.dump.state is DumpState.DONE for one in rig.incidents())

    rig.until(dumped, "20 dumps", limit=60)


def test_a_fence_that_is_not_confirmed_touches_no_memory(rig):
    rig.machine.unparkable.add(3)
    region = rig.machine.query(2).region
    rig.client.call("inject", vnode=2, kind="panic")
    rig.wait(2, "quarantined")
    (incident,) = rig.finished(1)
    assert incident.outcome == "fence failed" and incident.dump.state is DumpState.NONE
    assert rig.machine.query(2).region == region
    with pytest.raises(CommandError, match="quarantined"):
        rig.client.call("start", vnode=2)
    with pytest.raises(CommandError, match=r"cannot be stopped \(fence failed\)") as refused:
        rig.client.call("stop", vnode=2)
    assert refused.value.exit_code == 6 and rig.machine.query(2).region == region
    with pytest.raises(CommandError, match='"two" cannot be stopped'):
        rig.client.call("shutdown", vnodes="stop")
    rig.machine.unparkable.clear()
    rig.client.call("start", vnode=2, force=True)
    rig.wait(2, "running", incarnation=2)


class Slow(FakeMachine):
    """Its CPUs come, but not soon; it outlives its daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def park(self, vnode: int, timeout_ms: int = 100) -> int:
        self.asked.append(f"park {'soon' if timeout_ms < 50 else 'at last'}")
        if timeout_ms < 50:
            raise FenceError(f"vnode {vnode}: not parked within {timeout_ms} ms")
        return super().park(vnode, timeout_ms)

    def start(self, vnode: int, **how: int) -> int:
        self.asked.append(f"start {'soon' if how.get('wait_us') else 'at last'}")
        if how.get("wait_us"):
            raise FenceError(f"vnode {vnode}: its boot CPU does not start")
        return super().start(vnode, **how)

    def close(self) -> None:
        self._claimed = False


def test_a_cpu_that_takes_longer_is_waited_for_elsewhere(make_rig, rig_tools):
    machine = Slow()
    rig = make_rig(rig_tools.vnode_text(1, "one", [1]), machine).start()
    rig.wait(1)
    machine.asked.clear()
    machine.vnodes[1].crash(cpu=0, message="slow")
    rig.wait(1, incarnation=2)
    (incident,) = rig.finished(1)
    assert (incident.outcome, incident.message) == ("restarted", "slow")
    fence, start = ["park soon", "park at last"], ["start soon", "park at last", "start at last"]
    assert machine.asked == fence + start, "parked anew before it is started anew"


def test_a_stop_fences_again_where_the_fence_failed(rig):
    rig.machine.unparkable.add(3)
    rig.client.call("inject", vnode=2, kind="panic")
    rig.wait(2, "quarantined")
    rig.machine.unparkable.clear()
    assert rig.client.call("stop", vnode=2)["state"] == "stopped"
    assert rig.machine.query(2) is None


def test_stop_start_restart_and_their_refusals(rig):
    with pytest.raises(CommandError, match="already running") as refused:
        rig.client.call("start", vnode=1)
    assert refused.value.exit_code == 6
    rig.client.call("stop", vnode=1)
    rig.wait(1, "stopped")
    rig.until(lambda: rig.machine.query(1) is None, "unbound")
    rig.client.call("start", vnode="one")
    rig.wait(1, "running", incarnation=2)
    rig.client.call("restart", vnode=1)
    rig.wait(1, "running", incarnation=3)
    assert rig.incidents() == []
    with pytest.raises(CommandError, match="no vnode 9") as unknown:
        rig.client.call("stop", vnode=9)
    assert unknown.value.exit_code == 4


def test_a_bound_cpu_is_refused_with_its_owner(make_rig, rig_tools):
    text = rig_tools.vnode_text(1, "one", [1])
    text += rig_tools.vnode_text(2, "wide", [1, 2], autostart=False)
    rig = make_rig(text).start()
    rig.wait(1)
    with pytest.raises(CommandError, match='CPU 1 is bound to vnode 1 "one"'):
        rig.client.call("start", vnode="wide")


def test_a_live_dump_stops_nothing(rig):
    reply = rig.client.call("dump", vnode=2)
    assert reply["inconsistent"] and reply["dump"] == "done"
    (incident,) = rig.incidents()
    assert incident.reason == "dump" and not incident.crash
    assert rig.client.call("status")["vnodes"][1]["incarnation"] == 1
    rig.wait(2, "running")


def test_without_a_spare_region_the_memory_is_copied_first(make_rig, rig_tools):
    machine = rig_tools.LastingMachine(ranges=(Range(0x20000000, 0x4000000 + 0x400000),))
    rig = make_rig(rig_tools.vnode_text(1, "one", [1]), machine).start()
    rig.wait(1)
    region = machine.query(1).region
    rig.client.call("inject", vnode=1, kind="panic")
    rig.wait(1, "running", incarnation=2)
    rig.until(lambda: rig.incidents()[0].dump.state is DumpState.DONE, "the dump")
    assert rig.incidents()[0].dump.mode == "copy"
    assert machine.query(1).region == region


def test_adoption_touches_nothing_that_runs(rig):
    rig.client.call("stop", vnode=1)
    rig.wait(1, "stopped")
    before = rig.machine.query(2)
    epoch = RootBridge.open(rig.machine).head().epoch
    assert rig.stop("leave") == 0
    vnode = rig.machine.vnodes[2]
    rig.start()
    reply = rig.wait(2, "running")
    assert reply["incarnation"] == 1
    assert rig.machine.query(2) == before or rig.machine.query(2).rings >= before.rings
    assert rig.machine.vnodes[2] is vnode and vnode.alive
    states = {v["id"]: v["state"] for v in rig.client.call("status")["vnodes"]}
    assert states[1] == "stopped"  # an operator's word outlives the daemon
    assert RootBridge.open(rig.machine).head().epoch == epoch + 1
    assert rig.incidents() == []


def test_a_fault_while_no_daemon_ran_is_handled_by_the_next(rig):
    rig.stop("leave")
    rig.machine.vnodes[2].crash(message="nobody looked")
    rig.start()
    rig.wait(2, "running", incarnation=2)
    (incident,) = rig.finished(1)
    assert incident.message == "nobody looked" and incident.outcome == "restarted"


def test_a_hang_while_no_daemon_ran_is_handled_by_the_next(rig):
    rig.stop("leave")
    rig.machine.vnodes[2].hang(abi.Layer.IRQ)
    rig.start()
    rig.wait(2, "running", incarnation=2)
    (incident,) = rig.finished(1)
    assert incident.reason == "irqhang"


def test_down_stops_everything_and_leaves_a_clean_table(rig):
    assert rig.stop("stop") == 0
    assert rig.machine.query(1) is None and rig.machine.query(2) is None
    assert RootBridge.open(rig.machine).statuses() == []


def test_cut_off_at_random_moments_it_loses_and_doubles_nothing(rig):
    rng = random.Random(7)
    faults = 12
    for number in range(1, faults + 1):
        vnode = rig.machine.vnodes[2]
        if rng.random() < 0.7:
            vnode.crash(message=f"fault {number}")
        else:
            vnode.hang(abi.Layer.IRQ)
        time.sleep(rng.random() * rng.choice([0.02, 0.1, 0.6]))
        rig.kill()
        rig.start()
        rig.wait(2, "running", incarnation=vnode.incarnation + 1)
        assert rig.machine.starts.count(2) == number + 1
        incidents = rig.finished(number)
    assert len(incidents) == faults
    failed = [one.incarnation for one in incidents]
    assert failed == sorted(set(failed))
    assert [one.successor for one in incidents[:-1]] == failed[1:]
    assert {one.outcome for one in incidents} == {"restarted"}

    def settled() -> bool:
        return all(one.dump.state is DumpState.DONE for one in rig.incidents())

    rig.until(settled, "all dumps", limit=60)
    assert rig.client.call("status")["vnodes"][0]["incarnation"] == 1


def test_a_full_disk_costs_the_record_and_not_the_vnode(rig, monkeypatch, logged):
    def full(*_args: object, **_fields: object) -> None:
        raise DiskFull("/var: no space left on the disk for an incident; delete old ones")

    monkeypatch.setattr(IncidentStore, "create", full)
    rig.machine.vnodes[2].crash()
    rig.wait(2, "running", incarnation=2)
    assert rig.incidents() == []
    rig.until(lambda: "no space left" in logged(), "a word about it")


def test_a_second_daemon_is_refused_and_harms_nothing(rig, capsys):
    from watchdog import daemon

    class Taken(type(rig.machine)):
        """The same machine, seen by a process that is not its owner."""

    other = Taken()
    other.foreign_owner = 4711
    assert daemon.main(rig.config, open_machine=lambda _: other) == 6
    err = capsys.readouterr().err
    assert "another daemon owns the machine" in err
    assert rig.client.call("ping")["ok"]


def test_a_daemon_that_was_killed_just_now_is_waited_for():
    from watchdog import daemon

    machine = FakeMachine()
    machine.foreign_owner = 4711

    async def outlast() -> None:
        asyncio.get_running_loop().call_later(0.2, setattr, machine, "foreign_owner", 0)
        await daemon._claim(machine)

    asyncio.run(outlast())
    assert machine.info().owner_pid == os.getpid()


@pytest.mark.parametrize("seed", range(5))
def test_a_scribbled_bridge_is_a_fault_of_its_vnode_alone(rig, seed):
    rig.mute.add(2)
    rig.machine.vnodes[2].scribble(seed)
    rig.until(lambda: rig.machine.vnodes[2].incarnation == 2, "its restart")
    rig.mute.clear()
    rig.wait(2, "running", incarnation=2)
    (incident,) = rig.finished(1)
    assert incident.reason in ("corrupt", "boot", "irqhang", "softlockup", "hang")
    assert rig.client.call("status")["vnodes"][0]["incarnation"] == 1
