# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps: on the critical path the memory is made safe, in the background it is written out.

With a spare region the successor boots there and the old region *is* the dump
until a process of low priority has written it; then it is cleared and free.
The journal keeps what the successor overwrites, the incident is filed once it
is started.  Without a spare the memory is copied out first.  crashdump.capture does the work
and keeps what remains to be done in the incident, across a kill of the daemon.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from adeos.abi import Range
from adeos.errors import AdeosError
from adeos.machine import Machine
from crashdump import capture, quota
from crashdump.errors import CrashdumpError
from crashdump.incident import PENDING, DumpState, Incident
from crashdump.quota import Limits
from crashdump.store import IncidentStore
from kexec_restart.strategies import choose
from watchdog import background, filing, log
from watchdog.errors import RefusedError
from watchdog.journal import Held
from watchdog.ledger import Entry, Ledger
from watchdog.placement import Placement
from watchdog.unit import Unit

CLEAR_STEP = 16 << 20
WORKER_POLL_S = 0.5


class Dumps:
    """`filer` files incidents; `ledger` is a connection of its own, so a long copy delays none."""

    def __init__(
        self, machine: Machine, placement: Placement, filer: Ledger, ledger: Ledger
    ) -> None:
        self.machine = machine
        self.placement = placement
        self.filer = filer
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
        self.due: dict[int, list[tuple[Entry, Range | None]]] = {}
        """Vnode -> what was captured, the region that is held for it, and is not being written."""

    async def capture(self, unit: Unit, entry: Entry) -> str:
        """Make the fenced vnode's memory safe; the strategy used, `spare` or `kmb`."""
        region, slot = unit.region, unit.slot
        assert region is not None and slot is not None
        spare = self.placement.spare(unit) if self.hold else None
        plan = choose(region, spare, capture=True)
        if plan.name != "spare" or spare is None:
            await self._copy(unit, entry, region, slot)
            entry.captured = True
            # Also where no dump could be had: the worker explains the crash from its log then.
            self.due.setdefault(unit.id, []).append((entry, None))
            return plan.name
        try:
            await self._hold(unit, entry, Held(region, slot, self._low(slot)))
        except BaseException:
            self.placement.pool.free_region(spare)
            raise
        entry.captured = True
        self.placement.hold(unit, spare)
        self.due.setdefault(unit.id, []).append((entry, region))
        return plan.name

    def _low(self, slot: Range) -> bytes:
        return capture.low_memory(self.machine.view, slot)

    async def _hold(self, unit: Unit, entry: Entry, held: Held) -> None:
        """In the journal, at once; in the store where that cannot be, or it is filed already."""
        if entry.case is not None and not entry.number:
            entry.case, entry.kept = entry.case.held_by(held), False
            if not self.filer.keep(entry):
                await self._filed(entry)
            return
        note = filing.vmcoreinfo(unit.bridge)
        await self.ledger.call(
            lambda store: capture.hold(
                store, entry.number, held.low, held.region, held.slot, vmcoreinfo_pa=note
            )
        )

    async def _copy(self, unit: Unit, entry: Entry, region: Range, slot: Range) -> None:
        await self._filed(entry)
        note, view = filing.vmcoreinfo(unit.bridge), self.machine.view

        def copy(store: IncidentStore) -> Incident:
            return capture.copy(store, entry.number, view, region, slot, vmcoreinfo_pa=note)

        await self._make_room(entry.number, region.size)
        found = await self.ledger.call(copy)
        full = found.dump.state is DumpState.SKIPPED
        # larger than expected: once more, with room for all that it may be
        if full and await self._make_room(entry.number, region.size, all_of_it=True):
            await self.ledger.call(copy)

    async def _make_room(self, incident: int, worst: int, *, all_of_it: bool = False) -> list[int]:
        """Remove older dumps where that of an incident would not fit: expected, or all of it."""

        def work(store: IncidentStore) -> list[int]:
            one = store.get(incident)
            need = worst if all_of_it else quota.expected(store, one.vnode, worst)
            return quota.make_room(store, self.limits, need, one.title or one.reason)

        try:
            gone = await self.ledger.call(work)
        except (OSError, CrashdumpError) as error:
            log.write("error", "quota", what=error)
            return []
        for incident in gone:
            log.write("warning", "dump-removed", id=incident, why="room for the next")
        return gone

    async def _filed(self, entry: Entry) -> None:
        if not await self.filer.file(entry):
            raise RefusedError("no incident to put it in")

    def write_due(self, vnode: int) -> None:
        """Begin writing what was captured: called when the successor is started, or none will be.

        A worker that starts earlier takes the root's CPU from the restart.
        """
        for entry, region in self.due.pop(vnode, ()):
            self._spawn(self._file_and_write(entry, vnode, region))

    async def live(self, unit: Unit, entry: Entry) -> Incident:
        """Dump a vnode's memory as it is, running or not: pages are of different moments."""
        region, slot = unit.region, unit.slot
        assert region is not None and slot is not None
        await self._copy(unit, entry, region, slot)
        view = self.machine.view
        return await self.ledger.call(lambda s: capture.write_dump(s, entry.number, view))

    async def resume(self) -> None:
        """Take up what an earlier daemon left; before any region is given out."""
        pending = await self.ledger.call(lambda s: capture.resume(s, self.machine))
        for one in pending:
            if one.action is capture.Action.COPY:
                continue  # adoption captures it again, from the fence
            if one.region is not None:
                self._keep(one.incident.id, one.region)
            self._spawn(self._write_out(one.incident.id, one.incident.vnode, one.region))
            log.write("info", "dump-resumed", id=one.incident.id, action=one.action.value)

    def _keep(self, incident: int, region: Range) -> None:
        try:
            self.placement.reserve_held(region)
        except AdeosError as error:
            log.write("warning", "held-region", id=incident, what=error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.work.add(task)
        task.add_done_callback(self.work.discard)

    async def stop(self) -> None:
        """Leave background work to the next daemon; worker processes go on by themselves."""
        for task in tuple(self.work):
            task.cancel()
        await asyncio.gather(*self.work, return_exceptions=True)

    async def _file_and_write(self, entry: Entry, vnode: int, region: Range | None) -> None:
        if await self.filer.file(entry):
            await self._write_out(entry.number, vnode, region)
        elif region is not None:
            await self._give_back(vnode, region)  # no incident, no dump

    async def _write_out(self, incident: int, vnode: int, region: Range | None) -> None:
        """Write a dump in the background; its region is cleared and freed afterwards."""
        try:
            found = await self._written(incident, region)
        except (OSError, AdeosError) as error:
            log.write("error", "dump", id=incident, vnode=vnode, what=error)
            return
        await self.keep_quota()
        level = "info" if found.dump.state is DumpState.DONE else "warning"
        note = {"what": found.dump.reason} if found.dump.reason else {}
        log.write(level, "dump", id=incident, vnode=vnode, state=found.dump.state.value, **note)
        if region is not None:
            await self._give_back(vnode, region)

    async def _written(self, incident: int, region: Range | None) -> Incident:
        """The incident with its dump written out; older ones make room for one still in memory."""
        if region is not None:
            await self._make_room(incident, region.size)
        while True:
            await self._worker(incident)
            found = await self.ledger.call(lambda s: s.get(incident))
            if found.dump.state in PENDING:
                await asyncio.sleep(WORKER_POLL_S)  # another worker is at it
                continue
            if found.dump.state is not DumpState.SKIPPED or region is None:
                return found
            if not await self._make_room(incident, region.size, all_of_it=True):
                return found
            await self.ledger.call(lambda s: capture.again(s, incident))

    async def _give_back(self, vnode: int, region: Range) -> None:
        if not await self.reclaim(vnode, region):
            await background.run(lambda: self._clear(region))
            self.placement.unhold(region)
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
