# SPDX-License-Identifier: GPL-2.0-or-later
"""The campaign itself: one long-lived process in the root vnode, a JSON object a line on stdout.

    echo '{"seed": 1, "shots": [0, 1, 2], "seconds": 60}' | python3 -m tests.campaign.runner

It asks the daemon over its socket and reads bridges and incidents itself: a `vnode-debug` a step
would take the root's CPU from what is measured.  While the dump of one vnode is written and
analysed the next shot goes to another; a shot's line comes when all of it is known, so lines come
out of order.  What can be checked only when nothing is pending is checked every DRAIN shots.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adeos import abi
from adeos.bridge import Bridge, ConsoleReader, RootBridge
from adeos.errors import AdeosError
from adeos.kmb import KmbMachine
from crashdump.incident import PENDING, Incident
from crashdump.store import IncidentStore
from tests.campaign.catalogue import BY_NAME, End, Fault, How
from tests.campaign.judge import judge
from tests.campaign.plan import Shot, shot
from tests.campaign.root import Root, code_of_the_root, overwrite
from watchdog import paths
from watchdog.client import Client
from watchdog.errors import WatchdogError

Status = abi.StatusState
CAPTURES = (Status.CRASHED, Status.FENCED, Status.RESTARTING)
POLL_S = 0.03
READY_S = 120.0
PENDING_MOST = 3  # dumps being written: each holds a region
ANALYSED_S = 240.0
QUIET_S = 3.0  # a vnode that is to stay is watched for so long
EITHER_S = 8.0
DRAIN = 25
TROUBLE = (WatchdogError, AdeosError, AssertionError, OSError, ValueError)
LOAD = "(while sleep 0.05; do head -c 65536 /dev/urandom | sha256sum >/dev/null; done)&"
READY = b"campaign: ready"
WORK = re.compile(rb"work (\d+) (\d+)\r?\n")


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


@dataclass
class Life:
    """One incarnation of a vnode, as it is read."""

    incarnation: int
    bridge: Bridge
    ncpus: int
    console: ConsoleReader
    ready: bool = False
    work: int = 0
    bad: int = 0
    tail: bytes = b""

    def listen(self) -> None:
        self.tail = (self.tail + self.console.read().data)[-65536:]
        self.ready = self.ready or READY in self.tail
        for done, bad in WORK.findall(self.tail):
            self.work, self.bad = max(self.work, int(done)), max(self.bad, int(bad))
        self.tail = self.tail[-200:]


@dataclass
class Fired:
    """A shot that is over, but for its dumps and their analysis."""

    record: dict[str, Any]
    fault: Fault
    incidents: dict[int, int]
    """Incident -> vnode."""
    until: float = field(default_factory=lambda: time.monotonic() + ANALYSED_S)


class Campaign:
    """The vnodes, their root, and what is known of both."""

    def __init__(self, seed: int, faults: list[str], patience: float = 1.0) -> None:
        self.seed, self.faults = seed, faults
        self.patience = patience
        """Factor on how long a fault may take, for a host that has little time for the box."""
        self.machine = KmbMachine()
        self.root = RootBridge.open(self.machine)
        self.client = Client(timeout=60)
        self.store = IncidentStore(paths.state_dir(), read_only=True)
        self.khz = self.machine.info().tsc_khz
        self.vnodes = sorted(status.id for status in self.root.statuses())
        self.lives: dict[int, Life] = {}
        self.pending: list[Fired] = []
        self.gaps: dict[int, list[float]] = {}
        self.own = Root(self.machine, self.root, self.store)
        self.baseline: dict[str, Any] = {}
        self.explained = self.last_incident()
        """The last incident that was looked at by `unexplained`."""
        self.caused: set[int] = set()

    # What is looked at

    def status(self, vnode: int) -> abi.Status:
        status = self.root.status(vnode)
        assert status is not None
        return status

    def life(self, vnode: int) -> Life:
        status = self.status(vnode)
        known = self.lives.get(vnode)
        if known is None or known.incarnation != status.incarnation:
            region = abi.Range(status.region_base, status.region_size)
            bridge = Bridge.open(self.machine, region)
            known = Life(status.incarnation, bridge, status.ncpus, bridge.console_reader())
            self.lives[vnode] = known
        return known

    def watch(self, vnodes: list[int]) -> None:
        """Note the longest silence of these vnodes, a layer each, ms."""
        for vnode in vnodes:
            life = self.life(vnode)
            worst = self.gaps.setdefault(vnode, [0.0, 0.0, 0.0])
            now = self.machine.tsc()
            for beat in life.bridge.beats(life.ncpus):
                for layer in range(3):
                    worst[layer] = max(worst[layer], (now - beat.tsc[layer]) / self.khz)

    def until(self, true: Callable[[], bool], seconds: float, watched: list[int]) -> bool:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                return False
            self.watch(watched)
            time.sleep(POLL_S)
        return True

    def type(self, vnode: int, line: str) -> None:
        data = base64.b64encode(line.encode() + b"\n").decode()
        self.client.call("console-input", vnode=vnode, data=data)

    def running(self, vnode: int, above: int = -1) -> bool:
        status = self.status(vnode)
        return status.state is Status.RUNNING and status.incarnation > above

    def prepared(self, vnode: int) -> bool:
        """It runs, and its shell is at the prompt with the module loaded."""
        if not self.running(vnode):
            return False
        life = self.life(vnode)
        life.listen()
        return life.ready

    # A shot

    def fire(self, one: Shot) -> None:
        fault = BY_NAME[one.fault]
        fault = fault._replace(limit=fault.limit * self.patience)
        victims = list(one.vnodes[: fault.victims])
        others = [vnode for vnode in self.vnodes if vnode not in victims]
        say(begin=one.index, fault=one.fault, vnodes=victims)
        record: dict[str, Any] = {
            "shot": one.index, "seed": self.seed, "fault": fault.name, "group": fault.group,
            "vnodes": victims, "delay": one.delay, "load": one.load, "trouble": [],
        }  # fmt: skip
        for vnode in self.vnodes:
            if not self.until(lambda v=vnode: self.prepared(v), READY_S, []):
                record["trouble"].append(f"vnode {vnode} was not ready for it")
                state = self.status(vnode).state.name
                say(note=f"shot {one.index}: vnode {vnode} is {state}, not ready")
                self.revive(vnode)
        self.gaps.clear()
        before = {v: (self.status(v).incarnation, self.life(v).work) for v in self.vnodes}
        last = self.last_incident()
        if one.load:
            self.type(victims[0], LOAD)
        time.sleep(one.delay)
        began = time.monotonic()
        record["at"] = round(time.time(), 3)
        try:
            self.cause(fault, victims, others, before)
            self.follow(fault, victims, others, before)
        except TROUBLE as error:
            record["trouble"].append(f"{type(error).__name__}: {error}")
        record["seconds"] = round(time.monotonic() - began, 3)
        record["victims"] = {v: self.seen(fault, v, before[v][0]) for v in victims}
        self.listen(others, time.monotonic() - began)
        record["others"] = {v: self.spared(v, before[v]) for v in others}
        record["root"] = self.own.harm()
        found = {i.id: i.vnode for i in self.store.list() if i.id > last and i.vnode in victims}
        self.caused.update(found)
        self.pending.append(Fired(record, fault, found))
        for vnode in victims:
            try:
                self.tidy(vnode, before[vnode][0])
            except TROUBLE as error:
                record["trouble"].append(f"afterwards: {type(error).__name__}: {error}")
        self.settle()

    def last_incident(self) -> int:
        newest = self.store.list(limit=1, reverse=True)
        return newest[0].id if newest else 0

    def listen(self, others: list[int], spent: float) -> None:
        """Take in what the others' work has said; a short shot gives it a little longer."""
        if spent < 2:
            self.until(lambda: False, 2 - spent, others)
        for vnode in others:
            self.life(vnode).listen()

    def spared(self, vnode: int, before: tuple[int, int]) -> dict[str, Any]:
        """A vnode that nothing was done to; `gap_ms`: the longest silence of each layer."""
        status, life = self.status(vnode), self.life(vnode)
        harm = []
        if status.incarnation != before[0] or status.state not in (Status.RUNNING, Status.SUSPECT):
            harm.append(f"is {status.state.name.lower()}: {status.reason}")
        else:
            limits = [limit / 1000 for limit in status.limit_us[:3]]
            gaps = self.gaps.get(vnode, [0.0, 0.0, 0.0])
            for layer, gap, limit in zip(abi.Layer, gaps, limits, strict=True):
                if limit and gap > limit:
                    harm.append(f"{layer.name.lower()} beats were silent for {gap:.0f} ms")
            if life.work <= before[1]:
                harm.append(f"its work stands still at {life.work}")
        if life.bad:
            harm.append(f"{life.bad} wrong checksums")
        gaps_ms = [round(gap, 1) for gap in self.gaps.get(vnode, ())]
        return {"gap_ms": gaps_ms, "work": life.work - before[1], "harm": harm}

    def cause(
        self, fault: Fault, victims: list[int], others: list[int], before: dict[int, Any]
    ) -> None:
        if fault.how is How.SCRIBBLE:
            base = self.status(victims[0]).region_base + abi.VN_OFF_BRIDGE + abi.VN_BR_VNODE
            overwrite(abi.Range(base, abi.VNODE_SIDE.size), 0xFF)
            return
        for place, vnode in enumerate(victims):
            if place and fault.stagger:
                first, was = victims[place - 1], before[victims[place - 1]][0]
                self.until(lambda f=first, w=was: self._captured(f, w), 5, others)
            line = fault.keys
            if fault.how in (How.BOOT, How.NO_INIT):
                line = "echo PANIC >/dev/vnode_faults"
            self.type(vnode, line)
        if fault.name == "INT_HW_IRQ_EN":
            time.sleep(0.2)
            self.type(victims[0], "")  # its doorbell is the interrupt that is waited for
        if fault.how is How.BOOT:
            self.boot_panics(fault, victims[0], others, before[victims[0]][0])
        if fault.how is How.NO_INIT:
            self.break_initrd(victims[0], others, before[victims[0]][0])

    def _captured(self, vnode: int, was: int) -> bool:
        status = self.status(vnode)
        return status.incarnation > was or status.state in CAPTURES

    def boot_panics(self, fault: Fault, vnode: int, others: list[int], was: int) -> None:
        """As soon as the agent of each successor listens, that one panics too."""
        for turn in range(fault.repeats):
            if not self.until(
                lambda t=turn: self.status(vnode).incarnation > was + t, fault.limit, others
            ):
                return
            self.until(lambda: self._listening(vnode), fault.limit, others)
            self.client.call("inject", vnode=vnode, kind="panic")

    def _listening(self, vnode: int) -> bool:
        if self.status(vnode).state not in (Status.BOOTING, Status.RUNNING):
            return False
        side = self.life(vnode).bridge.vnode_side()
        return side is not None and side.vector != 0

    def break_initrd(self, vnode: int, others: list[int], was: int) -> None:
        """Zeros where the successor's initrd lies, before its kernel gets there."""
        booting = (Status.BOOTING, Status.RUNNING)
        if not self.until(
            lambda: self.status(vnode).incarnation > was and self.status(vnode).state in booting,
            30, others,
        ):  # fmt: skip
            return
        status = self.status(vnode)
        params = self.machine.view(status.region_base + abi.VN_OFF_BOOT_PARAMS, 0x1000)
        low, size = (int.from_bytes(params[at : at + 4], "little") for at in (0x218, 0x21C))
        high, more = (int.from_bytes(params[at : at + 4], "little") for at in (0xC0, 0xC4))
        place = abi.Range(low | high << 32, size | more << 32)
        region = abi.Range(status.region_base, status.region_size)
        assert place.size and region.contains(place), f"initrd at {place} in {region}"
        overwrite(place, 0)

    def follow(
        self, fault: Fault, victims: list[int], others: list[int], before: dict[int, Any]
    ) -> None:
        """Wait for what is to become of each victim."""
        if fault.end is End.STAYS:
            self.until(lambda: False, QUIET_S, others)
            return
        goals = (Status.HALTED,) if fault.end is End.HALTED else (Status.RUNNING,)
        more = 0 if fault.end is End.HALTED else fault.repeats + 1
        limit = EITHER_S if fault.end is End.EITHER else fault.limit

        def over(vnode: int) -> bool:
            status = self.status(vnode)
            return status.state in goals and status.incarnation >= before[vnode][0] + more

        self.until(lambda: all(over(v) for v in victims), limit, others)
        if fault.end is End.EITHER:  # one that has failed by now is to come back
            self.until(lambda: all(self.running(v) for v in victims), fault.limit, others)

    def seen(self, fault: Fault, vnode: int, was: int) -> dict[str, Any]:
        status = self.status(vnode)
        alive = status.state is Status.RUNNING
        if alive and status.incarnation == was:
            beats = self._beats(vnode)
            alive = self.until(lambda: self._beats(vnode) > beats, 2, [])
        return {
            "state": status.state.name.lower(),
            "incarnations": status.incarnation - was,
            "alive": alive,
            "incidents": [],
        }

    def _beats(self, vnode: int) -> int:
        life = self.life(vnode)
        return min(beat.count[abi.Layer.USER] for beat in life.bridge.beats(life.ncpus))

    def tidy(self, vnode: int, was: int) -> None:
        """The next shot finds a fresh vnode."""
        status = self.status(vnode)
        if status.state is Status.RUNNING and status.incarnation == was:
            self.client.call("restart", vnode=vnode)
            self.until(lambda: self.running(vnode, was), 30, [])
        elif status.state is not Status.RUNNING:
            self.revive(vnode)

    def revive(self, vnode: int) -> None:
        """Start a vnode that is down, whatever brought it there."""
        status = self.status(vnode)
        down = (Status.HALTED, Status.STOPPED, Status.OFFLINE, Status.QUARANTINED, Status.FENCED)
        verb = "start" if status.state in down else "restart"
        try:
            self.client.call(verb, vnode=vnode, force=True)
        except WatchdogError as error:
            say(note=f"vnode {vnode} is {status.state.name}: {error}")
        self.until(lambda: self.running(vnode), 60, [])

    # What comes later

    def settle(self, everything: bool = False) -> None:
        """Say what is known by now of earlier shots; wait when too much is pending."""
        most = 0 if everything else PENDING_MOST
        while True:
            self.pending = [one for one in self.pending if not self._settled(one)]
            if sum(len(one.incidents) for one in self.pending) <= most or not self.pending:
                return
            time.sleep(0.2)

    def _settled(self, fired: Fired) -> bool:
        incidents = [self.store.get(number) for number in fired.incidents]
        late = time.monotonic() > fired.until
        if not late and not all(map(_over, incidents)):
            return False
        for incident in incidents:
            fired.record["victims"][incident.vnode]["incidents"].append(self.short(incident))
        verdict = judge(fired.fault, fired.record)
        say(**fired.record, escapes=verdict.escapes, misses=verdict.misses)
        return True

    def short(self, incident: Incident) -> dict[str, Any]:
        """What is recorded of an incident; times in ms since the fault."""
        culprit = ""
        analysis = self.store.path(incident.id) / "analysis.json"
        if incident.title and analysis.exists():
            culprit = str(json.loads(analysis.read_bytes()).get("culprit", ""))
        return {
            "id": incident.id,
            "reason": incident.reason,
            "crash": incident.crash,
            "outcome": incident.outcome,
            "ms": {stage: round(ns / 1e6, 2) for stage, ns in incident.stamps.items()},
            "dump": incident.dump.state.value,
            "why": incident.dump.reason,
            "title": incident.title,
            "culprit": culprit,
        }

    def drain(self, where: int) -> None:
        """With nothing pending, nothing may be left over."""
        self.settle(everything=True)
        for vnode in self.vnodes:
            self.until(lambda v=vnode: self.prepared(v), READY_S, [])
        first, grown = self.baseline, []
        for _ in range(20):  # a worker may be ending, a region being cleared
            now = self.own.figures()
            grown = [
                f"{key}: {now[key]}, was {first[key]}"
                for key in ("files", "processes", "locks", "run", "pending")
                if first and (
                    now[key] != first[key] if key == "run" else now[key] > first[key]
                )
            ]  # fmt: skip
            if not grown:
                break
            time.sleep(0.5)
        self.baseline = first or now
        grown += self.unexplained()
        say(checkpoint=where, figures=now, left=grown, root=self.own.harm())

    def unexplained(self) -> list[str]:
        """Incidents since the last call that no shot has caused."""
        after, self.explained = self.explained, self.last_incident()
        new = [one for one in self.store.list() if after < one.id <= self.explained]
        return [
            f"incident {one.id}, {one.reason} of vnode {one.vnode}, is no shot's"
            for one in new
            if one.id not in self.caused
        ]

    def run(self, shots: list[int], seconds: float) -> None:
        """Fire these shots; none begins later than `seconds` from now."""
        end = time.monotonic() + seconds
        for vnode in self.vnodes:
            if not self.until(lambda v=vnode: self.prepared(v), READY_S, []):
                raise SystemExit(f"campaign: vnode {vnode} is not ready; is its initrd campaign's?")
        self.drain(-1)
        for count, index in enumerate(shots, 1):
            self.fire(shot(self.seed, index, self.vnodes, self.faults))
            late = time.monotonic() > end
            if count % DRAIN == 0 or count == len(shots) or late:
                self.drain(index)
            if late:
                return


OUTSIDE_S = 20.0
"""How long is watched what a fault beyond the vnode does."""


def beyond(campaign: Campaign, name: str) -> None:
    """Try one of UNCONTAINED from the first vnode and say what became of everything."""
    first, second = campaign.vnodes[:2]
    for vnode in campaign.vnodes:
        campaign.until(lambda v=vnode: campaign.prepared(v), READY_S, [])
    # vnode N has CPU N of the box first, whose APIC id is N
    aims = {"WILD_WRITE_OUTSIDE": code_of_the_root(), "STRAY_INIT": second}
    before = campaign.last_incident()
    parameter = "/sys/module/vnode_faults/parameters/outside"
    aim = aims.get(name, 1)
    campaign.type(first, f"echo {aim} >{parameter}; echo {name} >/dev/vnode_faults")
    campaign.until(lambda: False, OUTSIDE_S, [])
    say(
        outside=name,
        states={v: campaign.status(v).state.name.lower() for v in campaign.vnodes},
        incidents=[[i.vnode, i.reason] for i in campaign.store.list() if i.id > before],
        root=campaign.own.harm(),
    )


def _over(incident: Incident) -> bool:
    if incident.state == "open" or incident.dump.state in PENDING:
        return False
    return bool(incident.title) or not incident.crash


def main() -> None:
    task = json.load(sys.stdin)
    if "outside" in task:
        beyond(Campaign(0, []), task["outside"])
        return
    campaign = Campaign(task["seed"], task.get("faults", []), task.get("patience", 1.0))
    campaign.run(task["shots"], task["seconds"])
    say(end=True)


if __name__ == "__main__":
    main()
