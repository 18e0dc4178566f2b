# SPDX-License-Identifier: GPL-2.0-or-later
"""Records what kmb.ko did while no daemon was there: an in-kernel fire becomes an incident.

A kill at any moment of it harms nothing.  The kernel keeps its record until `settle`; by then the
incident is in the store, its dump held, and the root bridge says what runs now, by which vnodes
are adopted.  Done again before that, it finds the incident it has made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from adeos import abi
from adeos.abi import FireCause, FireState, KmbFire
from adeos.arming import predecessor
from adeos.bridge import Bridge, RootBridge
from adeos.errors import AdeosError, BridgeError
from adeos.machine import Machine
from crashdump.capture import boot_id
from watchdog import log
from watchdog.config import VnodeConfig
from watchdog.journal import BRIDGE_KEPT, Case, Held
from watchdog.ledger import Entry, Ledger
from watchdog.states import OPERATOR, Fault
from watchdog.watch import record_complete, recorded_fault

_SILENCE = {
    FireCause.IRQ: "irqhang",
    FireCause.SCHED: "softlockup",
    FireCause.USER: "hang",
}

ENDED = (abi.StatusState.STOPPED, abi.StatusState.QUARANTINED)


async def record(
    machine: Machine, ledger: Ledger, root: RootBridge, configs: Mapping[int, VnodeConfig]
) -> dict[int, tuple[Entry, KmbFire]]:
    """File every fire; before any region is given out, and before vnodes are adopted."""
    found: dict[int, tuple[Entry, KmbFire]] = {}
    for vnode in range(1, abi.VN_MAX_VNODES):
        fire = machine.fire(vnode)
        if fire is None or fire.state in (FireState.NONE, FireState.ARMED):
            continue
        if fire.state is FireState.FIRED or fire.loaded_tsc:  # not started, but moved already
            entry = Entry.of(case_of(machine, root, fire, configs.get(vnode)))
            if await ledger.file(entry):
                log.write(
                    "warning", "fired", vnode=vnode, id=entry.number, reason=entry.fault.reason
                )
            found[vnode] = entry, fire
            publish(root, fire, entry.number)
        else:
            what = f"{fire.state.name.lower()}: {os.strerror(fire.error)}"
            log.write("error", "not-fired", vnode=vnode, what=what)
        machine.settle(vnode)
    return found


def case_of(machine: Machine, root: RootBridge, fire: KmbFire, config: VnodeConfig | None) -> Case:
    """What is known of the fault; the same each time it is asked for."""
    bridge, low = predecessor(machine.fire_kept(fire.vnode))
    binding, status = machine.query(fire.vnode), _status(root, fire.vnode)
    name = config.name if config is not None else status.name if status is not None else ""
    fault = _fault(bridge, fire)
    recorded = record_complete(bridge, fire.incarnation)
    asked = tuple(cpu for cpu in range(abi.VN_MAX_CPUS) if fire.answered >> cpu & 1)
    held = None
    if binding is not None and fire.old != fire.region:
        held = Held(fire.old, binding.slot, low)
    return Case(
        vnode=fire.vnode,
        name=name,
        fault=fault,
        opened=fire.wall_ns / 1e9,
        stamps=_stamps(fault, fire),
        witnesses=(),
        policy=config.restart.on_crash if config is not None else "",
        ncpus=len(binding.cpus) if binding is not None else 1,
        boot_id=boot_id(),
        gathered="record" if recorded else "nmi" if asked else "",
        answered=asked if fire.asked else None,
        bridge=bytes(bridge.view[:BRIDGE_KEPT]),
        held=held,
        lost="" if held is not None else "no spare region: it was restarted where it had crashed",
        strategy="fire",
        successor=fire.successor,
    )


def _fault(bridge: Bridge, fire: KmbFire) -> Fault:
    reason, cpu = _SILENCE.get(fire.cause, "panic"), fire.cpu
    try:
        crash = bridge.crash() if fire.cause is FireCause.RECORD else None
    except BridgeError:
        crash, reason = None, "corrupt"
    began = fire.fault_tsc
    if crash is not None:
        said = recorded_fault(crash)
        reason, cpu, began = said.reason, said.cpu, _began(bridge, crash, fire)
    return Fault(reason, fire.incarnation, cpu, fault_tsc=began, seen_tsc=fire.seen_tsc)


def _began(bridge: Bridge, crash: abi.Crash, fire: KmbFire) -> int:
    """When the fault was; a vnode's own stamp counts between its start and now."""
    try:
        started = bridge.root_side().start_tsc
    except BridgeError:
        return fire.fault_tsc
    return crash.tsc if started <= crash.tsc <= fire.seen_tsc else fire.fault_tsc


def _stamps(fault: Fault, fire: KmbFire) -> dict[str, int]:
    return {
        "fault": fault.fault_tsc,
        "seen": fire.seen_tsc,
        "fenced": fire.fenced_tsc,
        "captured": fire.captured_tsc,
        "started": fire.started_tsc,
    }


def publish(root: RootBridge, fire: KmbFire, incident: int) -> None:
    """Say in the root bridge what runs now: vnodes are adopted by that.

    An operator's word stays.
    """
    status = _status(root, fire.vnode)
    if status is None or status.incarnation >= fire.successor:
        return
    fenced = status.state is abi.StatusState.FENCED and status.reason == OPERATOR
    ended = status.state in ENDED or fenced
    root.publish(
        status._replace(
            state=status.state if ended else abi.StatusState.BOOTING,
            reason=status.reason if ended else "",
            incarnation=fire.successor,
            since_tsc=fire.started_tsc,
            region_base=fire.region_base,
            region_size=fire.region_size,
            restarts=status.restarts + 1,
            incidents=status.incidents + 1,
            last_incident=max(status.last_incident, incident),
            way=abi.Way.COLD,
        )
    )


def _status(root: RootBridge, vnode: int) -> abi.Status | None:
    try:
        return root.status(vnode)
    except AdeosError:
        return None


def user_beat(bridge: Bridge, fire: KmbFire, now: int) -> int:
    """When the successor's user space came up, by its own word, if that can be true; else 0."""
    try:
        side = bridge.vnode_side()
    except BridgeError:
        return 0
    if side is None or side.incarnation != fire.successor:
        return 0
    return side.user_tsc if fire.started_tsc <= side.user_tsc <= now else 0
