# SPDX-License-Identifier: GPL-2.0-or-later
"""The root's own kernel as its successor has it: its memory, and the incident of its end.

The successor is a vnode (/dev/vnode-peers); the root's memory stays where it is for as long as
nobody resets the machine, so the incident's dump is HELD, in place, and write() makes a vmcore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from adeos import abi
from adeos.bridge import RootBridge
from adeos.errors import BridgeError, PlacementError
from adeos.peers import sees_root
from crashdump import capture
from crashdump.analysis.subject import Subject
from crashdump.errors import CrashdumpError
from crashdump.files import replace_file
from crashdump.incident import Dump, DumpMode, DumpState, Evidence, Extent, Incident
from crashdump.notes import CpuState, cpu_state
from crashdump.stages import Stage, since_fault
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.lent import LentMemory
from introspect.registers import PT_REGS

if TYPE_CHECKING:
    from adeos.machine import Machine
    from crashdump.store import IncidentStore

VNODE = 0
NAME = "root"
KMSG_LINES = 500
ENDS = frozenset({"panic", "halt"})
"""Reasons after which the root never comes back."""
WHERE = "the root's memory stays in place: vnode-debug attach 0"


class NoRoot(CrashdumpError):
    """The root cannot be seen from here, or not any more."""

    exit_code = 4


class Root(NamedTuple):
    """The root as it is now."""

    head: abi.RootHead | None
    last: abi.Last
    frame: abi.Frame | None
    """Registers of the CPU that panicked."""

    @property
    def cpu(self) -> int | None:
        """The CPU that panicked."""
        return self.last.cpu if self.last.state is abi.LastState.PANIC else None


def look(machine: Machine) -> Root:
    """What the root says of itself; NoRoot where this is not its successor."""
    if not sees_root(machine):
        raise NoRoot(
            "the root is seen by its successor alone, the vnode that [machine] successor names in"
            " the root's config"
        )
    bridge = RootBridge.open(machine)
    last = bridge.last()
    if last is None:
        raise NoRoot("the root's kmb.ko gives no sign of life: load the matching one there")
    return Root(bridge.head(), last, _frame(bridge, last))


def _frame(bridge: RootBridge, last: abi.Last) -> abi.Frame | None:
    if last.state is not abi.LastState.PANIC:
        return None
    try:
        return bridge.last_frame()
    except BridgeError:
        return None


def memory(machine: Machine, root: Root) -> LentMemory:
    """The root's RAM, as far as it is granted; gone once the grant is.  NoRoot when none is."""
    pa = machine.info().root_pa
    segments = []
    for one in root.last.range:
        try:
            segments.append((one.base, machine.view(one.base, one.size)))
        except PlacementError:
            continue  # the agent did not take it for the root's
    if not segments:
        raise NoRoot("none of the root's RAM is granted to this vnode")
    return LentMemory(segments, lambda: machine.info().root_pa == pa)


def kernel(machine: Machine, root: Root) -> Kernel:
    """The root's kernel, alive or dead.  NoRoot when none is found."""
    ram = memory(machine, root)
    live = root.last.state is abi.LastState.ALIVE
    try:
        return Kernel.find(ram, vmcoreinfo_pa=root.last.vmcoreinfo_pa or None, live=live)
    except IntrospectError:
        pass  # its word is wrong: look for ourselves
    try:
        return Kernel.find(ram, live=live)
    except IntrospectError as error:
        raise NoRoot(f"the root: {error}") from None


def record(store: IncidentStore, machine: Machine, root: Root, reason: str) -> Incident:
    """The incident of the root's end, its memory held in place.  Quick: nothing large is read."""
    last, info = root.last, machine.info()
    panicked = last.state is abi.LastState.PANIC
    fault = last.beat_tsc if last.state is abi.LastState.ALIVE else last.tsc
    incident = store.create(
        vnode=VNODE,
        name=NAME,
        incarnation=root.head.epoch if root.head is not None else 0,
        reason=reason,
        crash=reason != "halt",
        release=last.release,
        message=last.message,
        cpu=root.cpu,
        pid=last.pid if panicked else None,
        comm=last.comm,
        stamps=since_fault({Stage.FAULT: fault, Stage.SEEN: info.tsc}, max(info.tsc_khz, 1)),
        policy="preserve",
    )
    evidence = Evidence(incident.id, reason, last.message, root.cpu, _cpus(root))
    capture.record(store, incident.id, evidence)
    dump = Dump(
        DumpState.HELD,
        WHERE,
        DumpMode.HOLD,
        extents=tuple(Extent(one.base, one.size) for one in last.range),
        vmcoreinfo_pa=last.vmcoreinfo_pa,
        boot_id=capture.boot_id(),
    )
    return store.finish(incident.id, outcome="preserve", dump=dump)


def known(store: IncidentStore) -> Incident | None:
    """The incident of the root's end in this boot, when it is recorded already: it ends once."""
    for one in store.list(vnode=VNODE, limit=1, reverse=True):
        if one.dump.boot_id == capture.boot_id() and one.reason in ENDS:
            return one
    return None


def _cpus(root: Root) -> tuple[CpuState | None, ...]:
    if root.cpu is None or root.frame is None or root.cpu >= abi.VN_MAX_CPUS:
        return ()
    return (*[None] * root.cpu, cpu_state(root.cpu, root.frame))


def subject(machine: Machine, root: Root, reason: str = "") -> Subject:
    """The root's kernel as the analysis takes it."""
    found = Subject(
        kernel(machine, root), _registers(root), reason=reason, name="the root's memory"
    )
    found.evidence = Evidence(0, reason, root.last.message, root.cpu, _cpus(root))
    return found


def _registers(root: Root) -> dict[int, dict[str, int]]:
    if root.cpu is None or root.frame is None:
        return {}
    return {root.cpu: dict(zip(PT_REGS, root.frame.regs, strict=False))}


def explain(store: IncidentStore, number: int, machine: Machine, root: Root) -> str:
    """Keeps the log's tail and the analysis of a recorded end; the title, "" when there is none."""
    from crashdump.analysis import report, run
    from crashdump.analysis.record import ANALYSIS_FILE
    from introspect.printk import lines

    incident = store.get(number)
    found = subject(machine, root, incident.reason)
    try:
        text = [line for one in found.kernel.log() for line in lines(one)][-KMSG_LINES:]
        data = "\n".join(text).encode("utf-8", "backslashreplace")
        replace_file(store.path(number) / capture.KMSG_FILE, data, sync=False)
    except IntrospectError:
        pass  # the analysis says what the log lacks
    told = run.analyze(found, incident=number)
    replace_file(store.path(number) / ANALYSIS_FILE, report.encode(told), sync=False)
    store.update(number, sync=True, title=told.title)
    return told.title


def write(store: IncidentStore, number: int, machine: Machine) -> Incident:
    """Writes the held memory as a vmcore; without room it stays held, and the reason says so."""
    held = store.get(number).dump
    incident = capture.write_dump(store, number, machine.view)
    if incident.dump.state is DumpState.DONE:
        return incident
    kept = msgspec.structs.replace(held, reason=f"{WHERE}; no vmcore: {incident.dump.reason}")
    return store.update(number, sync=True, dump=kept)
