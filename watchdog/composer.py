# SPDX-License-Identifier: GPL-2.0-or-later
"""Composes a vnode's memory from its staged image and starts it.  Blocks: call it in a thread."""

from __future__ import annotations

import time

from adeos import abi
from adeos.abi import Range
from adeos.loader import Placement, load
from adeos.machine import Machine
from kexec_restart.images import Spec, Stage
from watchdog.config import VnodeConfig
from watchdog.unit import Unit


def spec_of(config: VnodeConfig) -> Spec:
    """What a vnode boots."""
    return Spec(config.kernel, config.initrd, config.cmdline)


class Composer:
    """Writes regions; the caller sees to it that the CPUs are parked."""

    def __init__(self, machine: Machine, stage: Stage) -> None:
        self.machine = machine
        self.stage = stage

    def prepare(self, unit: Unit, spare: Range | None) -> None:
        """Check the digests of the image and map the region that the next start will use.

        Mapping 256 MiB takes 0.1 s under emulation.  ImageError.
        """
        if spare is not None:
            self.machine.view(spare.base, spare.size, writable=True)
        self.stage.refresh(spec_of(unit.config))

    def compose(self, unit: Unit, incarnation: int) -> None:
        """Write the image, its tables and an empty bridge into the region."""
        image = self.stage.take(spec_of(unit.config))
        binding, region, slot = unit.binding, unit.region, unit.slot
        assert binding is not None and region is not None and slot is not None
        config = unit.config
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
        )

    def start(self, unit: Unit) -> int:
        """Start the boot CPU; the TSC just before its INIT."""
        assert unit.start_at is not None and unit.bridge is not None
        cr3, entry, rsi = unit.start_at
        tsc = self.machine.start(unit.id, cr3=cr3, entry=entry, rsi=rsi)
        unit.bridge.stamp_start(tsc, time.time_ns())
        return tsc
