# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode that scribbles over its bridge or rings without end: the root is not hurt."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest

from adeos import abi
from adeos.bridge import Bridge
from watchdog.config import VnodeConfig
from watchdog.events import Faulted, Ready, Recovered, Silent, Suspected
from watchdog.filing import _facts
from watchdog.states import Fault, State
from watchdog.supervisor import Vnode
from watchdog.unit import Unit, Watched
from watchdog.watch import due_again, look

Rig = Any

SEEDS = 1000
KHZ = 1000
REASONS = {
    "corrupt", "panic", "oops", "mce", "halt", "reboot", "kexec", "irqhang", "softlockup", "hang",
    "boot",
}  # fmt: skip


def scribbled(seed: int, memory: bytearray) -> None:
    """All of the bridge, or some words of a good one, or good structs with wild numbers."""
    chance = random.Random(seed)
    if seed % 3 == 0:
        memory[:] = chance.randbytes(len(memory))
        return
    memory[:] = bytes(len(memory))
    view = memoryview(memory)
    abi.VNODE_SIDE.put(view, abi.VN_BR_VNODE, "abi", abi.VN_ABI_VERSION)
    abi.VNODE_SIDE.put(view, abi.VN_BR_VNODE, "incarnation", 1)
    abi.VNODE_SIDE.put(view, abi.VN_BR_VNODE, "state", chance.randrange(8))
    abi.CRASH.put(view, abi.VN_BR_CRASH, "state", chance.randrange(4))
    abi.CRASH.put(view, abi.VN_BR_CRASH, "incarnation", chance.choice([0, 1, 2]))
    for _ in range(chance.randrange(1, 400)):
        at = chance.choice([0x1000, 0x2000, 0x3000]) + 8 * chance.randrange(64)
        memory[at : at + 8] = chance.randbytes(8)


def test_a_thousand_scribbled_bridges() -> None:
    memory = bytearray(abi.VN_BRIDGE_SIZE)
    config = VnodeConfig(id=1, name="one", kernel="-", cpus=(1, 2), memory="64M")
    began = time.monotonic()
    for seed in range(SEEDS):
        bridge = Bridge(memoryview(memory))
        state = random.Random(seed).choice([State.BOOTING, State.RUNNING, State.SUSPECT])
        unit = Unit(config, Vnode(state=state, incarnation=1, fenced=False), bridge=bridge)
        unit.watched = watched = Watched(bridge, config, 1, KHZ, 1)
        for step in range(6):
            scribbled(seed * 6 + step, memory)
            now = 1 + step * 700 * KHZ
            event = look(unit, now, rung=seed % 2)
            assert event is None or isinstance(
                event, Faulted | Silent | Suspected | Recovered | Ready
            )
            if isinstance(event, Faulted | Silent):
                fault = event.fault
                assert fault.reason in REASONS
                assert 0 <= fault.fault_tsc <= fault.seen_tsc == now
                facts = _facts(bridge, fault)
                assert all(text.isprintable() for text in facts.values() if isinstance(text, str))
            assert watched.boot.started <= watched.ready_since(now) <= now
            assert due_again(unit, now, event, 50 * KHZ) >= now or watched.detector.due <= now
    assert time.monotonic() - began < 120
    assert Fault("corrupt", 1).crash


@pytest.mark.parametrize("seed", range(3))
def test_a_running_vnode_scribbles(rig: Rig, seed: int) -> None:
    """It is taken for crashed, kept and restarted; the other one does not notice."""
    region = rig.machine.query(1).region
    bridge = rig.machine.raw(region.base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)
    rig.mute.add(1)
    chance = random.Random(seed)
    bridge[:] = chance.randbytes(len(bridge))
    rig.machine.ring(1)
    rig.until(lambda: rig.incidents(), "an incident")
    rig.mute.discard(1)
    incident = rig.finished(1)[0]
    assert (incident.vnode, incident.crash) == (1, True)
    rig.wait(1, incarnation=2)
    other = rig.wait(2)
    assert (other["incarnation"], other["state"]) == (1, "running")


def test_the_first_user_beat_is_stamped_by_the_vnode_where_that_can_be_true() -> None:
    memory = bytearray(abi.VN_BRIDGE_SIZE)
    bridge = Bridge(memoryview(memory))
    config = VnodeConfig(id=1, name="one", kernel="-", cpus=(1, 2), memory="64M")
    watched = Watched(bridge, config, 1, KHZ, 100)
    for stamps, since in (((0, 0), 500), ((0, 300), 300), ((200, 300), 200), ((99, 501), 500)):
        for cpu, stamp in enumerate(stamps):
            at = abi.VN_BR_BEATS + cpu * abi.BEAT.size
            beat = abi.BEAT.unpack(memory, at)
            tsc = (stamp if layer is abi.Layer.USER else 250 for layer in abi.Layer)
            memory[at : at + abi.BEAT.size] = abi.BEAT.pack(beat._replace(tsc=(*tsc, 0)))
        assert watched.ready_since(500) == since


def test_a_storm_of_doorbells_is_limited_and_counted(rig: Rig) -> None:
    over = threading.Event()

    def storm() -> None:
        while not over.is_set():
            rig.machine.ring(1)

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    try:
        rig.until(lambda: rig.client.call("ping")["storms"] > 3, "storms are counted")
        rig.client.call("inject", vnode=2, kind="panic")
        incident = rig.finished(1)[0]
        assert (incident.vnode, incident.reason) == (2, "panic")
    finally:
        over.set()
        thread.join(10)
    answer = rig.client.call("ping")
    assert answer["portals"] > 1000
    rig.wait(1)
    rig.wait(2, incarnation=2)
