# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon: one event loop that watches, decides by the supervisor, and hands work out.

On the loop's thread nothing blocks: the tick and portal events read shared
memory, `post` feeds the supervisor, actions go to a worker task a vnode
(executor.py), commands come in by the control socket (control.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

from adeos.abi import KmbFire
from adeos.bridge import RootBridge
from adeos.errors import AdeosError
from adeos.machine import Machine
from crashdump.incident import Witness
from watchdog import adopting, events, grants, log, paths, realtime, reloading, status, vitals
from watchdog.broker import Broker
from watchdog.config import Config
from watchdog.detector import OwnPace
from watchdog.errors import RefusedError, TimedOutError, UnknownVnodeError, WatchdogError
from watchdog.executor import Executor
from watchdog.hooks import Hooks
from watchdog.lease import leased
from watchdog.ledger import Entry
from watchdog.staging import Staging
from watchdog.states import LIVE, RECORDED, State
from watchdog.supervisor import Vnode, step
from watchdog.unit import Unit
from watchdog.watch import due_again, look

COLLECT_EVERY_S = 10.0
STORM = 50
"""Doorbells answered between two ticks; whoever rings more often is heard at the ticks alone."""
REST_MS = 50
"""The longest time between two ticks: how soon the watcher knows that it was absent itself."""
_FAULTS = (events.Faulted, events.Silent, events.Probed)


class Service:
    """Everything of one run.  `daemon.py` puts it together."""

    def __init__(
        self,
        config: Config,
        machine: Machine,
        root: RootBridge,
        open_writable: Callable[[], Machine],
    ) -> None:
        self.config = config
        self.broker = Broker(machine, open_writable, self.spawn)
        self.config_path = paths.config_file()
        self.hooks = Hooks(config.hooks)
        self.machine = machine
        self.root = root
        self.tsc_khz = machine.info().tsc_khz
        self.period = config.watch.period_ms * self.tsc_khz
        self.rest = max(self.period, REST_MS * self.tsc_khz)
        self.pace = OwnPace(self.period, 1000 * self.tsc_khz)
        self.units = {v.id: Unit(v, Vnode(policy=v.restart)) for v in config.vnode}
        self.executor: Executor
        self.fired: dict[int, tuple[Entry, KmbFire]] = {}
        """What kmb.ko restarted while no daemon was there: fired.py."""
        self.staging: Staging
        self.tick_ns = 0
        """CPU time of the last tick; `tick_max_ns` of the worst."""
        self.tick_max_ns = 0
        self.portals = 0
        """Rings heard so far."""
        self.storms = 0
        """Times that doorbells had to wait for a tick."""
        self._answered = 0
        self.done = asyncio.Event()
        self.listeners: set[Callable[[dict[str, Any]], None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._collected = 0.0
        self._tick_at = 0.0
        """When the next tick is due, by the loop's clock."""
        self._wanted: list[Unit] = []

    def unit(self, which: object) -> Unit:
        """The vnode of an id or name; UnknownVnodeError."""
        found = self.config.find(which) if isinstance(which, int | str) else None
        if found is None:
            known = ", ".join(f'{v.id} "{v.name}"' for v in self.config.vnode) or "none"
            raise UnknownVnodeError(f"no vnode {which!r}; the config has {known}")
        return self.units[found.id]

    # Decide

    def post(self, unit: Unit, event: events.Event) -> None:
        """Feed an event to the supervisor, publish what it says, queue what it wants."""
        before = unit.vnode
        unit.vnode, wanted = step(before, event, time.monotonic_ns())
        self._account(unit, before, event)
        for action in wanted:
            unit.queue.put_nowait(action)

    def _account(self, unit: Unit, before: Vnode, event: events.Event) -> None:
        vnode = unit.vnode
        if vnode is before:
            return
        fault = vnode.fault
        if fault is not None and fault is not before.fault and isinstance(event, _FAULTS):
            if unit.entry is not None and unit.entry.stamps is None:
                unit.entry.stamps = unit.stamps
            unit.stamps = {"fault": fault.fault_tsc, "seen": fault.seen_tsc}
            if fault.reported_tsc:
                unit.stamps["reported"] = fault.reported_tsc
            unit.witnesses = self.witnesses(unit)
            unit.strategy = "kmb"
        if vnode.state is State.RUNNING and before.state is State.BOOTING:
            now = self.machine.tsc()
            unit.stamps["running"] = unit.watched.ready_since(now) if unit.watched else now
            self.spawn(self.executor.prepare(unit))
            self.watch_health(unit)
        if vnode.slots is not before.slots:
            self.staging.changed(unit)
            if vnode.state in LIVE:  # else once it runs again
                self.spawn(self.executor.firing.settle(unit))
        if before.state in LIVE and vnode.state not in LIVE and vnode.state is not State.CRASHED:
            self.executor.firing.disarm(unit)  # a crash is fenced first, which disarms it as well
        if vnode.false_alarms > before.false_alarms:
            log.write("warning", "false-alarm", vnode=unit.id, reason=before.reason)
        if (vnode.state, vnode.reason) != (before.state, before.reason):
            unit.since_tsc = self.machine.tsc()
            self._announce(unit, before)
            if vnode.state not in LIVE:
                self.broker.drop(unit)
        self.publish(unit)
        unit.changed.set()
        unit.changed = asyncio.Event()

    def _announce(self, unit: Unit, before: Vnode) -> None:
        vnode = unit.vnode
        level = "warning" if vnode.state in (State.CRASHED, State.QUARANTINED) else "info"
        log.write(
            level,
            vnode.state.word,
            vnode=unit.id,
            name=unit.config.name,
            was=before.state.word,
            incarnation=vnode.incarnation,
            **({"reason": vnode.reason} if vnode.reason else {}),
        )
        record = {
            "vnode": unit.id,
            "name": unit.config.name,
            "state": vnode.state.word,
            "reason": vnode.reason,
            "incarnation": vnode.incarnation,
            "tsc": unit.since_tsc,
        }
        for listener in tuple(self.listeners):
            listener(record)

    def publish(self, unit: Unit) -> None:
        """Write the vnode's entry in the root bridge, and tell the vnodes that may look at it."""
        status.publish(self.root, unit)
        grants.spread(self.machine, self.units, unit)

    def witnesses(self, unit: Unit) -> tuple[Witness, ...]:
        """Beats of the other live vnodes: the sum over their CPUs and layers."""
        return tuple(
            Witness(
                other.id,
                other.config.name,
                other.vnode.incarnation,
                sum(other.watched.counts()),
            )
            for other in self.units.values()
            if other is not unit and other.watched is not None and other.vnode.state in LIVE
        )

    def later(self, until: int, unit: Unit) -> None:
        """Post DelayElapsed(until) then (ns of time.monotonic_ns)."""
        delay = max(until - time.monotonic_ns(), 0) / 1e9
        loop = asyncio.get_running_loop()
        loop.call_later(delay, self.post, unit, events.DelayElapsed(until))

    def watch_health(self, unit: Unit) -> None:
        """Post Healthy when it has run so long as its policy says."""
        event = events.Healthy(unit.vnode.incarnation)
        delay = unit.config.restart.healthy_s
        asyncio.get_running_loop().call_later(delay, self.post, unit, event)

    # Watch

    def tick(self) -> int:
        """Look at the live vnodes that are due; TSC of the next tick."""
        began = time.thread_time_ns()
        self.on_portal()  # first, so that a fault found below has its report's time
        now = self.machine.tsc()
        absent = self.pace.tick(now)
        due = now + self.rest
        for unit in self.units.values():
            watched = unit.watched
            if watched is None:
                continue
            if absent:
                watched.detector.forgive(absent)
            if watched.due <= now:
                self._look(unit, now, 0)
            if watched.due < due:
                due = watched.due
        due = now + self.period if self._calm() else max(due, now + self.period)
        self.pace.plan(due)
        self.root.beat(self.pace.ticks, now, self.pace.late)
        self.tick_ns = time.thread_time_ns() - began
        self.tick_max_ns = max(self.tick_max_ns, self.tick_ns)
        return due

    def on_portal(self) -> None:
        """A vnode rang: look at it at once."""
        for event in self.machine.events():
            self.portals += event.rings
            unit = self.units.get(event.vnode)
            if unit is not None:
                unit.bell.set()
                self._look(unit, self.machine.tsc(), event.tsc)
                self._late_report(unit, event.tsc)

    def _on_ring(self) -> None:
        """The doorbell between ticks: no vnode can keep the loop busy with it."""
        self.on_portal()
        self._answered += 1
        if self._answered >= STORM:
            self.storms += 1
            self._listen(False)

    def _calm(self) -> bool:
        """Listen again after a storm; whether there was one."""
        stormy = self._answered >= STORM
        self._answered = 0
        if stormy:
            self._listen(True)
        return stormy

    def _listen(self, wanted: bool) -> None:
        loop, bell = asyncio.get_running_loop(), self.machine.fileno()
        if wanted:
            loop.add_reader(bell, self._on_ring)
        else:
            loop.remove_reader(bell)

    def _late_report(self, unit: Unit, rung: int) -> None:
        """A tick may find a crash record in memory just before its portal rings."""
        fault = unit.vnode.fault
        if fault is not None and fault.reason in RECORDED:
            unit.stamps.setdefault("reported", rung)

    def _look(self, unit: Unit, now: int, rung: int) -> None:
        if unit.vnode.fencing:
            return  # it fails already: what it says is read once, when it is parked
        watched = unit.watched
        event = look(unit, now, rung, self.pace.doubt)
        if event is not None or unit.vnode.state is State.HELD:
            event = leased(self.machine, unit, event, now, self.broker.holder_of(unit.id))
            if event is not None:
                self.post(unit, event)
        if watched is not None:
            watched.due = due_again(unit, now, event, self.rest)
        self.broker.look(unit)

    def _tick_again(self) -> None:
        """A tick that calls itself; a timer is cheaper than a task that sleeps."""
        if self.done.is_set():
            return
        loop = asyncio.get_running_loop()
        wait = self.period
        try:
            wait = self.tick() - self.machine.tsc()
        finally:  # whatever a tick stumbles over, the watch goes on
            self._tick_at = loop.time() + max(wait, 0) / self.tsc_khz / 1000
            loop.call_at(self._tick_at, self._tick_again)
        if loop.time() - self._collected > COLLECT_EVERY_S:
            self._collected = loop.time()
            realtime.collect()

    def overdue(self) -> bool:
        """Whether a tick waits for whoever has the loop."""
        return asyncio.get_running_loop().time() > self._tick_at

    # Run

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the watch; its end is not awaited."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def hire(self, unit: Unit) -> None:
        """Begin to carry out what the supervisor wants of a vnode."""
        self._workers[unit.id] = self.spawn(self.executor.run(unit))

    def dismiss(self, unit: Unit) -> None:
        """Forget a vnode that owns nothing."""
        self._workers.pop(unit.id).cancel()
        self.root.retract(unit.id)

    def hang_up(self) -> None:
        """SIGHUP: read the config anew; what is wrong with it is logged."""
        self.spawn(self._reload())

    async def _reload(self) -> None:
        try:
            await reloading.reload(self)
        except (WatchdogError, AdeosError) as error:
            for line in str(error).splitlines():
                log.write("error", "reload", what=line)

    def prepare_all(self) -> None:
        """Get what the next restart of each running vnode needs ready, in idle time.

        The large first: they have the least choice of where to go.
        """
        running = [unit for unit in self.units.values() if unit.vnode.state is State.RUNNING]
        for unit in sorted(running, key=lambda unit: unit.config.span.size, reverse=True):
            self.spawn(self.executor.prepare(unit))

    async def adopt(self) -> None:
        """Take over what an earlier daemon left; before any command is served."""
        self._wanted = await adopting.adopt_all(self)

    async def run(self, ready: Callable[[], None]) -> None:
        """Start what is to be started, watch until `done`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, self.done.set)
        with contextlib.suppress(RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        for unit in self.units.values():
            self.hire(unit)
            if unit.watched is not None:
                self.spawn(vitals.follow(self.machine, unit, unit.watched))
            if unit.vnode.running_since is not None:
                self.watch_health(unit)
        self.spawn(self.staging.check())
        self.spawn(self.hooks.run())
        self.prepare_all()
        self._listen(True)
        self._tick_again()
        for unit in self._wanted:
            self.post(unit, events.StartRequested())
        ready()
        await self.done.wait()
        self._listen(False)
        self.broker.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check_stopped(self, unit: Unit) -> None:
        """RefusedError when a vnode that was to stop has kept its CPUs and memory."""
        if unit.binding is not None:
            raise RefusedError(
                f"{unit.label} cannot be stopped ({unit.vnode.reason}): its CPUs may still run, so"
                " they and its memory stay with it; try again, else reset the machine"
            )

    async def stop_all(self, limit: float = 30.0) -> None:
        """Stop every vnode and forget what was said of them; TimedOutError, RefusedError."""
        for unit in self.units.values():
            self.post(unit, events.StopRequested())
        try:
            async with asyncio.timeout(limit):
                for unit in self.units.values():
                    await unit.queue.join()
        except TimeoutError:
            raise TimedOutError(f"{unit.label} did not stop in {limit:g} s") from None
        for unit in self.units.values():
            self.check_stopped(unit)
        self.root.farewell()  # before a standby could find vnodes that nobody has stopped
        for unit in self.units.values():
            self.root.retract(unit.id)
