# SPDX-License-Identifier: GPL-2.0-or-later
"""Restarts without booting, many in a row, under load: runs in the root vnode, prints JSON.

python3 -m tests.life.warm_stress standby VNODE WITNESS COUNT SEED
python3 -m tests.life.warm_stress warm VNODE WITNESS COUNT SEED

VNODE has that strategy and quick > COUNT in its config, on_crash = "restart" or "coredump-restart"
and the initrd of the campaign (tests/campaign/vnodes.py), whose vnode_faults.ko does the double
fault; its image is made already.  WITNESS copies and sums files all the while, and must find no
difference.  All dumps must have been written, and analysed, at the end.
"""

from __future__ import annotations

import base64
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from typing import Any

from adeos import abi
from adeos.bridge import Bridge, RootBridge
from adeos.kmb import KmbMachine
from crashdump.incident import PENDING, DumpState, Incident
from crashdump.store import IncidentStore
from introspect.kernel import Kernel
from introspect.memory import BufferMemory
from tests.campaign.root import overwrite
from watchdog.client import Client
from watchdog.paths import state_dir

FAULTS = (
    "panic", "oops", "irqhang", "irq-panic", "softlockup", "hang", "reboot", "sysrq-b",
    "double-fault", "scribble",
)  # fmt: skip
TYPED = {"double-fault": "DOUBLE_FAULT", "irq-panic": "INT_HARDWARE_ENTRY"}
SCRIBBLED = 64  # pages of a dead vnode
LIMIT_S = 120.0
LOAD = "(while sleep 0.05; do head -c 262144 /dev/urandom | sha256sum >/dev/null; done)&"
WORK = (
    "dd if=/dev/urandom of=/tmp/kept bs=64k count=16 2>/dev/null; S=$(sha256sum </tmp/kept); n=0;"
    " b=0; while :; do cp /tmp/kept /tmp/copy;"
    ' [ "$(sha256sum </tmp/copy)" = "$S" ] || b=$((b+1)); n=$((n+1)); echo $n $b >/tmp/sums;'
    " sleep 0.5; done &"
)
"""Beside what the profile of the campaign's vnodes does with /tmp/a and /tmp/b."""
COMPLAINTS = ("WARNING", "BUG", "stall", "Uhhuh", "lockup", "Oops", "corrupt", "Bad page")


class Life:
    """The vnodes, and the daemon that restarts them."""

    def __init__(self, vnode: int, witness: int) -> None:
        self.machine = KmbMachine()
        self.root = RootBridge.open(self.machine)
        self.client = Client()
        self.vnode, self.witness = vnode, witness

    def status(self, vnode: int) -> abi.Status:
        status = self.root.status(vnode)
        assert status is not None
        return status

    def type(self, vnode: int, line: str) -> None:
        data = base64.b64encode(line.encode() + b"\n").decode()
        self.client.call("console-input", vnode=vnode, data=data)

    def say(self, vnode: int, line: str, want: str) -> re.Match[str]:
        """Type a line into the vnode's console; what it answers."""
        status = self.status(vnode)
        region = abi.Range(status.region_base, status.region_size)
        reader = Bridge.open(self.machine, region).console_reader()
        reader.read()
        self.type(vnode, line)
        seen, until = b"", time.monotonic() + 20
        while time.monotonic() < until:
            seen += reader.read().data
            found = re.search(want, seen.decode("latin-1"))
            if found:
                return found
            time.sleep(0.05)
        raise TimeoutError(f"vnode {vnode} does not answer {want!r}: {seen[-200:]!r}")

    def until(self, true: Any, what: str, limit: float = LIMIT_S, pause: float = 0.01) -> None:
        end = time.monotonic() + limit
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(pause)

    def fail(self, fault: str) -> None:
        if fault in TYPED:
            self.type(self.vnode, f"echo {TYPED[fault]} >/dev/vnode_faults")
        elif fault == "scribble":
            self.scribble()
        elif fault.startswith("sysrq-"):
            self.client.call("command", vnode=self.vnode, command="sysrq", key=fault[-1])
        else:
            self.client.call("inject", vnode=self.vnode, kind=fault)

    def scribble(self) -> None:
        """A panic, and then the memory of the dead kernel is overwritten here and there."""
        status = self.status(self.vnode)
        self.client.call("inject", vnode=self.vnode, kind="panic", cpu=0)
        self.until(
            lambda: self.status(self.vnode).state is not abi.StatusState.RUNNING, "a failure"
        )
        for _ in range(SCRIBBLED):
            page = random.randrange(abi.VN_OFF_RAM, status.region_size, 4096)
            overwrite(abi.Range(status.region_base + page, 4096), 0xFF)

    def complaints(self, vnode: int) -> list[str]:
        """What the kernel says of itself since it was resumed last, or booted."""
        status = self.status(vnode)
        memory = BufferMemory(
            [
                (base, self.machine.view(base, size))
                for base, size in (
                    (status.slot_base, status.slot_size),
                    (status.region_base, status.region_size),
                )
            ]
        )
        bridge = Bridge.open(self.machine, abi.Range(status.region_base, status.region_size))
        side = bridge.vnode_side()
        note = side.vmcoreinfo_pa if side is not None else None
        lines = [r.text for r in Kernel.find(memory, vmcoreinfo_pa=note, live=True).log()]
        return [line for line in lines if any(word in line for word in COMPLAINTS)]


def cycle(life: Life, way: abi.Way, fault: str, chance: random.Random) -> dict[str, Any]:
    """One failure; what was wrong with the restart, and how long it took."""
    life.until(lambda: ready(life, way), "an image for the next restart")
    before = life.status(life.vnode)
    life.type(life.vnode, LOAD)
    time.sleep(0.3 + chance.random())
    life.fail(fault)
    life.until(
        lambda: (
            life.status(life.vnode).incarnation > before.incarnation
            and life.status(life.vnode).state is abi.StatusState.RUNNING
        ),
        f"a successor after {fault}",
    )
    after = life.status(life.vnode)
    wrong = []
    if after.way is not way:
        wrong.append(f"came back {after.way.name.lower()}")
    if after.incarnation != before.incarnation + 1:
        wrong.append(f"incarnation {after.incarnation} after {before.incarnation}")
    wrong += life.complaints(life.vnode)
    return {"fault": fault, "wrong": wrong}


def ready(life: Life, way: abi.Way) -> bool:
    status = life.status(life.vnode)
    images = [status.image_tsc] if way is abi.Way.WARM else [status.image_tsc, status.standby_tsc]
    return all(images) and status.state is abi.StatusState.RUNNING


def stress(way: abi.Way, vnode: int, witness: int, count: int, seed: int) -> dict[str, Any]:
    life, chance = Life(vnode, witness), random.Random(seed)
    life.say(witness, WORK, r"[#$]")
    start = life.status(witness).incarnation
    known = life.complaints(witness)
    bad, first = [], life.status(vnode).last_incident
    for turn in range(count):
        done = cycle(life, way, FAULTS[turn % len(FAULTS)], chance)
        if done["wrong"]:
            bad.append(done)
        print(turn + 1, done["fault"], done["wrong"] or "ok", file=sys.stderr, flush=True)
    sums = life.say(witness, "echo sums $(cat /tmp/sums) end", r"sums (\d+) (\d+) end")
    # dumps are written at leisure, one after the other, and the faults came faster than that
    written = LIMIT_S + 15 * count
    life.until(lambda: not pending(first), "the dumps", written, pause=2)
    return {
        "way": way.name.lower(),
        "dumps": _dumps(first),
        "restarts": count,
        "bad": bad,
        "witness": {
            "same_incarnation": life.status(witness).incarnation == start,
            "sums": int(sums[1]),
            "sums_wrong": int(sums[2]),
            "complaints": life.complaints(witness)[len(known) :],
        },
        "ms": _times(first),
    }


def pending(first: int) -> bool:
    """Whether some dump since is not written yet."""
    return any(one.dump.state in PENDING for one in incidents(first))


def incidents(first: int) -> list[Incident]:
    """Those after `first`."""
    with IncidentStore(state_dir(), read_only=True) as store:
        return [one for one in store.list() if one.id > first]


def _dumps(first: int) -> dict[str, Any]:
    """What became of the dumps; `without`: of crashes, neither kept nor removed by the quota."""
    crashes = [one for one in incidents(first) if one.crash]
    kept = (DumpState.DONE, DumpState.REMOVED)
    return {
        "states": dict(Counter(one.dump.state.value for one in crashes)),
        "without": [one.id for one in crashes if one.dump.state not in kept],
        "titles": dict(Counter(one.title for one in crashes)),
    }


def _times(first: int) -> dict[str, Any]:
    """From the first sign of a panic or oops to the successor's user beat, by the incidents."""
    found = [one for one in incidents(first) if one.reason in ("panic", "oops")]
    spans = sorted(i.stamps["running"] / 1e6 for i in found if "running" in i.stamps)
    if not spans:
        return {}
    return {"n": len(spans), "min": spans[0], "median": statistics.median(spans), "max": spans[-1]}


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    print(json.dumps(stress(abi.Way[name.upper()], *map(int, numbers)), indent=1))
