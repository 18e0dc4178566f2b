# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's hand in the incident store: one thread writes, in order, and the watch goes on.

What is recorded of a fault is read from the vnode's bridge, so all of it is
hostile; the store cleans text, the bridge checks numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from adeos.bridge import Bridge
from adeos.errors import BridgeError
from crashdump.errors import CrashdumpError
from crashdump.incident import DumpState, Incident, IncidentState, Witness
from crashdump.stages import Stage, since_fault
from crashdump.store import IncidentStore
from watchdog import log
from watchdog.states import Fault

T = TypeVar("T")

LAYER_OF = {"irqhang": "irq", "softlockup": "sched", "hang": "user"}


@dataclass
class Entry:
    """An open incident; `captured`: its dump is held, copied or given up already."""

    number: int
    fault: Fault
    witnesses: tuple[Witness, ...] = ()
    captured: bool = False


class Ledger:
    """Opened in its own thread, which SQLite wants."""

    def __init__(self, directory: Path, tsc_khz: int) -> None:
        self.directory = directory
        self.tsc_khz = tsc_khz
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._store: IncidentStore
        self.finished: Callable[[Incident], None] = lambda incident: None
        """Called with each incident that was closed."""

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

    async def open(
        self,
        vnode: int,
        name: str,
        fault: Fault,
        stamps: Mapping[str, int],
        witnesses: tuple[Witness, ...],
        bridge: Bridge | None,
        policy: str,
    ) -> Entry:
        """Commit a new incident: safe from a kill; `sync` makes it safe from a power failure.

        Waiting for the disk here would keep the vnode down for 15 ms more.
        """
        facts = _facts(bridge, fault)
        fields: dict[str, Any] = {
            "vnode": vnode,
            "name": name,
            "incarnation": fault.incarnation,
            "reason": fault.reason,
            "crash": fault.crash,
            "layer": LAYER_OF.get(fault.reason, ""),
            "cpu": fault.cpu if fault.cpu >= 0 else None,
            "stamps": self._stages(stamps),
            "witnesses": witnesses,
            "policy": policy,
            **facts,
        }
        incident = await self.call(lambda store: store.create(sync=False, **fields))
        return Entry(incident.id, fault, witnesses)

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
            fields["stamps"] = self._stages(stamps)
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

    def _stages(self, stamps: Mapping[str, int]) -> dict[str, int]:
        known = {Stage(key): value for key, value in stamps.items() if key in set(Stage)}
        return since_fault(known, self.tsc_khz) if known else {}


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
