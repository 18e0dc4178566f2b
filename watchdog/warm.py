# SPDX-License-Identifier: GPL-2.0-or-later
"""Warm restarts: freezes vnodes, keeps their images, and resumes from them instead of booting.

`standby`: the first kernel that is ready is frozen and stays where it is, the vnode boots once more
in a second region, is frozen there too and goes on.  When it fails, the standby is resumed at once;
the failed region is the dump, and when that is written the image makes it the next standby.
`warm`: one region, whose image is copied back.  Whatever goes wrong with an image, the vnode boots.

A daemon that takes over finds the images again (image_journal.py).
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from adeos import abi, loader
from adeos.abi import Range
from adeos.errors import AdeosError
from adeos.machine import Machine
from kexec_restart.strategies import Strategy, resumed
from kexec_restart.warm_copy import put_back, put_back_slot, stands, unused
from watchdog import background, log, urgent
from watchdog.composer import placement_of
from watchdog.freezer import READY_POLL_S, Freezer, Host
from watchdog.image_store import ImageStore, Kept
from watchdog.placement import Placement
from watchdog.states import State
from watchdog.unit import Unit, Watched

SECOND = 1_000_000_000


class Warm:
    """The executor calls it at the steps of a restart."""

    def __init__(
        self, host: Host, machine: Machine, placement: Placement, store: ImageStore
    ) -> None:
        self.host = host
        self.machine = machine
        self.placement = placement
        self.store = store
        self.freezer = Freezer(host, machine, placement, store)
        self.tsc_khz = machine.info().tsc_khz

    async def freeze(self, unit: Unit, incarnation: int) -> None:
        """Freeze it, keep its image, let it go on or stand by."""
        try:
            await self.freezer.freeze(unit, incarnation)
        finally:
            self._publish(unit)

    def adopt(self) -> None:
        """Take over an earlier daemon's images; what may stand by is filled anew in idle time."""
        for kept in self.store.find(self.host.units):
            unit = self.host.units[kept.vnode]
            if kept.region != unit.region and kept.region not in self.placement.held:
                self.host.spawn(self._refill(unit, kept.region))
            log.write("info", "image-found", vnode=unit.id, at=f"{kept.place.base:#x}")
            self._publish(unit)

    # Restart

    async def load(self, unit: Unit, incarnation: int) -> bool:
        """Put an image in place for `incarnation`; False: the vnode is to be booted."""
        way = self._choose(unit)
        unit.warm.resume, unit.warm.image_age, unit.warm.resumed_at = None, None, 0
        unit.warm.way, unit.warm.wish = abi.Way.COLD, ""
        if way is abi.Way.COLD:
            return False
        kept = self.store.get(unit.id, unit.region)
        assert kept is not None and unit.region is not None
        self.placement.place(unit)
        try:
            put = partial(self._put_in_place, unit, kept, way, incarnation)
            if way is abi.Way.STANDBY and kept.checked:
                put()  # going to another thread and back would take longer
            else:
                await urgent.run(put)
        except AdeosError as error:
            log.write("error", "image", vnode=unit.id, what=error)
            self.store.forget(unit.id, unit.region)
            return False
        age = (time.time_ns() - kept.image.resume.frozen_ns) / SECOND
        unit.warm.resume, unit.warm.image_age, unit.warm.way = kept.image.resume, age, way
        unit.strategy = way.name.lower()
        unit.stamps["restored"] = self.machine.tsc()
        return True

    def _choose(self, unit: Unit) -> abi.Way:
        strategy = unit.warm.wish or unit.config.restart.strategy
        if strategy == "cold" or self._distrusts(unit):
            return abi.Way.COLD
        if strategy == "standby":
            self._move_to_standby(unit)
        own = self.store.get(unit.id, unit.region)
        if own is None:
            return abi.Way.COLD
        return abi.Way.STANDBY if own.intact else abi.Way.WARM

    def _distrusts(self, unit: Unit) -> bool:
        """What is wrong in an image comes back with it: it is given up after some failures."""
        warm, policy = unit.warm, unit.config.restart
        if unit.entry is None or not warm.resumed_at:
            return False
        soon = time.monotonic_ns() - warm.resumed_at < policy.quick_s * SECOND
        warm.quick = warm.quick + 1 if soon else 0
        if warm.proven and warm.quick < policy.quick:
            return False
        why = "failed soon after each resume" if warm.proven else "did not come back"
        log.write("warning", "images-dropped", vnode=unit.id, what=why)
        self.drop(unit)
        return True

    def _move_to_standby(self, unit: Unit) -> None:
        """The capture has moved the vnode there already where a dump was wanted."""
        standby = self.placement.standby.pop(unit.id, None)
        if standby is None or unit.region is None:
            return
        old, unit.region = unit.region, standby
        self.host.spawn(self._refill(unit, old))

    async def _refill(self, unit: Unit, region: Range) -> None:
        """Make a region that the vnode has left its standby, else give it back."""
        while unit.region != region and unit.vnode.state in (State.RESTARTING, State.LOADING):
            await asyncio.sleep(READY_POLL_S)
        if not await self.reclaim(unit.id, region):
            self.placement.pool.free_region(region)

    def _put_in_place(self, unit: Unit, kept: Kept, way: abi.Way, incarnation: int) -> None:
        """In a thread where it copies or checks pages.  WarmImageError."""
        image = kept.image
        image.check_header(self.store.identity(unit))
        if not kept.checked:
            image.verify()
        view = self.machine.view
        slot = view(image.identity.slot.base, image.identity.slot.size, writable=True)
        put_back_slot(image, slot)
        if way is not abi.Way.STANDBY:
            put_back(self.machine, image, kept.place)
        kept.checked = kept.intact = False
        loader.rejoin(self.machine, placement_of(unit, incarnation))

    def started(self, unit: Unit, watched: Watched) -> None:
        """The vnode was started: resumed, it has little time; booted, it may become an image."""
        policy = unit.config.restart
        if unit.warm.resume is not None:
            unit.warm.proven = False
            unit.warm.resumed_at = time.monotonic_ns()
            watched.boot.timeout = policy.resume_ms * self.tsc_khz
        elif policy.strategy != "cold":
            self.host.spawn(self.freezer.follow(unit, watched))
        self._publish(unit)

    def stamps(self, unit: Unit) -> None:
        """Take over the resumed vnode's own stamp, when it can be true."""
        started = unit.stamps.get("started")
        if unit.warm.resume is None or unit.bridge is None or started is None:
            return
        tsc = int(abi.WARM.get(unit.bridge.view, abi.VN_BR_WARM, "devices_tsc"))
        if started <= tsc <= self.machine.tsc():
            unit.stamps["resumed"] = tsc

    async def settle(self, unit: Unit) -> None:
        """In idle time, once the vnode runs: check what the next restart will use."""
        for kept in self.store.of(unit.id):
            if kept.checked and kept.region == unit.region:
                continue
            damage: AdeosError | None = None
            try:
                await background.run(partial(self._check, kept))
            except AdeosError as error:
                damage = error
            if self.store.get(unit.id, kept.region) is not kept:
                continue  # given up meanwhile: its memory is another's
            if damage is not None:
                log.write("error", "image", vnode=unit.id, what=damage)
                self.store.forget(unit.id, kept.region)
                self._give_back_standby(unit.id, kept.region)
            if not kept.intact and self.placement.standby.get(unit.id) == kept.region:
                log.write("warning", "standby-changed", vnode=unit.id)
                del self.placement.standby[unit.id]
                await self._refill(unit, kept.region)
        self._publish(unit)

    def _check(self, kept: Kept) -> None:
        image = kept.image
        image.check_header(image.identity)
        image.verify()
        kept.checked = True
        if kept.intact and self.placement.standby.get(kept.vnode) == kept.region:
            view = self.machine.view(kept.region.base, kept.region.size, writable=True)
            kept.intact = stands(image, view) or kept.region not in self.placement.standby.values()

    async def reclaim(self, vnode: int, region: Range) -> bool:
        """Fill a region that nobody uses from its image and make it the standby.

        Nothing of the kernel that failed there is left in it.
        False when that is not wanted or not possible: the caller has the region still.
        """
        unit, kept = self.host.units.get(vnode), self.store.get(vnode, region)
        if unit is None or kept is None or vnode in self.placement.standby:
            return False
        if unit.config.restart.strategy != "standby" or unit.region == region:
            return False
        try:
            await background.run(lambda: self._fill(kept))
        except AdeosError as error:
            log.write("error", "image", vnode=vnode, what=error)
            if self.store.get(vnode, region) is kept:
                self.store.forget(vnode, region)
            return False
        if self.store.get(vnode, region) is not kept or vnode in self.placement.standby:
            return False
        kept.intact = True
        self.placement.stand_by(vnode, region)
        log.write("info", "standby", vnode=vnode, at=f"{region.base:#x}")
        self._publish(unit)
        return True

    def _fill(self, kept: Kept) -> None:
        """In a thread."""
        image = kept.image
        image.check_header(image.identity)
        image.verify()
        kept.checked = True
        put_back(self.machine, image, kept.place)
        for gap in unused(image):
            self.machine.clear(gap.base, gap.size)

    # Give up

    def give_up(self, unit: Unit) -> None:
        """The image that was put in place is of no use: the vnode boots."""
        self.drop(unit)
        unit.warm.way, unit.warm.image_age = abi.Way.COLD, None
        unit.strategy = "kmb"
        unit.stamps.pop("restored", None)

    def drop(self, unit: Unit) -> None:
        """Forget all of a vnode: it is stopped, or its images are not trusted any more."""
        for kept in self.store.of(unit.id):
            self.store.forget(unit.id, kept.region)
        self._give_back_standby(unit.id, self.placement.standby.get(unit.id))
        unit.warm.quick = 0
        self._publish(unit)

    def _give_back_standby(self, vnode: int, region: Range | None) -> None:
        if region is not None and self.placement.standby.get(vnode) == region:
            self.placement.pool.free_region(self.placement.standby.pop(vnode))

    def _publish(self, unit: Unit) -> None:
        own = self.store.get(unit.id, unit.region)
        standby = self.store.get(unit.id, self.placement.standby.get(unit.id))
        unit.warm.stays = own is not None and unit.config.restart.strategy != "cold"
        words = unit.warm.image_tsc, unit.warm.standby_tsc
        unit.warm.image_tsc = own.image.resume.frozen_tsc if own is not None else 0
        unit.warm.standby_tsc = standby.image.resume.frozen_tsc if standby is not None else 0
        if words != (unit.warm.image_tsc, unit.warm.standby_tsc):
            self.host.publish(unit)

    def prospect(self, unit: Unit, strategy: str = "") -> Strategy | None:
        """How the vnode would be resumed now; None: it would be booted."""
        if unit.region is None:
            return None
        image = self.store.get(unit.id, unit.region) is not None
        standby = self.placement.standby.get(unit.id)
        wanted = strategy or unit.config.restart.strategy
        return resumed(unit.region, image, standby, strategy=wanted)

    def describe(self) -> list[dict[str, Any]]:
        """All images, as `vnode-debug images` shows them."""
        return [self._describe(kept) for kept in self.store]

    def _describe(self, kept: Kept) -> dict[str, Any]:
        unit = self.host.units[kept.vnode]
        standby = self.placement.standby.get(kept.vnode) == kept.region
        own = kept.region == unit.region
        return {
            "vnode": kept.vnode,
            "name": unit.config.name,
            "role": "standby" if standby else "running" if own else "waiting",
            "region": f"{kept.region.base:#x}",
            "image": f"{kept.place.base:#x}",
            "bytes": kept.image.size,
            "age_s": (time.time_ns() - kept.image.resume.frozen_ns) / SECOND,
            "checked": kept.checked,
        }
