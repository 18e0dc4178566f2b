# SPDX-License-Identifier: GPL-2.0-or-later
"""Which vnode may look at which other: kept a unit (`Unit.grants`), written into its bridge.

The holder's table is written anew whenever something is published of it or of a vnode that it was
granted, so a start, a move or a stop is told before anybody else gets the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from adeos import abi
from adeos.errors import AdeosError
from adeos.machine import Machine
from watchdog import log, portal, status
from watchdog.states import LIVE
from watchdog.unit import Unit

TAKEN_WITHIN_S = 1.0


def adopt(unit: Unit, word: abi.Status | None, known: Mapping[int, Unit]) -> None:
    """What an earlier daemon had granted stands; the root bridge tells, which is no vnode's."""
    if word is not None and unit.binding is not None:
        unit.grants = {
            vnode
            for vnode in range(1, abi.VN_MAX_VNODES)
            if word.grants >> vnode & 1 and vnode in known and vnode != unit.id
        }
        unit.controls = {vnode for vnode in unit.grants if word.controls >> vnode & 1}


def spread(machine: Machine, units: Mapping[int, Unit], changed: Unit) -> None:
    """Tell everyone whom a change of this vnode concerns."""
    for holder in units.values():
        if holder is changed or changed.id in holder.grants:
            write(machine, units, holder)


def write(machine: Machine, units: Mapping[int, Unit], holder: Unit) -> None:
    """Write a holder's table and ring; one that boots finds it when its agent comes up."""
    if holder.bridge is None or holder.vnode.state not in LIVE:
        return
    try:
        table = [
            _entry(machine, units[vnode], control=vnode in holder.controls)
            for vnode in sorted(holder.grants)
        ]
        root_pa = machine.info().root_pa if holder.succeeds else 0
        if holder.bridge.grant(table, root_pa):
            portal.ring(machine, holder)
    except AdeosError as error:
        log.write("warning", "grants", vnode=holder.id, what=error)


def _entry(machine: Machine, unit: Unit, *, control: bool) -> tuple[abi.Grant, abi.Status]:
    """A vnode as its holder is told: with memory only while that is its own for sure."""
    binding = machine.query(unit.id)
    word = status.describe(unit)
    if binding is None or (binding.region, binding.slot) != (unit.region, unit.slot):
        word = word._replace(region_base=0, region_size=0, slot_base=0, slot_size=0)
    grant = abi.Grant(
        flags=abi.VN_GRANT_CONTROL if control else 0,
        started=binding.started if binding is not None else 0,
        start_tsc=binding.start_tsc if binding is not None else 0,
    )
    return grant, word


async def taken(holder: Unit) -> bool:
    """Whether the holder's agent goes by the table, within a second; True where none runs."""
    for _ in range(int(TAKEN_WITHIN_S / 0.005)):
        if holder.bridge is None or holder.vnode.state not in LIVE:
            return True
        try:
            if holder.bridge.grants_taken():
                return True
        except AdeosError:
            pass  # a torn or wild word: the limit ends it
        await asyncio.sleep(0.005)
    return False
