# SPDX-License-Identifier: GPL-2.0-or-later
"""Gathers what an earlier daemon left behind and takes it over (adoption.py decides)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from adeos import abi
from adeos.errors import AdeosError, BridgeError
from crashdump.incident import Incident
from kexec_restart import slots as slotting
from watchdog import fired, firing, grants, log
from watchdog.adoption import Evidence, adopt, wants_start
from watchdog.detector import LAYERS
from watchdog.ledger import adopted
from watchdog.states import LIVE, Fault, State
from watchdog.unit import Unit, Watched
from watchdog.watch import fault_in

if TYPE_CHECKING:
    from watchdog.service import Service


async def adopt_all(service: Service) -> list[Unit]:
    """Adopt every configured vnode; those to be started are returned."""
    unfinished = await service.executor.ledger.unfinished()
    started: list[Unit] = []
    booted = boot_time()
    for unit in service.units.values():
        mine = [one for one in unfinished if one.vnode == unit.id]
        found = await _evidence(service, unit, mine, booted)
        for stale in mine[:-1] if found.open_incident else mine:
            await service.executor.ledger.finish(adopted(stale), "interrupted", {}, {}, None)
        if found.open_incident:
            unit.entry = adopted(mine[-1])
        _take_over(service, unit, found)
        if unit.id in service.fired:
            _note_fire(service, unit)
        if wants_start(found, unit.config.autostart):
            started.append(unit)
    for one in unfinished:
        if one.vnode not in service.units:
            await service.executor.ledger.finish(adopted(one), "interrupted", {}, {}, None)
    service.executor.warm.adopt()
    service.executor.firing.adopt(service.units)
    service.fired.clear()
    return started


def _take_over(service: Service, unit: Unit, found: Evidence) -> None:
    policy, slots = unit.config.restart, unit.vnode.slots
    unit.vnode, wanted = adopt(found, policy, time.monotonic_ns(), slots)
    unit.since_tsc = service.machine.tsc()
    if unit.vnode.state not in LIVE:
        unit.watched = None
    if found.bound or found.word is not None:
        log.write(
            "info",
            "adopted",
            vnode=unit.id,
            name=unit.config.name,
            state=unit.vnode.state.word,
            was=found.word.word if found.word else "unknown",
            incarnation=unit.vnode.incarnation,
        )
    service.publish(unit)
    for action in wanted:
        unit.queue.put_nowait(action)


def _note_fire(service: Service, unit: Unit) -> None:
    """What the incident of an in-kernel fire, and the vnode's slots, are still to be told."""
    entry, fire = service.fired[unit.id]
    slots = slotting.started(slotting.failed(unit.vnode.slots), firing.slot_of(fire.cookie))
    service.staging.put(unit, slots)
    if entry.case is None or not entry.number:
        return
    if entry.case.lost:
        service.executor.dumps.due.setdefault(unit.id, []).append((entry, None))
    if unit.vnode.state in LIVE and unit.bridge is not None:
        unit.strategy, unit.stamps = entry.case.strategy, dict(entry.case.stamps)
        running = fired.user_beat(unit.bridge, fire, service.machine.tsc())
        if running:
            unit.stamps["running"] = running


async def _evidence(
    service: Service, unit: Unit, unfinished: list[Incident], booted: float
) -> Evidence:
    status = _status(service, unit.id)
    word = State(status.state) if status and status.state.value < len(State) else None
    incarnation = status.incarnation if status else 0
    bridge_incarnation, started = 0, 0
    service.executor.placement.adopt(unit)
    if unit.binding is not None and unit.bridge is not None:
        started = unit.binding.started
        try:
            bridge_incarnation = unit.bridge.root_side().incarnation
        except BridgeError:
            bridge_incarnation = 0
    current = max(incarnation, bridge_incarnation)
    up, fault = _examine(service, unit, bridge_incarnation or incarnation)
    if not unit.config.watch.agent:
        up = word in (State.RUNNING, State.SUSPECT)  # its bridge never says anything
    grants.adopt(unit, status, service.units)
    unit.last_incident = status.last_incident if status else 0
    unit.warm.way = status.way if status else abi.Way.COLD
    recent = [one for one in unfinished if one.opened >= booted]
    recorded = await service.executor.ledger.recorded(unit.id, current, booted)
    return Evidence(
        bound=unit.binding is not None,
        started=started,
        word=word,
        reason=status.reason if status else "",
        incarnation=incarnation,
        restarts=status.restarts if status else 0,
        incidents=status.incidents if status else 0,
        bridge_incarnation=bridge_incarnation,
        up=up,
        fault=fault,
        open_incident=bool(recent) and recent[-1] is unfinished[-1],
        recorded=recorded,
    )


def _status(service: Service, vnode: int) -> abi.Status | None:
    try:
        return service.root.status(vnode)
    except AdeosError as error:
        log.write("warning", "root-bridge", vnode=vnode, what=error)
        return None


def _examine(service: Service, unit: Unit, incarnation: int) -> tuple[bool, Fault | None]:
    """Whether its user space has beaten, and the fault its bridge reports; begins the watch."""
    if unit.bridge is None or not incarnation:
        return False, None
    now = service.machine.tsc()
    watched = Watched(unit.bridge, unit.config, incarnation, service.tsc_khz, now)
    unit.watched = watched
    try:
        word = watched.word()
        fault = fault_in(watched, word)
    except (BridgeError, ValueError):
        return False, None
    counts = watched.counts()
    watched.detector.arm(counts, now)
    beaten = any(counts[LAYERS.index("user") :: 4])
    return word is abi.State.RUNNING or (word is not abi.State.NONE and beaten), fault


def boot_time() -> float:
    """When this machine booted, Unix time; incidents before it concern other memory."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1]) - 1
    return 0.0
