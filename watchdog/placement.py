# SPDX-License-Identifier: GPL-2.0-or-later
"""Which memory is whose: regions and slots of the vnodes, and regions held as dumps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from adeos.abi import Range
from adeos.errors import AdeosError, PoolExhausted
from adeos.machine import Machine
from adeos.pool import Pool
from watchdog.errors import RefusedError
from watchdog.unit import Unit


class Placement:
    """Used on the event loop's thread only, but for the machine's own calls."""

    def __init__(self, machine: Machine) -> None:
        info = machine.info()
        self.machine = machine
        self.pool = Pool(info.range, Range(info.low_base, info.low_size))
        self.held: set[Range] = set()
        """Regions that are an incident's dump until it has been written out."""
        self.standby: dict[int, Range] = {}
        """Vnode -> region in which its image stands by."""
        self.armed: dict[int, Range] = {}
        """Vnode -> region in which kmb.ko would restart it; the first to be given away."""
        self.ahead: dict[int, Range] = {}
        """Vnode -> free region that its next start is prepared in, nobody's so far."""
        self.gave_up: Callable[[int], None] = lambda vnode: None
        """Called with a vnode whose armed region another one needed."""

    def place(self, unit: Unit) -> None:
        """Give a vnode region and slot unless it has them, and bind it there.

        PoolExhausted or PlacementError when it cannot be had; nothing is kept then.
        """
        span = unit.config.span
        new_region = new_slot = None
        try:
            if unit.region is None:
                new_region = self.take(span.size, span.base)
            if unit.slot is None:
                new_slot = self.pool.slot(len(unit.config.cpus))
            region, slot = unit.region or new_region, unit.slot or new_slot
            assert region is not None and slot is not None
            unit.binding = self.machine.bind(unit.id, unit.config.cpus, region, slot)
            unit.place(self.machine, region)
            unit.slot = slot
        except AdeosError:
            if new_region is not None:
                self.pool.free_region(new_region)
            if new_slot is not None:
                self.pool.free_slot(new_slot)
            raise
        if not unit.apicids:
            apicid = {cpu.cpu: cpu.apicid for cpu in self.machine.cpus()}
            unit.apicids = tuple(apicid.get(cpu, 0) for cpu in unit.config.cpus)

    def adopt(self, unit: Unit) -> None:
        """Take over what the machine says the vnode owns."""
        binding = self.machine.query(unit.id)
        if binding is None:
            return
        is_dump = binding.region in self.held
        if is_dump:
            self.pool.free_region(binding.region)  # reserve() wants both or none
        self.pool.reserve(binding.region, binding.slot)
        unit.binding, unit.slot = binding, binding.slot
        unit.place(self.machine, binding.region)
        if is_dump:
            unit.region = None  # killed before the successor had its own
        apicid = {cpu.cpu: cpu.apicid for cpu in self.machine.cpus()}
        unit.apicids = tuple(apicid.get(cpu, 0) for cpu in binding.cpus)

    def release(self, unit: Unit) -> None:
        """Unbind a parked vnode; its region stays away while it is held as a dump."""
        if unit.binding is not None:
            self.machine.unbind(unit.id)
        if unit.region is not None and unit.region not in self.held:
            self.pool.free_region(unit.region)
        if unit.slot is not None:
            self.pool.free_slot(unit.slot)
        self.free_armed(unit.id)
        self.ahead.pop(unit.id, None)
        unit.unplace()

    def take(self, size: int, base: int | None = None) -> Range:
        """A region out of the pool, at the cost of what is armed; PoolExhausted, PlacementError."""
        while True:
            try:
                return self.pool.region(size, base)
            except AdeosError:
                if not self.armed:
                    raise
                vnode = next(iter(self.armed))
                self.machine.disarm(vnode)
                self.free_armed(vnode)
                self.gave_up(vnode)

    def spare(self, unit: Unit) -> Range | None:
        """A region for the successor, None when there is none or it must not move.

        The vnode's standby first; one whose image waits to be put back stays where it is.
        """
        if not self.may_move(unit):
            return None
        if unit.id in self.standby:
            return self.standby.pop(unit.id)
        if unit.id in self.armed:
            return self.armed.pop(unit.id)
        assert unit.region is not None
        region = self._own(unit)
        try:
            return region or self.take(unit.region.size)
        except PoolExhausted:
            return None

    def may_move(self, unit: Unit) -> bool:
        """Whether the vnode's successor may run in another region."""
        if unit.region is None or unit.config.span.base is not None:
            return False
        return unit.id in self.standby or not unit.warm.stays

    def peek(self, unit: Unit) -> Range | None:
        """The region that `spare` will take if it is free then, None when it would take none.

        Two vnodes are shown the same only where there is no other.  Of a standby and what others
        have armed nothing is said.
        """
        if unit.id in self.standby or not self.may_move(unit):
            return None
        return self.armed.get(unit.id) or self._free(unit)

    def _own(self, unit: Unit) -> Range | None:
        """Take the region that was shown for the vnode, unless it is somebody's by now."""
        region = self.ahead.pop(unit.id, None)
        if region is None or unit.region is None or region.size != unit.region.size:
            return None
        return self._taken(region.size, region.base)

    def _taken(self, size: int, base: int | None = None) -> Range | None:
        """A region out of the pool, None when it is not to be had."""
        try:
            return self.pool.region(size, base)
        except AdeosError:
            return None

    def _free(self, unit: Unit) -> Range | None:
        """One that is shown to no other if there is, of those the one that it was shown before."""
        assert unit.region is not None
        size = unit.region.size
        shown = [region for vnode, region in self.ahead.items() if vnode != unit.id]
        others = [self._taken(other.size, other.base) for other in shown]
        region = self._own(unit) or self._taken(size)
        for other in filter(None, others):
            self.pool.free_region(other)
        region = region or self._taken(size)
        if region is not None:
            self.pool.free_region(region)
            self.ahead[unit.id] = region
        return region

    def arm(self, unit: Unit) -> Range | None:
        """The region in which kmb.ko may restart the vnode; None: its own alone is left."""
        if not self.may_move(unit):
            self.free_armed(unit.id)
        elif unit.id not in self.armed and unit.region is not None:
            with contextlib.suppress(PoolExhausted):
                self.armed[unit.id] = self.pool.region(unit.region.size)
        return self.armed.get(unit.id)

    def free_armed(self, vnode: int) -> None:
        """Nothing is armed there any more."""
        region = self.armed.pop(vnode, None)
        if region is not None:
            self.pool.free_region(region)

    def hold(self, unit: Unit, spare: Range) -> None:
        """Keep the vnode's region as a dump; the vnode's is `spare` now."""
        assert unit.region is not None
        self.held.add(unit.region)
        unit.region = spare

    def reserve_held(self, region: Range) -> None:
        """A region that an earlier daemon held; PlacementError when it is not to be had."""
        self.pool.region(region.size, region.base)
        self.held.add(region)

    def unhold(self, region: Range) -> None:
        """The dump is on disk (or given up): the region may be used again."""
        if region in self.held:
            self.held.remove(region)
            self.pool.free_region(region)

    def stand_by(self, vnode: int, region: Range) -> None:
        """A region of the vnode's, or one held as its dump, is its standby from now on."""
        self.held.discard(region)
        self.standby[vnode] = region

    def check_cpus(self, unit: Unit, others: list[Unit]) -> None:
        """RefusedError with the name when a CPU of the vnode is bound to another one."""
        for other in others:
            if other is unit or other.binding is None:
                continue
            taken = sorted(set(unit.config.cpus) & set(other.binding.cpus))
            if taken:
                raise RefusedError(
                    f"{unit.label}: CPU {taken[0]} is bound to {other.label}; stop that first"
                )
