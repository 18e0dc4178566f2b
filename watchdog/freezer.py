# SPDX-License-Identifier: GPL-2.0-or-later
"""Freezes a running vnode, keeps its image, and lets it go on, or leaves it as the standby.

Between two actions of the supervisor, which sees a vnode that runs all the while; nobody misses its
beats meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

from adeos import loader
from adeos.errors import AdeosError, FreezeError, PoolExhausted
from adeos.machine import Machine
from kexec_restart.warm_image import Resume
from watchdog import actions, events, freezing, log
from watchdog.composer import placement_of
from watchdog.image_store import ImageStore
from watchdog.placement import Placement
from watchdog.states import Fault, State
from watchdog.unit import Unit, Watched

PARK_MS = 1000
"""The most that kmb.ko allows; a park returns as soon as it is confirmed."""
READY_POLL_S = 0.02
READY_SOON = 1000
"""Looks, after which there is no hurry."""
SECOND_REGION_S = 10.0
"""How long a vnode that is ready waits, serving nobody, for the region that it is to run in while
this one stands by; its agent lets it wait for 30 s (adeos/agent/ready.c)."""


class Host(Protocol):
    """What this and warm.py need of the daemon."""

    units: dict[int, Unit]

    def post(self, unit: Unit, event: events.Event) -> None:
        """Feed an event to the supervisor."""

    def publish(self, unit: Unit) -> None:
        """Write the vnode's entry in the root bridge."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the watch."""


class Freezer:
    """`freeze` runs in the vnode's queue of actions."""

    def __init__(
        self, host: Host, machine: Machine, placement: Placement, store: ImageStore
    ) -> None:
        self.host = host
        self.machine = machine
        self.placement = placement
        self.store = store
        self.tsc_khz = machine.info().tsc_khz

    def request(self, unit: Unit) -> asyncio.Future[None]:
        """Freeze the vnode after what is queued for it; the future ends with it (FreezeError)."""
        if unit.warm.answer is None:
            unit.warm.answer = asyncio.get_running_loop().create_future()
            unit.queue.put_nowait(actions.Freeze(unit.vnode.incarnation))
        return unit.warm.answer

    async def follow(self, unit: Unit, watched: Watched) -> None:
        """Freeze a vnode that was booted, once its user space is ready."""
        looks = 0
        while unit.watched is watched:
            if unit.vnode.state is State.RUNNING and freezing.is_ready(unit):
                await self._second_region(unit, watched)
                unit.queue.put_nowait(actions.Freeze(watched.incarnation))
                return
            looks += 1
            await asyncio.sleep(READY_POLL_S if looks < READY_SOON else 10 * READY_POLL_S)

    async def _second_region(self, unit: Unit, watched: Watched) -> None:
        """Wait for a dump that is being written, if its region is what a standby lacks."""
        wanted = unit.config.restart.strategy == "standby" and not self.store.of(unit.id)
        if not wanted or not self.placement.may_move(unit):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECOND_REGION_S):
                while (
                    unit.watched is watched
                    and self.placement.held
                    and self.placement.peek(unit) is None
                ):
                    await asyncio.sleep(READY_POLL_S)

    async def freeze(self, unit: Unit, incarnation: int) -> None:
        """Freeze, keep the image, go on; a refusal is logged and told to who asked."""
        answer, unit.warm.answer = unit.warm.answer, None
        try:
            await self._freeze(unit, incarnation)
        except Exception as error:
            if answer is not None and not answer.done():
                known = isinstance(error, AdeosError)
                answer.set_exception(error if known else FreezeError(f"{unit.label}: {error}"))
            if not isinstance(error, AdeosError):
                raise
            log.write("warning", "not-frozen", vnode=unit.id, what=error)
        else:
            if answer is not None and not answer.done():
                answer.set_result(None)

    async def _freeze(self, unit: Unit, incarnation: int) -> None:
        watched = unit.watched
        running = unit.vnode.state is State.RUNNING and unit.vnode.incarnation == incarnation
        if not running or watched is None:
            raise FreezeError(f"{unit.label} is {unit.vnode.state.word}; it must be running")
        unit.watched = None
        try:
            resume = await freezing.ask(self.machine, unit)
        except BaseException:
            watched.detector.arm(watched.counts(), self.machine.tsc())
            unit.watched = watched
            raise
        try:
            await asyncio.to_thread(self.machine.park, unit.id, PARK_MS)
            lack = await self._keep_image(unit, resume)
            if self._becomes_standby(unit):
                return
            await self._go_on(unit, resume)
        except AdeosError:
            self._restart_watch(unit, self.machine.tsc())
            self.host.post(unit, events.Faulted(Fault("freeze", incarnation)))
            raise
        if lack is not None:
            raise lack

    async def _keep_image(self, unit: Unit, resume: Resume) -> AdeosError | None:
        """Why there is no image, None when there is one."""
        try:
            place, free = self.store.reserve(unit)
        except PoolExhausted as error:
            return error
        try:
            kept = await asyncio.to_thread(self.store.capture, unit, place, free, resume)
        except AdeosError as error:
            self.placement.pool.free_region(place)
            return error
        self.store.keep(kept)
        log.write(
            "info", "frozen", vnode=unit.id, image=kept.image.size >> 20, at=f"{place.base:#x}"
        )
        return None

    def _becomes_standby(self, unit: Unit) -> bool:
        """Leave the first image where it is and boot the vnode in another region."""
        kept, own = self.store.get(unit.id, unit.region), unit.region
        wanted = unit.config.restart.strategy == "standby" and unit.vnode.state is State.RUNNING
        if not wanted or kept is None or own is None or len(self.store.of(unit.id)) > 1:
            return False
        unit.warm.stays = False
        other = self.placement.spare(unit)
        if other is None:
            unit.warm.stays = True
            log.write("warning", "no-standby", vnode=unit.id, what="no second region is free")
            return False
        kept.intact = True
        self.placement.stand_by(unit.id, own)
        unit.region = other
        unit.warm.wish = "cold"
        self.host.post(unit, events.RestartRequested())
        return True

    async def _go_on(self, unit: Unit, resume: Resume) -> None:
        """Resume it where it is, as the incarnation it was."""
        loader.rejoin(self.machine, placement_of(unit, unit.vnode.incarnation))
        unit.warm.resume = resume
        tsc = await asyncio.to_thread(self.store.composer.start, unit)
        await freezing.until_it_runs(unit, unit.config.restart.resume_ms)
        self._restart_watch(unit, tsc)

    def _restart_watch(self, unit: Unit, tsc: int) -> None:
        assert unit.bridge is not None
        incarnation = unit.vnode.incarnation
        unit.watched = Watched(unit.bridge, unit.config, incarnation, self.tsc_khz, tsc)
