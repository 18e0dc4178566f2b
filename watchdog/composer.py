# SPDX-License-Identifier: GPL-2.0-or-later
"""Composes a vnode's memory from its staged image and starts it.  Blocks: call it in a thread.

Ahead, in idle time, the region that the next restart will use gets its kernel
and initrd already.  Limit: a wild write of a running vnode into a region so
prepared goes unseen, as one into the root's own memory would.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from adeos import abi
from adeos.abi import Range
from adeos.loader import Image, Placement, Plan, load, plan, preload
from adeos.machine import Machine
from kexec_restart.images import Spec, Stage
from watchdog.config import VnodeConfig
from watchdog.unit import Unit


def spec_of(config: VnodeConfig) -> Spec:
    """What a vnode boots."""
    return Spec(config.kernel, config.initrd, config.cmdline)


class _Ready(NamedTuple):
    """What a free region holds: kernel and initrd of these digests; the plan of a start there."""

    digests: tuple[str, str]
    of: tuple[Spec, Range, tuple[int, ...]] | None = None
    """What else the plan depends on: image, slot and APIC ids."""
    plan: Plan | None = None


class Composer:
    """Writes regions; the caller sees to it that the CPUs are parked."""

    def __init__(self, machine: Machine, stage: Stage) -> None:
        self.machine = machine
        self.stage = stage
        self.composed = 0
        """Counts the vnodes composed: a free region may have been given away since."""
        self._ready: dict[Range, _Ready] = {}
        """Regions that nobody uses, and what is in them."""
        self._lock = threading.Lock()
        """Held while a free region is written, and to say that it is free no more."""
        self._hurry = threading.Event()

    def prepare(self, unit: Unit, spare: Range | None, composed: int) -> None:
        """Check the digests of the image and load it into the region that the next start will use.

        `composed`: the count when `spare` was found to be free.  Mapping 256 MiB takes
        0.1 s under emulation, loading 40 ms.  ImageError.
        """
        spec = spec_of(unit.config)
        self.stage.refresh(spec)
        if spare is None:
            return
        self.machine.view(spare.base, spare.size, writable=True)
        image = self.stage.get(spec)
        with self._lock:
            if composed != self.composed:
                return
            old = self._ready.get(spare)
            if old is None or old.digests != _digests(image):
                self._forget(spare)
                if not preload(self.machine, image, spare, self._hurry.is_set):
                    return
            self._ready[spare] = self._ahead(unit, image, spare)

    def _ahead(self, unit: Unit, image: Image, spare: Range) -> _Ready:
        digests, slot = _digests(image), unit.slot
        if slot is None:
            return _Ready(digests)
        placement = Placement(unit.id, "", spare, slot, unit.apicids, 0, 0, 0)
        made = plan(image, placement, self.machine.info())
        return _Ready(digests, (spec_of(unit.config), slot, unit.apicids), made)

    def _take(self, image: Image, region: Range) -> _Ready | None:
        """The region is a vnode's from now on; what is in it when that is the image."""
        self._hurry.set()
        with self._lock:
            self._hurry.clear()
            self.composed += 1
            ready = self._ready.get(region)
            self._forget(region)
        return ready if ready is not None and ready.digests == _digests(image) else None

    def _forget(self, region: Range) -> None:
        self._ready = {one: what for one, what in self._ready.items() if not one.overlaps(region)}

    def compose(self, unit: Unit, incarnation: int) -> None:
        """Write the image, its tables and an empty bridge into the region."""
        image = self.stage.take(spec_of(unit.config))
        binding, region, slot = unit.binding, unit.region, unit.slot
        assert binding is not None and region is not None and slot is not None
        config = unit.config
        ready = self._take(image, region)
        same = ready is not None and ready.of == (spec_of(config), slot, unit.apicids)
        layers = (config.watch.irq, config.watch.sched, config.watch.user)
        unit.start_at = load(
            self.machine,
            image,
            Placement(
                vnode=config.id,
                name=config.name,
                region=region,
                slot=slot,
                apicids=unit.apicids,
                incarnation=incarnation,
                vector=binding.vector,
                dest_apicid=binding.dest_apicid,
                period_us=tuple(layer.period_ms * 1000 for layer in layers),
                flags=abi.VN_F_INJECT if config.inject else 0,
            ),
            preloaded=ready is not None,
            ahead=ready.plan if ready is not None and same else None,
        )

    def start(self, unit: Unit) -> int:
        """Start the boot CPU; the TSC just before its INIT."""
        assert unit.start_at is not None and unit.bridge is not None
        cr3, entry, rsi = unit.start_at
        tsc = self.machine.start(unit.id, cr3=cr3, entry=entry, rsi=rsi)
        unit.bridge.stamp_start(tsc, time.time_ns())
        return tsc


def _digests(image: Image) -> tuple[str, str]:
    return image.kernel_sha256, image.initrd_sha256
