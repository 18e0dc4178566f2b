# SPDX-License-Identifier: GPL-2.0-or-later
"""From a case of the journal to an incident of the store.  Blocks: for the ledger's thread.

What is read of a fault comes from the vnode's bridge, so all of it is hostile; the store cleans
text, the bridge checks numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adeos.bridge import Bridge
from adeos.errors import BridgeError
from adeos.machine import Machine
from crashdump import capture
from crashdump.incident import Dump, DumpState, Evidence, Incident
from crashdump.notes import CpuState, cpu_state
from crashdump.stages import Stage, since_fault
from crashdump.store import IncidentStore
from watchdog import log
from watchdog.journal import Case
from watchdog.states import Fault

LAYER_OF = {"irqhang": "irq", "softlockup": "sched", "hang": "user"}


def file(store: IncidentStore, case: Case, tsc_khz: int, machine: Machine) -> Incident:
    """The case's incident: made, its evidence written, its dump declared; what is there stays.

    `machine`: in whose memory its region may be held.  Doing it again, after a kill at any
    moment of it, finishes it.
    """
    bridge = case.open_bridge(machine)
    incident = _find(store, case) or store.create(sync=False, **_fields(case, bridge, tsc_khz))
    if incident.dump.state is not DumpState.NONE:
        return incident
    capture.record(store, incident.id, *_evidence(case, bridge, incident.id))
    held = case.held
    if case.lost:
        return store.update(incident.id, dump=Dump(DumpState.SKIPPED, reason=case.lost))
    if held is None or case.boot_id != capture.boot_id():
        return incident
    note = vmcoreinfo(bridge)
    return capture.hold(store, incident.id, held.low, held.region, held.slot, vmcoreinfo_pa=note)


def _find(store: IncidentStore, case: Case) -> Incident | None:
    found = store.list(vnode=case.vnode, since=case.opened, until=case.opened)
    return next((one for one in found if one.incarnation == case.fault.incarnation), None)


def _fields(case: Case, bridge: Bridge | None, tsc_khz: int) -> dict[str, Any]:
    fault = case.fault
    return {
        "vnode": case.vnode,
        "name": case.name,
        "opened": case.opened,
        "incarnation": fault.incarnation,
        "reason": fault.reason,
        "crash": fault.crash,
        "layer": LAYER_OF.get(fault.reason, ""),
        "cpu": fault.cpu if fault.cpu >= 0 else None,
        "stamps": stages(case.stamps, tsc_khz),
        "witnesses": case.witnesses,
        "policy": case.policy,
        "restart": case.strategy,
        "successor": case.successor,
        **_facts(bridge, fault),
    }


def stages(stamps: Mapping[str, int], tsc_khz: int) -> dict[str, int]:
    """TSC stamps by stage as nanoseconds since the fault."""
    known = {Stage(key): value for key, value in stamps.items() if key in set(Stage)}
    return since_fault(known, tsc_khz) if known else {}


def vmcoreinfo(bridge: Bridge | None) -> int:
    """Where the agent said that the VMCOREINFO note is, 0 = it did not."""
    try:
        side = bridge.vnode_side() if bridge is not None else None
    except BridgeError:
        return 0
    return side.vmcoreinfo_pa if side is not None else 0


def _facts(bridge: Bridge | None, fault: Fault) -> dict[str, Any]:
    """What the vnode's bridge says of itself and of the crash, as far as it is readable."""
    facts: dict[str, Any] = {}
    if bridge is None:
        return facts
    try:
        side = bridge.vnode_side()
        if side is not None and side.incarnation == fault.incarnation:
            facts["release"] = side.release
    except BridgeError:
        pass
    try:
        crash = bridge.crash()
        if crash is not None and crash.incarnation == fault.incarnation and fault.crash:
            facts.update(message=crash.message, pid=crash.pid, comm=crash.comm)
    except BridgeError:
        pass
    return facts


def _evidence(case: Case, bridge: Bridge | None, number: int) -> tuple[Evidence, str]:
    """The registers and the log tail: what INIT and time destroy."""
    fault = case.fault
    kmsg, message = "", ""
    trapnr: int | None = None
    error_code: int | None = None
    cpus: tuple[CpuState | None, ...] = ()
    if bridge is not None:
        recorded = False
        try:
            crash = bridge.crash()
            if crash is not None and crash.incarnation == fault.incarnation:
                recorded = True
                kmsg, message = bridge.kmsg(), crash.message
                trapnr, error_code = crash.trapnr, crash.error_code
        except BridgeError as error:
            log.write("warning", "bridge", vnode=case.vnode, what=error)
        cpus = tuple(_registers(case, bridge, cpu, recorded) for cpu in range(case.ncpus))
    crashed = fault.cpu if fault.cpu >= 0 else None
    asked = case.answered is not None and crashed is not None
    if asked and not message and not any(cpu and cpu.cpu == crashed for cpu in cpus):
        message = f"CPU {crashed} answers no NMI: its registers are unknown"
    evidence = Evidence(number, fault.reason, message, crashed, cpus, trapnr, error_code)
    return evidence, kmsg


def _registers(case: Case, bridge: Bridge, cpu: int, recorded: bool) -> CpuState | None:
    """Those of the crash if the record has them, complete or not, else the answer to an NMI."""
    readers = [bridge.crash_frame] if recorded else []
    if cpu in (case.answered or ()):
        readers.append(bridge.debug_frame)
    for read in readers:
        try:
            frame = read(cpu)
        except BridgeError:
            continue
        if frame is not None:
            return cpu_state(cpu, frame)
    return None
