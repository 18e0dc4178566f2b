# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's hand in the incident store: one thread writes, in order, and the watch goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from adeos.bridge import Bridge
from adeos.machine import Machine
from crashdump.errors import CrashdumpError
from crashdump.incident import DumpState, Incident, IncidentState, Witness
from crashdump.store import IncidentStore
from watchdog import filing, log
from watchdog.journal import Case, Journal, bridge_copy
from watchdog.states import Fault

T = TypeVar("T")


@dataclass
class Entry:
    """An open incident.

    `number`: 0 until it is filed.  `captured`: its dump is held, copied or given up already.
    `case`: what it is filed from, None for one that an earlier daemon has filed.
    """

    number: int
    fault: Fault
    witnesses: tuple[Witness, ...] = ()
    captured: bool = False
    case: Case | None = None
    bridge: Bridge | None = None
    """That the case still lacks: it lies in memory as the vnode left it."""
    kept: bool = False
    """The journal has the case as it is."""
    task: asyncio.Task[None] | None = None
    """Of its filing."""
    error: Exception | None = None
    """Why it could not be filed."""
    stamps: dict[str, int] | None = None
    """Those of the unit, when the next fault came before this incident was closed."""

    @classmethod
    def of(cls, case: Case, bridge: Bridge | None = None) -> Entry:
        """A case that is not filed yet."""
        return cls(0, case.fault, case.witnesses, case.held is not None, case, bridge)

    def copy_bridge(self) -> None:
        """The vnode's memory may be written from now on, unless it is held."""
        if self.case is not None and self.case.held is None and self.bridge is not None:
            self.case = replace(self.case, bridge=bridge_copy(self.bridge))
        self.bridge = None


class Ledger:
    """Opened in its own thread, which SQLite wants."""

    def __init__(self, directory: Path, journal: Journal, machine: Machine) -> None:
        self.directory = directory
        self.journal = journal
        self.machine = machine
        self.tsc_khz = machine.info().tsc_khz
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._store: IncidentStore
        self.finished: Callable[[Incident], None] = lambda incident: None
        """Called with each incident that was closed."""
        self.filed: Callable[[Entry], None] = lambda entry: None
        """Called with each that was filed from the journal."""

    async def start(self) -> None:
        """Open the store; StoreError or DiskFull when it cannot be used."""

        def connect() -> None:
            self._store = IncidentStore(
                self.directory, warn=lambda line: log.write("warning", "store", what=line)
            )

        await self._do(connect)

    async def stop(self) -> None:
        """Close the store."""
        await self._do(lambda: self._store.close())
        self._thread.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def call(self, work: Callable[[IncidentStore], T]) -> T:
        """Run `work` on the store in its thread."""
        return await self._do(lambda: work(self._store))

    def keep(self, entry: Entry) -> bool:
        """Put an incident into the journal, which no disk holds up; False where that cannot be."""
        if entry.case is None or entry.number or entry.kept:
            return True
        entry.copy_bridge()
        entry.kept = self.journal.put(entry.case)
        return entry.kept

    async def file(self, entry: Entry) -> bool:
        """Have the incident of a case in the store: begun once, whoever waits; False: it is lost.

        Only then the journal lets it go.
        """
        entry.copy_bridge()
        if entry.task is None:
            entry.task = asyncio.get_running_loop().create_task(self._file(entry))
        await asyncio.shield(entry.task)
        return bool(entry.number)

    async def _file(self, entry: Entry) -> None:
        case = entry.case
        if case is None:
            return
        try:
            incident = await self.call(
                lambda store: filing.file(store, case, self.tsc_khz, self.machine)
            )
        except Exception as error:  # the disk, or a bug over what a vnode wrote: it runs on
            entry.error = error
            text = str(error) if isinstance(error, CrashdumpError) else repr(error)
            log.write("error", "failed", vnode=case.vnode, action="OpenIncident", what=text)
        else:
            entry.number = incident.id
            self.filed(entry)
        self.journal.drop(case)

    async def file_left(self) -> None:
        """File what an earlier daemon was killed over."""
        for case in self.journal.left():
            entry = Entry.of(case)
            if await self.file(entry):
                log.write("info", "incident", vnode=case.vnode, id=entry.number, filed="late")

    async def sync(self, entry: Entry) -> None:
        """Wait until an incident is on the disk; a failure is logged."""
        try:
            await self.call(lambda store: store.sync(entry.number))
        except CrashdumpError as error:
            log.write("warning", "store", id=entry.number, what=error)

    async def finish(
        self,
        entry: Entry,
        outcome: str,
        stamps: Mapping[str, int],
        after: Mapping[int, int],
        successor: int | None,
        strategy: str = "",
        image_age: float | None = None,
    ) -> None:
        """Close an incident; `strategy`: how the successor was placed, from an image how old."""
        witnesses = tuple(
            Witness(w.vnode, w.name, w.incarnation, w.before, after.get(w.vnode, w.after))
            for w in entry.witnesses
        )
        state = IncidentState.INTERRUPTED if outcome == "interrupted" else IncidentState.COMPLETE
        fields: dict[str, Any] = {
            "outcome": outcome,
            "successor": successor,
            "image_age": image_age,
        }
        if strategy:
            fields["restart"] = strategy
        if witnesses:
            fields["witnesses"] = witnesses
        if stamps:
            fields["stamps"] = filing.stages(stamps, self.tsc_khz)
        self.finished(await self.call(lambda store: store.finish(entry.number, state, **fields)))

    async def unfinished(self) -> list[Incident]:
        """Incidents that an earlier daemon left open."""
        return await self.call(lambda store: store.list(state=IncidentState.OPEN))

    async def recorded(self, vnode: int, incarnation: int, since: float) -> bool:
        """Whether an incident of this incarnation, opened after `since`, exists."""

        def work(store: IncidentStore) -> bool:
            found = store.list(vnode=vnode, since=since, limit=20, reverse=True)
            return any(one.incarnation == incarnation for one in found)

        return await self.call(work)


def adopted(incident: Incident) -> Entry:
    """An incident that an earlier daemon left open."""
    fault = Fault(
        incident.reason,
        incident.incarnation,
        incident.cpu if incident.cpu is not None else -1,
        incident.crash,
    )
    captured = incident.dump.state not in (DumpState.NONE, DumpState.COPYING)
    return Entry(incident.id, fault, incident.witnesses, captured)
