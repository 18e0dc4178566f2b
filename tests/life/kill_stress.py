# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon killed at random moments of incidents: runs in the root vnode, prints one JSON object.

python3 -m tests.life.kill_stress VNODE COUNT SEED

Each round a fault, kill -9 of the daemon up to LATEST_S later, `vnode-debug up`.  Then there must
be one new incident with its dump or a reason for none, one restart, and a vnode that runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from adeos import abi
from adeos.bridge import RootBridge
from adeos.kmb import KmbMachine
from crashdump.incident import PENDING, DumpState, Incident, IncidentState
from crashdump.store import IncidentStore
from watchdog import paths
from watchdog.client import Client

FAULTS = ("panic", "oops", "irqhang")
LATEST_S = 4.0
LIMIT_S = 60.0


def status(root: RootBridge, vnode: int) -> abi.Status:
    found = root.status(vnode)
    assert found is not None
    return found


def incidents_after(vnode: int, number: int) -> list[Incident]:
    with IncidentStore(paths.state_dir(), read_only=True) as store:
        return [one for one in store.list(vnode=vnode) if one.id > number]


def kill_daemon() -> None:
    pid = int(Client().call("ping")["pid"])
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.005)


def over(root: RootBridge, found: list[Incident], vnode: int) -> bool:
    return (
        bool(found)
        and all(one.state is not IncidentState.OPEN for one in found)
        and all(one.dump.state not in PENDING for one in found)
        and status(root, vnode).state is abi.StatusState.RUNNING
    )


def a_round(
    root: RootBridge, vnode: int, fault: str, moment: float
) -> tuple[list[str], list[Incident]]:
    """What is wrong after one round, and its incidents."""
    before = status(root, vnode)
    Client().call("inject", vnode=vnode, kind=fault)
    time.sleep(moment)
    kill_daemon()
    subprocess.run(["vnode-debug", "-q", "up"], check=True)
    end = time.monotonic() + LIMIT_S
    while not over(root, found := incidents_after(vnode, before.last_incident), vnode):
        if time.monotonic() > end:
            return [f"not over after {LIMIT_S} s: {status(root, vnode).state.name}"], found
        time.sleep(0.2)
    after = status(root, vnode)
    wrong = []
    if len(found) != 1:
        wrong.append(f"{len(found)} incidents")
    if after.restarts != before.restarts + 1:
        wrong.append(f"{after.restarts - before.restarts} restarts")
    lost = [one for one in found if one.dump.state is not DumpState.DONE and not one.dump.reason]
    wrong += [f"no dump of {one.id} and no reason" for one in lost]
    return wrong, found


def main(vnode: int, count: int, seed: int) -> dict[str, Any]:
    root = RootBridge.open(KmbMachine())
    chance = random.Random(seed)
    wrong: list[str] = []
    states: Counter[str] = Counter()
    spent = []
    for number in range(count):
        fault, moment = chance.choice(FAULTS), chance.uniform(0, LATEST_S)
        begin = time.monotonic()
        problems, found = a_round(root, vnode, fault, moment)
        spent.append(time.monotonic() - begin)
        wrong += [f"round {number} ({fault}, {moment:.3f} s): {text}" for text in problems]
        states.update(
            f"{one.reason} {one.state.value}, dump {one.dump.state.value}" for one in found
        )
        print(f"{number + 1}/{count} {wrong[-1:]}", file=sys.stderr, flush=True)
    return {
        "rounds": count,
        "seed": seed,
        "wrong": wrong,
        "incidents": states,
        "round_s": round(statistics.median(spent), 2),
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
