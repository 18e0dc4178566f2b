# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps: on the critical path the memory is made safe, in the background it is written out.

With a spare region the successor boots there and the old region *is* the dump
until a process of low priority has written it; then it is cleared and free.
Without one the memory is copied out first.  crashdump.capture does the work
and keeps what remains to be done in the incident, across a kill of the daemon.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from adeos.abi import Range
from adeos.errors import AdeosError, BridgeError
from adeos.machine import Machine
from crashdump import capture, quota
from crashdump.errors import CrashdumpError
from crashdump.incident import PENDING, DumpState, Evidence, Incident
from crashdump.notes import CpuState, cpu_state
from crashdump.quota import Limits
from crashdump.store import IncidentStore
from kexec_restart.strategies import choose
from watchdog import background, log
from watchdog.ledger import Entry, Ledger
from watchdog.placement import Placement
from watchdog.unit import Unit

CLEAR_STEP = 16 << 20
WORKER_POLL_S = 0.5

Writer = Callable[[IncidentStore, int], "asyncio.Future[int]"]


class Dumps:
    """`ledger` is a connection of its own, so that a long copy holds up no other incident."""

    def __init__(self, machine: Machine, placement: Placement, ledger: Ledger) -> None:
        self.machine = machine
        self.placement = placement
        self.ledger = ledger
        self.hold = True
        self.in_process = False
        """Write dumps in a thread: for machines that no other process can open (tests)."""
        self.work: set[asyncio.Task[None]] = set()
        self.reclaim: Callable[[int, Range], Awaitable[bool]] = _nobody
        """Called with a vnode and the region that held its dump; True when it is wanted again."""
        self.freed: Callable[[], None] = lambda: None
        """Called when a region that was held is free again."""
        self.limits = Limits()
        """Of the disk: what is over it goes, see crashdump/quota.py."""
        self.due: dict[int, list[int]] = {}
        """Vnode -> incidents captured and not yet being written."""

    async def capture(self, unit: Unit, entry: Entry) -> str:
        """Make the fenced vnode's memory safe; the strategy used, `spare` or `kmb`."""
        region, slot = unit.region, unit.slot
        assert region is not None and slot is not None
        note, evidence, kmsg = _evidence(unit, entry)
        spare = self.placement.spare(unit) if self.hold else None
        plan = choose(region, spare, capture=True)
        step = capture.hold if plan.name == "spare" else capture.copy
        view = self.machine.view

        def work(store: IncidentStore) -> Incident:
            capture.record(store, entry.number, evidence, kmsg)
            return step(store, entry.number, view, region, slot, vmcoreinfo_pa=note)

        try:
            await self.ledger.call(work)
        except BaseException:
            if spare is not None:
                self.placement.pool.free_region(spare)
            raise
        entry.captured = True
        if spare is not None:
            self.placement.hold(entry.number, unit, spare)
        # Also where no dump could be had: the worker explains the crash from its log then.
        self.due.setdefault(unit.id, []).append(entry.number)
        return plan.name

    def write_due(self, vnode: int) -> None:
        """Begin writing what was captured: called when the successor is started, or none will be.

        A worker that starts earlier takes the root's CPU from the restart.
        """
        for incident in self.due.pop(vnode, ()):
            self.write_out(incident, vnode)

    async def live(self, unit: Unit, entry: Entry) -> Incident:
        """Dump a vnode's memory as it is, running or not: pages are of different moments."""
        region, slot = unit.region, unit.slot
        assert region is not None and slot is not None
        note, evidence, kmsg = _evidence(unit, entry)

        def work(store: IncidentStore) -> Incident:
            capture.record(store, entry.number, evidence, kmsg)
            view = self.machine.view
            capture.copy(store, entry.number, view, region, slot, vmcoreinfo_pa=note)
            return capture.write_dump(store, entry.number, view)

        return await self.ledger.call(work)

    async def resume(self) -> None:
        """Take up what an earlier daemon left; before any region is given out."""
        pending = await self.ledger.call(lambda s: capture.resume(s, self.machine))
        for one in pending:
            if one.action is capture.Action.COPY:
                continue  # adoption captures it again, from the fence
            if one.region is not None:
                self._keep(one.incident.id, one.region)
            self.write_out(one.incident.id, one.incident.vnode)
            log.write("info", "dump-resumed", id=one.incident.id, action=one.action.value)

    def _keep(self, incident: int, region: Range) -> None:
        try:
            self.placement.reserve_held(incident, region)
        except AdeosError as error:
            log.write("warning", "held-region", id=incident, what=error)

    def write_out(self, incident: int, vnode: int) -> None:
        """Write a dump in the background; its region is cleared and freed afterwards."""
        task = asyncio.get_running_loop().create_task(self._write_out(incident, vnode))
        self.work.add(task)
        task.add_done_callback(self.work.discard)

    async def stop(self) -> None:
        """Leave background work to the next daemon; worker processes go on by themselves."""
        for task in tuple(self.work):
            task.cancel()
        await asyncio.gather(*self.work, return_exceptions=True)

    async def _write_out(self, incident: int, vnode: int) -> None:
        try:
            while True:
                await self._worker(incident)
                found = await self.ledger.call(lambda s: s.get(incident))
                if found.dump.state not in PENDING:
                    break
                await asyncio.sleep(WORKER_POLL_S)  # another worker is at it
        except (OSError, AdeosError) as error:
            log.write("error", "dump", id=incident, vnode=vnode, what=error)
            return
        await self.keep_quota()
        level = "info" if found.dump.state is DumpState.DONE else "warning"
        note = {"what": found.dump.reason} if found.dump.reason else {}
        log.write(level, "dump", id=incident, vnode=vnode, state=found.dump.state.value, **note)
        region = self.placement.held.get(incident)
        if region is not None:
            await background.run(lambda: self._clear(region))
            if not await self.reclaim(vnode, region):
                self.placement.unhold(incident)
            self.freed()

    async def keep_quota(self) -> None:
        """Remove the dumps that are over the limits; a failure is logged."""
        limits = self.limits
        try:
            gone = await self.ledger.call(lambda store: quota.apply(store, limits))
        except (OSError, CrashdumpError) as error:
            log.write("error", "quota", what=error)
            return
        for incident in gone:
            log.write("warning", "dump-removed", id=incident)

    async def _worker(self, incident: int) -> None:
        if self.in_process:
            view = self.machine.view
            await self.ledger.call(lambda s: capture.write_dump(s, incident, view))
            return
        command = await self.ledger.call(lambda s: capture.worker_command(s, incident))
        process = await asyncio.create_subprocess_exec(
            *command,
            env=capture.worker_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        await process.wait()

    def _clear(self, region: Range) -> None:
        """So that the next dump of this memory shows no kernel but its own."""
        for base in range(region.base, region.end, CLEAR_STEP):
            self.machine.clear(base, min(CLEAR_STEP, region.end - base))
            os.sched_yield()


async def _nobody(vnode: int, region: Range) -> bool:
    return False


def _evidence(unit: Unit, entry: Entry) -> tuple[int, Evidence, str]:
    """VMCOREINFO's address, the registers and the log tail: all that INIT and time destroy."""
    bridge, fault = unit.bridge, entry.fault
    cpus: list[CpuState | None] = []
    note, kmsg, message = 0, "", ""
    trapnr: int | None = None
    error_code: int | None = None
    if bridge is not None:
        recorded = unit.gathered == "record"
        known = range(len(unit.config.cpus)) if recorded else unit.answered or ()
        read = bridge.crash_frame if recorded else bridge.debug_frame
        for cpu in range(len(unit.config.cpus)):
            try:
                frame = read(cpu) if cpu in known else None
            except BridgeError:
                frame = None
            cpus.append(cpu_state(cpu, frame) if frame is not None else None)
        try:
            side = bridge.vnode_side()
            note = side.vmcoreinfo_pa if side is not None else 0
            crash = bridge.crash()
            if crash is not None and crash.incarnation == fault.incarnation:
                kmsg, message = bridge.kmsg(), crash.message
                trapnr, error_code = crash.trapnr, crash.error_code
        except BridgeError as error:
            log.write("warning", "bridge", vnode=unit.id, what=error)
    crashed = fault.cpu if fault.cpu >= 0 else None
    asked = unit.answered is not None and crashed is not None
    if asked and not message and crashed not in known:
        message = f"CPU {crashed} answers no NMI: its registers are unknown"
    evidence = Evidence(
        entry.number, fault.reason, message, crashed, tuple(cpus), trapnr, error_code
    )
    return note, evidence, kmsg
