# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps every vnode's slots: read at the start, saved when they change, their images checked.

The slots themselves are part of the supervised state (Vnode.slots); what may
be done to them is pure (kexec_restart/slots.py).  Reading, hashing and writing
run in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import msgspec

from adeos.errors import AdeosError, ImageError
from crashdump.errors import CrashdumpError
from kexec_restart import slots as slotting
from kexec_restart.images import Spec, Stage
from kexec_restart.slots import NAMES, Health, Slots
from watchdog import background, log
from watchdog.config import Config, VnodeConfig
from watchdog.shelf import Shelf
from watchdog.unit import Unit

if TYPE_CHECKING:
    from watchdog.service import Service

CHECK_EVERY_S = 30.0
"""So often the staged images' digests are checked, in idle time."""


def spec_of(config: VnodeConfig) -> Spec:
    """What the config has a vnode boot; digests not yet known."""
    return Spec(config.kernel, config.initrd, config.words, unpacked=config.fast_boot)


def unpack(kernel: bytes, name: str) -> bytes:
    """The vmlinux in a bzImage; ImageError when there is none, or no library to unpack it."""
    from introspect.errors import IntrospectError  # seldom wanted, slow to import
    from introspect.image import extract_vmlinux

    try:
        return extract_vmlinux(kernel, name)
    except IntrospectError as error:
        raise ImageError(str(error), "boot it without fast_boot") from None


class Staging:
    """Used on the event loop's thread; blocking work goes to others."""

    def __init__(self, service: Service, stage: Stage, shelf: Shelf) -> None:
        self.service = service
        self.stage = stage
        self.shelf = shelf
        self._writing = asyncio.Lock()
        self._saved: dict[int, Slots] = {}

    async def restore_all(self) -> None:
        """Read every image now: a restart must not wait for the disk, nor find a file gone.

        ImageError names the first that is wrong, before anything is started.  A
        vnode that runs already is watched all the same: its restart will fail.
        """
        for unit in self.service.units.values():
            stored = await asyncio.to_thread(self._load, unit)
            try:
                slots = await asyncio.to_thread(self._named, unit.config, stored)
            except ImageError as error:
                if self.service.machine.query(unit.id) is None and stored is None:
                    raise
                log.write("error", "image", vnode=unit.id, what=error)
                slots = stored or unit.vnode.slots
            slots = await asyncio.to_thread(self._readable, unit, slots)
            self.put(unit, msgspec.structs.replace(slots, name=unit.config.name))
        everyone = [unit.vnode.slots for unit in self.service.units.values()]
        await asyncio.to_thread(self.shelf.sweep, everyone)

    def _load(self, unit: Unit) -> Slots | None:
        try:
            stored = self.shelf.load(unit.id)
        except (OSError, ValueError) as error:
            log.write("error", "slots", vnode=unit.id, what=error, lost="its slots begin anew")
            return None
        if stored is not None:
            self._saved[unit.id] = stored
        return stored

    def _named(self, config: VnodeConfig, stored: Slots | None) -> Slots:
        spec = self.stage.add(spec_of(config))
        return slotting.named(stored, spec, config.restart.tries, time.time())

    def _readable(self, unit: Unit, slots: Slots) -> Slots:
        """Slots whose image cannot be had are bad, unless nothing else is there."""
        for name in NAMES:
            slot = slots.get(name)
            if slot.health is Health.EMPTY or slot.spec == slots.named:
                continue
            try:
                self.stage.get(slot.spec)
            except ImageError as error:
                log.write("error", "image", vnode=unit.id, slot=name, what=error)
                slots = slotting.condemned(slots, name, str(error))
        return slots

    def name(self, unit: Unit, spec: Spec) -> None:
        """The config names this image now, its digests known: unless it is there, it is staged."""
        stored = unit.vnode.slots if unit.vnode.slots.named else None
        slots = slotting.named(stored, spec, unit.config.restart.tries, time.time())
        self.put(unit, msgspec.structs.replace(slots, name=unit.config.name))

    def put(self, unit: Unit, slots: Slots) -> None:
        """The vnode's slots are these now."""
        if slots != unit.vnode.slots:
            unit.vnode = msgspec.structs.replace(unit.vnode, slots=slots)
        self.changed(unit)

    def changed(self, unit: Unit) -> None:
        """Save them; nothing waits for it."""
        self.service.spawn(self._save(unit))

    def save_now(self, vnode: int, slots: Slots) -> None:
        """Save, waiting for the disk; a failure is logged.  For the composer's thread."""
        try:
            self.shelf.save(vnode, slots)
        except (OSError, CrashdumpError) as error:
            log.write("error", "slots", vnode=vnode, what=error)

    async def _save(self, unit: Unit) -> None:
        async with self._writing:
            slots = unit.vnode.slots
            if self._saved.get(unit.id) == slots:
                return
            try:
                await asyncio.to_thread(self._write, unit.id, slots)
            except (OSError, CrashdumpError, AdeosError) as error:
                log.write("error", "slots", vnode=unit.id, what=error)
            else:
                self._saved[unit.id] = slots

    def _write(self, vnode: int, slots: Slots) -> None:
        self.shelf.save(vnode, slots)
        self.shelf.copy(slots, self.stage)

    async def add(self, unit: Unit, spec: Spec, name: str | None) -> str:
        """Stage an image in a slot, the free one when `name` is None; the slot.  ImageError.

        It is on the disk when this returns.
        """
        known = await asyncio.to_thread(self.stage.add, spec)
        slots = unit.vnode.slots
        name = name or slotting.free(slots)
        slots = slotting.staged(slots, name, known, unit.config.restart.tries, time.time())
        self.put(unit, slots)
        await self._save(unit)
        units = self.service.units.values()
        self.stage.keep_only(unit.vnode.slots.get(name).spec for unit in units for name in NAMES)
        return name

    async def flush(self) -> None:
        """Save what has changed; the daemon ends."""
        for unit in self.service.units.values():
            await self._save(unit)

    async def check(self) -> None:
        """Check the staged images for ever: an altered one is read anew, or its slot is bad."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            for unit in tuple(self.service.units.values()):
                for name in NAMES:
                    await self._check(unit, name)

    async def _check(self, unit: Unit, name: str) -> None:
        slot = unit.vnode.slots.get(name)
        if slot.health in (Health.EMPTY, Health.BAD) or not slot.spec.kernel_sha256:
            return
        try:
            await background.run(lambda: self.stage.refresh(slot.spec))
            return
        except ImageError as error:
            log.write("error", "image", vnode=unit.id, slot=name, what=error)
        try:
            await asyncio.to_thread(self.stage.get, slot.spec)
            log.write("info", "image-read-anew", vnode=unit.id, slot=name)
        except ImageError as error:
            slots = unit.vnode.slots
            if slots.get(name) == slot and slots.get(slotting.other(name)).usable:
                self.put(unit, slotting.condemned(slots, name, str(error)))
            log.write("error", "image-lost", vnode=unit.id, slot=name, what=error)


def read_ahead(config: Config, stage: Stage) -> None:
    """Read the images that a daemon will want when it leads; what is wrong is told then."""
    for vnode in config.vnode:
        with contextlib.suppress(ImageError):
            stage.add(spec_of(vnode))
