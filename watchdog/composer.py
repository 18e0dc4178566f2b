# SPDX-License-Identifier: GPL-2.0-or-later
"""Composes a vnode's memory from its staged image and starts it.

Blocks: call it in a thread, but for `compose` of what is `ready` and a `start` with a limit.

Ahead, in idle time, the region that the next restart will use gets its kernel
and initrd already.  Limit: a wild write of a running vnode into a region so
prepared goes unseen, as one into the root's own memory would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from adeos import abi, arming
from adeos.abi import Range
from adeos.arming import Laid
from adeos.errors import ImageError
from adeos.loader import Image, Placement, Plan, load, plan, preload
from adeos.machine import Machine
from kexec_restart import slots as slotting
from kexec_restart.images import Spec, Stage
from kexec_restart.slots import Slots
from watchdog.staging import spec_of
from watchdog.unit import Unit


def spec_in(unit: Unit, slot: str) -> Spec:
    """What a vnode boots from a slot; the config's image where nobody has staged one."""
    return unit.vnode.slots.get(slot).spec if unit.vnode.slots.named else spec_of(unit.config)


class _Start(NamedTuple):
    """What a plan depends on."""

    spec: Spec
    region: Range
    slot: Range
    apicids: tuple[int, ...]


class Composer:
    """Writes regions; the caller sees to it that the CPUs are parked."""

    def __init__(
        self,
        machine: Machine,
        stage: Stage,
        save: Callable[[int, Slots], None] = lambda vnode, slots: None,
    ) -> None:
        self.machine = machine
        self.stage = stage
        self.save = save
        """Puts slots on the disk: a try must be counted before the start that it is for."""
        self.composed = 0
        """Counts the vnodes composed: a free region may have been given away since."""
        self._ready: dict[Range, tuple[str, str]] = {}
        """Regions that nobody uses -> digests of the kernel and initrd that are in them."""
        self._plans: dict[_Start, Plan] = {}
        """Of starts in those regions, each for one use."""
        self._lock = threading.Lock()
        """Held while a free region is written, and to say that it is free no more."""
        self._hurry = threading.Event()

    def prepare(self, unit: Unit, spare: Range | None, composed: int) -> None:
        """Check the digests of the image and load it into the region that the next start will use.

        `composed`: the count when `spare` was found to be free.  Mapping 256 MiB takes
        0.1 s under emulation, loading 40 ms.  ImageError.
        """
        spec = spec_in(unit, slotting.choose(unit.vnode.slots))
        try:
            self.stage.refresh(spec)
        except ImageError:
            self.stage.get(spec)  # from the disk, if that still has it
            raise
        if spare is None:
            return
        self.machine.view(spare.base, spare.size, writable=True)
        image = self.stage.get(spec)
        plans = self._planned(unit, spec, image, spare)
        with self._lock:
            if composed == self.composed and self._loaded(image, spare):
                self._plans |= plans

    def _planned(self, unit: Unit, spec: Spec, image: Image, spare: Range) -> dict[_Start, Plan]:
        """For `_plans`.  Not under the lock: it takes a while."""
        slot = unit.slot
        if slot is None:
            return {}
        placement = Placement(unit.id, "", spare, slot, unit.apicids, 0, 0, 0)
        start = _Start(spec, spare, slot, unit.apicids)
        return {start: plan(image, placement, self.machine.info())}

    def _loaded(self, image: Image, region: Range) -> bool:
        """Have kernel and initrd in a free region; False when somebody is in a hurry."""
        if self._ready.get(region) != image.digests:
            self._forget(region)
            if not preload(self.machine, image, region, self._hurry.is_set):
                return False
            self._ready[region] = image.digests
        return True

    def _take(self, start: _Start, image: Image) -> tuple[bool, Plan | None]:
        """The region is a vnode's from now on; whether the image is in it, and its plan if made."""
        self._hurry.set()
        with self._lock:
            self._hurry.clear()
            self.composed += 1
            loaded = self._ready.get(start.region) == image.digests
            ahead = self._plans.get(start) if loaded else None
            self._forget(start.region)
        return loaded, ahead

    def taken(self, region: Range) -> None:
        """Nobody prepares this region from now on, nor believes it prepared: it is used."""
        self._hurry.set()
        with self._lock:
            self._hurry.clear()
            self.composed += 1
            self._forget(region)

    def _forget(self, region: Range) -> None:
        self._ready = {one: what for one, what in self._ready.items() if not one.overlaps(region)}
        self._plans = {one: what for one, what in self._plans.items() if one.region in self._ready}

    def compose(self, unit: Unit, incarnation: int) -> None:
        """Write the image of the slot to start, its tables and an empty bridge into the region.

        ImageError when the image is not the one that was staged.
        """
        if slotting.on_trial(unit.vnode.slots):
            self.save(unit.id, unit.vnode.slots)
        spec = spec_in(unit, unit.vnode.slots.current)
        image = self.stage.take(spec)
        placement = placement_of(unit, incarnation)
        start = _Start(spec, placement.region, placement.slot, unit.apicids)
        loaded, ahead = self._take(start, image)
        unit.warm.resume = None
        unit.start_at = load(self.machine, image, placement, preloaded=loaded, ahead=ahead)

    def ready(self, unit: Unit) -> bool:
        """Whether `compose` has little to write and waits for neither disk nor thread."""
        slots, region, slot = unit.vnode.slots, unit.region, unit.slot
        spec = spec_in(unit, slots.current)
        if region is None or slot is None or slotting.on_trial(slots):
            return False
        planned = _Start(spec, region, slot, unit.apicids) in self._plans
        return planned and self.stage.fresh(spec) and not self._lock.locked()

    def lay(self, unit: Unit, slot: str, region: Range, wanted: Callable[[], bool]) -> Laid | None:
        """Compose the vnode's next incarnation, for kmb.ko to start: in `region` if that is free.

        `wanted`: whether it still is, and is the vnode's.  None when it is not, or somebody is in
        a hurry.  ImageError.
        """
        image = self.stage.get(spec_in(unit, slot))
        placement = placement_of(unit, unit.vnode.incarnation + 1)._replace(region=region)
        if region == unit.region:
            return arming.lay(self.machine, image, placement, free=False)
        self.machine.view(*region, writable=True)
        plans = self._planned(unit, spec_in(unit, slot), image, region)
        with self._lock:
            if not wanted() or not self._loaded(image, region):
                return None
            self._plans |= plans
            return arming.lay(self.machine, image, placement, free=True, preloaded=True)

    def believe(self, unit: Unit, slot: str, region: Range) -> None:
        """An earlier daemon has composed the vnode there, and kmb.ko knows the digests."""
        image = self.stage.get(spec_in(unit, slot))
        with self._lock:
            self._ready[region] = image.digests

    def start(self, unit: Unit, wait_us: int = 0) -> int:
        """Start the boot CPU, or resume it; the TSC just before its SIPI.  As Machine.start."""
        assert unit.bridge is not None
        resume = unit.warm.resume
        if resume is not None:
            cr3, entry, cr4 = resume.cr3, resume.entry, resume.cr4
            return self.machine.resume(unit.id, cr3=cr3, entry=entry, cr4=cr4, wait_us=wait_us)
        assert unit.start_at is not None
        cr3, entry, rsi = unit.start_at
        tsc = self.machine.start(unit.id, cr3=cr3, entry=entry, rsi=rsi, wait_us=wait_us)
        unit.bridge.stamp_start(tsc, time.time_ns())
        return tsc


def placement_of(unit: Unit, incarnation: int) -> Placement:
    """Where a bound vnode is and what its bridge shall say of it."""
    config, binding, region, slot = unit.config, unit.binding, unit.region, unit.slot
    assert binding is not None and region is not None and slot is not None
    inject = abi.VN_F_INJECT if config.inject else 0
    freeze = abi.VN_F_FREEZE if config.restart.strategy != "cold" else 0
    return Placement(
        vnode=config.id,
        name=config.name,
        region=region,
        slot=slot,
        apicids=unit.apicids,
        incarnation=incarnation,
        vector=binding.vector,
        dest_apicid=binding.dest_apicid,
        period_us=tuple(layer.period_ms * 1000 for layer in config.watch.layers),
        flags=inject | freeze,
    )
