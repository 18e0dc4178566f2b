# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries the supervisor's actions out on the machine, one vnode's in order, vnodes in parallel.

Each handler answers with the event that tells how it went.  What may take
long (copy, load, disk) runs in worker threads; the watch goes on meanwhile.
CPUs nearly always park and start in less time than it takes to go to a thread
and back: that is tried in place first, for BRIEF_MS at most.  A handler that
fails in a way nobody foresaw answers with the failure event of its action: a
bug here must not leave a vnode in limbo.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from adeos.errors import AdeosError, FenceError, ImageError
from adeos.machine import Machine
from crashdump.capture import boot_id
from crashdump.errors import CrashdumpError
from crashdump.incident import Witness
from watchdog import actions, background, events, freezer, log, registers, urgent, vitals
from watchdog.composer import Composer
from watchdog.detector import LAYERS, STRIDE
from watchdog.dumps import Dumps
from watchdog.errors import WatchdogError
from watchdog.firing import Firing
from watchdog.freezer import PARK_MS
from watchdog.image_store import ImageStore
from watchdog.journal import Case
from watchdog.ledger import Entry, Ledger
from watchdog.placement import Placement
from watchdog.states import Fault
from watchdog.unit import Unit, Watched
from watchdog.warm import Warm
from watchdog.watch import record_complete

PARK_ATTEMPTS = 3
"""In a thread, of PARK_MS each."""
BRIEF_MS = 2
"""How long the watch may stand still for a CPU that does not come; once a fence, once a start."""


class Host(freezer.Host, Protocol):
    """What the executor needs of the daemon."""

    def witnesses(self, unit: Unit) -> tuple[Witness, ...]:
        """Beats of the other live vnodes now."""

    def overdue(self) -> bool:
        """Whether the watch is to have its turn before the next action."""

    def later(self, until: int, unit: Unit) -> None:
        """Post DelayElapsed(until) then."""


class Executor:
    """Handlers by action type; see HANDLERS at the end."""

    def __init__(
        self,
        host: Host,
        machine: Machine,
        placement: Placement,
        composer: Composer,
        ledger: Ledger,
        dumps: Dumps,
    ) -> None:
        self.host = host
        self.machine = machine
        self.placement = placement
        self.composer = composer
        self.ledger = ledger
        ledger.filed = self._filed
        self.dumps = dumps
        self.warm = Warm(host, machine, placement, ImageStore(placement, composer))
        self.firing = Firing(host, machine, placement, composer)
        self.tsc_khz = machine.info().tsc_khz

    async def run(self, unit: Unit) -> None:
        """Carry out a vnode's actions until cancelled."""
        while True:
            action = await unit.queue.get()
            event = await self.carry_out(unit, action)
            if event is not None:
                self.host.post(unit, event)
            unit.queue.task_done()
            if self.host.overdue():
                await asyncio.sleep(0)

    async def carry_out(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """One action; its event, None when it needs no answer."""
        began = time.monotonic_ns()
        try:
            return await HANDLERS[type(action)](self, unit, action)
        except asyncio.CancelledError:
            raise
        except (AdeosError, CrashdumpError, WatchdogError, OSError) as error:
            text = str(error) or type(error).__name__
        except Exception as error:  # the boundary: see the module's docstring
            text = f"{type(error).__name__}: {error}"
            log.write("error", "bug", vnode=unit.id, action=type(action).__name__, what=text)
        log.write("error", "failed", vnode=unit.id, action=type(action).__name__, what=text)
        return _failure(action, text, time.monotonic_ns() - began)

    async def fence(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Registers first, then INIT and the confirmation of every CPU."""
        assert isinstance(action, actions.Fence)
        unit.gathered = await self._gather(unit, action.gather)
        try:
            unit.stamps["fenced"] = await self._park(unit)
        except FenceError as error:
            log.write("error", "fence-failed", vnode=unit.id, what=error)
            return events.FenceFailed(action.incarnation, str(error))
        unit.watched = None
        return events.Fenced(action.incarnation, self._refined(unit))

    async def _park(self, unit: Unit) -> int:
        """FenceError after some attempts."""
        with contextlib.suppress(FenceError):
            return self.machine.park(unit.id, BRIEF_MS)
        park = partial(self.machine.park, unit.id, PARK_MS)
        for _ in range(PARK_ATTEMPTS - 1):
            with contextlib.suppress(FenceError):
                return await urgent.run(park)
        return await urgent.run(park)

    async def probe(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Whether silent CPUs live: they are asked for their registers and given time to beat."""
        assert isinstance(action, actions.Probe)
        fault, watched = action.fault, unit.watched
        if watched is None:
            return events.Probed(fault.incarnation)
        counts, irq = watched.counts, LAYERS.index("irq")
        before, silent = counts(), watched.detector.silent()
        watch = unit.config.watch

        def moving() -> bool:
            now = counts()
            return all(now[cpu * STRIDE + irq] > before[cpu * STRIDE + irq] for cpu in silent)

        def wanted() -> bool:
            return unit.vnode.probe is fault

        if not unit.takes_nmi():
            await asyncio.sleep(watch.probe_lead_ms / 1000)
            return events.Probed(fault.incarnation, moving=moving())
        ncpus = len(unit.config.cpus)
        questions = registers.Questions(self.machine, watched.bridge, unit.id, ncpus)
        patience = registers.Patience(watch.probe_ms / 1000, self._settling(unit, watched, fault))
        began = self.machine.tsc()
        found = await registers.probe(questions, silent, moving, patience, wanted)
        binding = self.machine.query(unit.id)
        held = binding is not None and binding.held_until > began
        unit.answered = found.answered
        answered = tuple(cpu for cpu in silent if cpu in found.answered)
        log.write("info", "probe", vnode=unit.id, silent=len(silent), answered=len(answered))
        return events.Probed(fault.incarnation, answered, found.moving or held)

    def _settling(self, unit: Unit, watched: Watched, fault: Fault) -> float:
        """Seconds that a CPU that answered may stay silent: to its limit, and a period at least."""
        watch = unit.config.watch
        silent_ms = (self.machine.tsc() - fault.fault_tsc) / self.tsc_khz
        left_ms = watch.irq.limit_ms * watched.detector.patience - silent_ms
        return min(max(left_ms, watch.irq.period_ms), watch.probe_lead_ms) / 1000

    async def prepare(self, unit: Unit) -> None:
        """In idle time: what the next restart would otherwise have to do itself."""
        unit.warm.proven = True
        armed = unit.id in self.placement.armed  # its region is composed when it is armed
        spare = None if armed else self.placement.peek(unit)
        composed = self.composer.composed
        try:
            await background.run(lambda: self.composer.prepare(unit, spare, composed))
        except AdeosError as error:
            log.write("error", "image", vnode=unit.id, what=error)
        await self.warm.settle(unit)
        await self.firing.settle(unit)

    async def freeze(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Between two actions of the supervisor, which need not know."""
        assert isinstance(action, actions.Freeze)
        await self.warm.freeze(unit, action.incarnation)
        return None

    async def _gather(self, unit: Unit, how: str) -> str:
        if how == "probe":
            return "nmi" if unit.answered else ""
        unit.answered = None
        if unit.bridge is None or not how:
            return ""
        incarnation = unit.vnode.incarnation
        if how == "record" and await registers.wait_for_record(unit.bridge, incarnation, unit.bell):
            return how
        await self.save_registers(unit)
        log.write("info", "registers", vnode=unit.id, answered=len(unit.answered or ()))
        if how == "record" and record_complete(unit.bridge, incarnation):
            return how  # late, and yet better: registers of now are of a CPU that panics
        return "nmi" if unit.answered else ""

    async def save_registers(self, unit: Unit) -> None:
        """Have every CPU save its registers, by NMI; `unit.answered` says which did."""
        unit.answered = None
        if unit.bridge is not None and unit.takes_nmi():
            unit.answered = await registers.ask_by_nmi(
                self.machine, unit.bridge, unit.id, len(unit.config.cpus)
            )

    def _refined(self, unit: Unit) -> Fault | None:
        """The fault again, from a crash record that is complete by now."""
        fault = unit.vnode.fault
        if fault is None or unit.gathered != "record" or unit.bridge is None:
            return None
        crash = unit.bridge.crash()
        if crash is None or not crash.reason:
            return None
        started = unit.watched.boot.started if unit.watched is not None else fault.seen_tsc
        if started <= crash.tsc <= fault.seen_tsc:  # the record may have been seen before its time
            unit.stamps["fault"] = crash.tsc
        return replace(fault, reason=crash.reason.name.lower(), cpu=crash.cpu)

    async def open_incident(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Note what is known of it; the action that follows puts it where a kill does not reach."""
        assert isinstance(action, actions.OpenIncident)
        unit.entry = Entry.of(self.case_of(unit, action.fault), unit.bridge)
        return None

    def case_of(self, unit: Unit, fault: Fault) -> Case:
        """What is known of a fault now, but for the bridge."""
        return Case(
            vnode=unit.id,
            name=unit.config.name,
            fault=fault,
            opened=time.time(),
            stamps=dict(unit.stamps),
            witnesses=unit.witnesses,
            policy=unit.config.restart.on_crash,
            ncpus=len(unit.config.cpus),
            boot_id=boot_id(),
            gathered=unit.gathered,
            answered=unit.answered,
        )

    def _filed(self, entry: Entry) -> None:
        """The store has it."""
        assert entry.case is not None
        log.write(
            "info",
            "incident",
            vnode=entry.case.vnode,
            id=entry.number,
            reason=entry.fault.reason,
        )
        unit = self.host.units.get(entry.case.vnode)
        if unit is not None:
            unit.last_incident = max(entry.number, unit.last_incident)
            self.host.publish(unit)

    async def _file(self, entry: Entry) -> None:
        """Beside the vnode's boot: into the store, and then to the disk."""
        if await self.ledger.file(entry):
            await self.ledger.sync(entry)

    async def capture(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Hold the region when a spare is free, else copy it."""
        assert isinstance(action, actions.Capture)
        began = time.monotonic_ns()
        if unit.entry is None:
            return events.CaptureFailed(action.incarnation, "no incident to put it in")
        if not unit.entry.captured:
            unit.strategy = await self.dumps.capture(unit, unit.entry)
        unit.stamps["captured"] = self.machine.tsc()
        return events.Captured(action.incarnation, time.monotonic_ns() - began)

    async def finish_incident(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Close the row with all stamps and what the others' beats were meanwhile."""
        assert isinstance(action, actions.FinishIncident)
        entry, unit.entry = unit.entry, None
        if entry is not None:
            if entry.stamps is None:
                self.warm.stamps(unit)
            again = action.outcome == "restarted"
            # all of now: while the disk is waited for, the vnode may fail again
            facts = (
                unit.stamps if entry.stamps is None else entry.stamps,
                {witness.vnode: witness.before for witness in self.host.witnesses(unit)},
                unit.vnode.incarnation if again else None,
                unit.strategy if again else "",
                unit.warm.image_age if again else None,
            )
            if await self.ledger.file(entry):
                await self.ledger.finish(entry, action.outcome, *facts)
                log.write("info", "incident-done", id=entry.number, outcome=action.outcome)
        self.dumps.write_due(unit.id)
        return None

    async def load(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Bind (or move) the vnode and put its image in place, or compose its memory."""
        assert isinstance(action, actions.Load)
        if unit.coming is not None:
            unit.config, unit.coming = unit.coming, None
        if unit.entry is not None and not self.ledger.keep(unit.entry):
            await self.ledger.file(unit.entry)
        if await self.warm.load(unit, action.incarnation):
            return events.Loaded(action.incarnation)
        self.placement.place(unit)
        compose = partial(self.composer.compose, unit, action.incarnation)
        try:
            if self.composer.ready(unit):  # going to another thread and back would take longer
                compose()
            else:
                await urgent.run(compose)
        except ImageError as error:
            log.write("error", "image", vnode=unit.id, slot=action.slot, what=error)
            return events.ImageRefused(action.incarnation, str(error))
        unit.stamps["loaded"] = self.machine.tsc()
        return events.Loaded(action.incarnation)

    async def start(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """INIT-SIPI-SIPI; the watch begins."""
        assert isinstance(action, actions.Start)
        try:
            tsc = await self._start(unit)
        except AdeosError as error:
            if unit.warm.resume is None:
                raise
            log.write("error", "not-resumed", vnode=unit.id, what=error)
            tsc = await self._boot_instead(unit, action.incarnation)
        unit.stamps["started"] = tsc
        bridge = unit.bridge
        assert bridge is not None
        unit.watched = Watched(bridge, unit.config, action.incarnation, self.tsc_khz, tsc)
        if unit.entry is not None:
            self.host.spawn(self._file(unit.entry))
        self.dumps.write_due(unit.id)
        self.host.spawn(vitals.follow(self.machine, unit, unit.watched))
        self.warm.started(unit, unit.watched)
        return events.Started(action.incarnation)

    async def _start(self, unit: Unit) -> int:
        """The TSC of the SIPI; a CPU that has missed it is parked anew."""
        with contextlib.suppress(FenceError):
            return self.composer.start(unit, BRIEF_MS * 1000)

        def again() -> int:
            self.machine.park(unit.id, PARK_MS)
            return self.composer.start(unit)

        return await urgent.run(again)

    async def _boot_instead(self, unit: Unit, incarnation: int) -> int:
        """The CPU did not take its resume: park it anew and boot."""
        await urgent.run(lambda: self.machine.park(unit.id, PARK_MS))
        self.warm.give_up(unit)
        await urgent.run(lambda: self.composer.compose(unit, incarnation))
        return await urgent.run(lambda: self.composer.start(unit))

    async def wait(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """The back-off."""
        assert isinstance(action, actions.Wait)
        delay = (action.until - time.monotonic_ns()) / 1e9
        log.write("warning", "back-off", vnode=unit.id, seconds=delay)
        self.host.later(action.until, unit)
        if unit.entry is not None:
            self.host.spawn(self._file(unit.entry))
        return None

    async def release(self, unit: Unit, action: actions.Action) -> events.Event | None:
        """Unbind and give region and slot back."""
        unit.watched = None
        self.warm.drop(unit)
        self.placement.release(unit)
        self.dumps.write_due(unit.id)
        self.host.publish(unit)
        return None


def _failure(action: actions.Action, text: str, spent: int) -> events.Event | None:
    match action:
        case actions.Fence(incarnation):
            return events.FenceFailed(incarnation, text)
        case actions.Probe(fault):
            return events.Probed(fault.incarnation)
        case actions.Capture(incarnation):
            return events.CaptureFailed(incarnation, text, spent)
        case actions.Load(incarnation):
            return events.LoadFailed(incarnation, text)
        case actions.Start(incarnation):
            return events.StartFailed(incarnation, text)
    return None


Handler = Callable[[Executor, Unit, actions.Action], Awaitable[events.Event | None]]

HANDLERS: dict[type, Handler] = {
    actions.Fence: Executor.fence,
    actions.Probe: Executor.probe,
    actions.OpenIncident: Executor.open_incident,
    actions.Capture: Executor.capture,
    actions.FinishIncident: Executor.finish_incident,
    actions.Load: Executor.load,
    actions.Start: Executor.start,
    actions.Wait: Executor.wait,
    actions.Release: Executor.release,
    actions.Freeze: Executor.freeze,
}
