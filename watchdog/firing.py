# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps running vnodes armed: kmb.ko restarts one that dies while no daemon is there to do it.

What is to be armed follows from config, slots and memory; `settle` compares that with what kmb.ko
says and arms anew where it differs, so it may be called at any time.  What became of an arming
is fired.py's.  Limits: a kernel without the agent has no beats to miss, and is not armed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from adeos import arming
from adeos.abi import VN_MAX_VNODES, FireState, Range
from adeos.errors import AdeosError
from adeos.machine import Arming, Machine
from kexec_restart import slots as slotting
from watchdog import background, log
from watchdog.composer import Composer, spec_in
from watchdog.placement import Placement
from watchdog.states import State
from watchdog.unit import Unit

if TYPE_CHECKING:
    from watchdog.freezer import Host

PATIENCE = 4
"""How much longer than by its limits a vnode may be silent: nobody probes it before it is shot."""


class Firing:
    """Used on the event loop's thread; what takes long runs in the background."""

    def __init__(
        self, host: Host, machine: Machine, placement: Placement, composer: Composer
    ) -> None:
        self.host = host
        self.machine = machine
        self.placement = placement
        self.composer = composer
        self.hold = True
        """Whether a crashed region may be kept as the dump ([watch] hold)."""
        self._busy: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        placement.gave_up = self._gave_up

    def _gave_up(self, vnode: int) -> None:
        """Its region was needed: it is armed in its own instead."""
        unit = self.host.units.get(vnode)
        log.write("info", "disarmed", vnode=vnode, why="its spare region is needed")
        if unit is not None:
            self.host.spawn(self.settle(unit))

    def disarm(self, unit: Unit) -> None:
        """An operator, or the vnode itself, has ended it: nobody is to restart it."""
        if not unit.config.restart.fire_s:
            return
        try:
            self.machine.disarm(unit.id)
        except AdeosError as error:
            log.write("error", "disarm", vnode=unit.id, what=error)

    def adopt(self, units: dict[int, Unit]) -> None:
        """What an earlier daemon armed stays so, in memory that nobody else is given."""
        for vnode in range(1, VN_MAX_VNODES):
            found = self.machine.fire(vnode)
            if found is None or found.state is not FireState.ARMED:
                continue
            unit = units.get(vnode)
            try:
                if unit is None or unit.region is None:
                    self.machine.disarm(vnode)
                elif found.region != unit.region:
                    self.placement.pool.region(found.region.size, found.region.base)
                    self.placement.armed[vnode] = found.region
                    self._believe(unit, found.cookie)
            except AdeosError as error:
                log.write("warning", "disarmed", vnode=vnode, why=error)
                self.machine.disarm(vnode)

    def _believe(self, unit: Unit, cookie: int) -> None:
        slot, region = slotting.unattended(unit.vnode.slots), self.placement.armed[unit.id]
        if cookie == self._cookie(unit, slot, region):
            self.composer.believe(unit, slot, region)

    async def settle(self, unit: Unit) -> None:
        """Arm the vnode as it is to be, or not; a failure is logged."""
        async with self._busy[unit.id]:
            try:
                await self._settle(unit)
            except AdeosError as error:
                log.write("error", "not-armed", vnode=unit.id, what=error)

    def wanted(self, unit: Unit) -> bool:
        """Whether the vnode is to be restarted without a daemon."""
        policy, watch = unit.config.restart, unit.config.watch
        return bool(policy.fire_s) and policy.on_crash.endswith("restart") and watch.agent

    async def _settle(self, unit: Unit) -> None:
        if not self.wanted(unit):
            found = self.machine.fire(unit.id)
            if found is not None and found.state is FireState.ARMED:
                self.machine.disarm(unit.id)
                log.write("info", "disarmed", vnode=unit.id, why="by its config")
            self.placement.free_armed(unit.id)
            return
        if not self._runs(unit) or unit.region is None:
            return
        region, slot = self._region(unit), slotting.unattended(unit.vnode.slots)
        cookie = self._cookie(unit, slot, region)
        found = self.machine.fire(unit.id)
        if found is not None and found.state is FireState.ARMED and found.cookie == cookie:
            return
        incarnation = unit.vnode.incarnation

        def same() -> bool:
            return (
                self._runs(unit)
                and unit.vnode.incarnation == incarnation
                and region in (unit.region, self.placement.armed.get(unit.id))
            )

        made: list[Arming] = []

        def make() -> None:
            laid = self.composer.lay(unit, slot, region, same)
            if laid is not None:
                made.append(self._arming(unit, laid, cookie, incarnation))

        await background.run(make)
        if not made or not same():
            return  # it failed meanwhile, or its region was needed: whoever did that sees to it
        await background.run(lambda: self.machine.arm(unit.id, made[0]))
        if not same():
            self.disarm(unit)
            return
        log.write(
            "info",
            "armed",
            vnode=unit.id,
            at=f"{region.base:#x}",
            fire_s=unit.config.restart.fire_s,
        )

    def _runs(self, unit: Unit) -> bool:
        vnode = unit.vnode
        return vnode.state in (State.RUNNING, State.SUSPECT) and not vnode.fencing

    def _region(self, unit: Unit) -> Range:
        """Where the successor would run: its own region only where no dump is to be kept."""
        assert unit.region is not None
        capture = unit.config.restart.on_crash.startswith("coredump") and self.hold
        if not capture:
            self.placement.free_armed(unit.id)
            return unit.region
        return self.placement.arm(unit) or unit.region

    def _cookie(self, unit: Unit, slot: str, region: Range) -> int:
        """What is armed, as a number; its last bit tells the slot."""
        config, words = unit.config, spec_in(unit, slot)
        what = (config, words, unit.vnode.incarnation, region, unit.slot, unit.apicids)
        digest = hashlib.sha256(repr(what).encode()).digest()
        return int.from_bytes(digest[:8], "little") & ~1 | (slot == "b")

    def _arming(self, unit: Unit, laid: arming.Laid, cookie: int, incarnation: int) -> Arming:
        irq, sched, user = (PATIENCE * layer.limit_ms for layer in unit.config.watch.layers)
        return Arming(
            incarnation,
            incarnation + 1,
            unit.config.restart.fire_s * 1000,
            (irq, sched, user),
            cookie,
            laid.placement.region,
            *laid.plan.entry,
            arming.pieces(laid),
        )


def slot_of(cookie: int) -> str:
    """The slot whose image was armed."""
    return "b" if cookie & 1 else "a"
