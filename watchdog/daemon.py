# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts a daemon together and runs it in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adeos.bridge import RootBridge
from adeos.errors import AdeosError, OwnerError
from adeos.machine import Machine
from crashdump.errors import CrashdumpError
from kexec_restart.images import Stage
from watchdog import config as configs
from watchdog import fired, log, module, notify, paths, realtime, standby, status, succession
from watchdog.composer import Composer
from watchdog.config import Config
from watchdog.control import ControlServer
from watchdog.dumps import Dumps
from watchdog.errors import AlreadyRunningError, WatchdogError
from watchdog.eventlog import EventLog
from watchdog.executor import Executor
from watchdog.journal import Journal
from watchdog.ledger import Ledger
from watchdog.placement import Placement
from watchdog.service import Service
from watchdog.shelf import Shelf
from watchdog.staging import Staging, read_ahead, unpack
from watchdog.standby import Led
from watchdog.verbs import table

OpenMachine = Callable[[Config], Machine]

CLAIM_S = 2.0
"""How long a killed daemon may take to be gone: its memory is locked, and freed page by page."""


def open_kmb(config: Config) -> Machine:
    """/dev/kmb, its module loaded when the config says how."""
    from adeos.kmb import KmbMachine

    module.load(config)
    return KmbMachine(writable=True)


@dataclass(frozen=True)
class Options:
    """How a daemon is run.

    `ready_fd`: a descriptor that gets "ready\\n" when vnodes are adopted and the
    control socket listens; systemd's NOTIFY_SOCKET is served too.  `standby`:
    wait until the daemon that leads dies.  `dumps_in_process`: for machines
    that no other process can open (tests).
    """

    config_path: Path
    ready_fd: int | None = None
    standby: bool = False
    dumps_in_process: bool = False


def main(
    config_path: Path | None = None,
    *,
    ready_fd: int | None = None,
    open_machine: OpenMachine = open_kmb,
    dumps_in_process: bool = False,
    standby: bool = False,
) -> int:
    """Run the daemon until it is told to end; the exit code.

    Errors are one line each on stderr.
    """
    os.umask(0o077)
    path = (config_path or paths.config_file()).absolute()
    options = Options(path, ready_fd, standby, dumps_in_process)
    try:
        asyncio.run(_run(configs.load(path), options, open_machine))
    except asyncio.CancelledError:
        pass  # a standby was told to end
    except (WatchdogError, AdeosError, CrashdumpError) as error:
        log.stop()
        for line in str(error).splitlines():
            print(f"vnode-debug: {line}", file=sys.stderr)
        return error.exit_code
    finally:
        log.stop()
    return 0


async def _run(config: Config, options: Options, open_machine: OpenMachine) -> None:
    machine = open_machine(config)
    try:
        state = paths.private_dir(paths.state_dir())
        shelf = Shelf(state / "slots")
        stage = Stage(shelf.images, unpack)
        if options.standby:
            log.start(as_json=config.watch.log == "json")
            led = await _stand_by(machine, config, stage)
            config = _newest(config, options.config_path)
        else:
            await _claim(machine)
            led = None
            log.start(as_json=config.watch.log == "json")
        history = EventLog(state)
        history.start()
        log.sinks.add(history.put)
        try:
            if led is not None and led.pid:
                silent = (machine.tsc() - led.beat_tsc) / machine.info().tsc_khz
                log.write("warning", "take-over", dead=led.pid, silent_ms=silent)
            await _lead(
                machine, config, options, Parts(state, shelf, stage, lambda: open_machine(config))
            )
        finally:
            log.sinks.discard(history.put)
            history.stop()
    finally:
        machine.close()


async def _stand_by(machine: Machine, config: Config, stage: Stage) -> Led:
    """Wait for the leader's death with the images read; SIGTERM ends it."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    with contextlib.suppress(RuntimeError, ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the config is read when it leads
    looks = itertools.count()
    alive = loop.create_task(notify.keep_alive(lambda: next(looks)))
    try:
        await asyncio.to_thread(read_ahead, config, stage)
        realtime.enter(realtime=config.watch.realtime)  # what it lacks is told when it leads
        return await standby.wait(machine)
    finally:
        alive.cancel()


def _newest(config: Config, path: Path) -> Config:
    """The config as it is now; as it was when it is wrong now."""
    try:
        return configs.load(path)
    except WatchdogError as error:
        log.write("error", "config", what=str(error).splitlines()[0], using="the earlier one")
        return config


class Parts(NamedTuple):
    """What is there before a daemon leads."""

    state: Path
    shelf: Shelf
    stage: Stage
    open_writable: Callable[[], Machine]


async def _lead(machine: Machine, config: Config, options: Options, parts: Parts) -> None:
    journal = Journal(paths.journal_dir())
    ledger, dump_ledger = (Ledger(parts.state, journal, machine) for _ in range(2))
    await ledger.start()
    await dump_ledger.start()
    root = RootBridge.open(machine, writable=True)
    period_us = config.watch.period_ms * 1000
    epoch = status.take_over(root, machine.tsc(), machine.info().tsc_khz, period_us)
    service = Service(config, machine, root, parts.open_writable)
    service.config_path = options.config_path
    ledger.finished = service.hooks.incident
    dumps = await _assemble(service, parts, ledger, dump_ledger, options.dumps_in_process)
    await service.staging.restore_all()
    succession.appoint(service)
    await service.adopt()
    server = ControlServer(paths.control_socket(), table(service))
    await server.start()
    log.write("info", "daemon", pid=os.getpid(), epoch=epoch, vnodes=len(config.vnode))
    try:
        service.spawn(dumps.keep_quota())
        service.spawn(notify.keep_alive(lambda: service.pace.ticks))
        await service.run(lambda: _ready(config, options.ready_fd))
    finally:
        await server.stop()
        await service.staging.flush()
        await dumps.stop()
        await dump_ledger.stop()
        await ledger.stop()


async def _assemble(
    service: Service, parts: Parts, ledger: Ledger, dump_ledger: Ledger, in_process: bool
) -> Dumps:
    """Put the service's parts together; what an earlier daemon's dumps hold is taken up."""
    machine, config = service.machine, service.config
    placement = Placement(machine)
    dumps = Dumps(machine, placement, ledger, dump_ledger)
    dumps.hold = config.watch.hold
    dumps.in_process = in_process
    dumps.limits = config.dumps.limits
    dumps.freed = service.prepare_all
    dumps.reclaim = lambda vnode, region: service.executor.warm.reclaim(vnode, region)
    await ledger.file_left()
    configs_by_id = {vnode.id: vnode for vnode in config.vnode}
    service.fired = await fired.record(machine, ledger, service.root, configs_by_id)
    await dumps.resume()
    service.staging = Staging(service, parts.stage, parts.shelf)
    composer = Composer(machine, parts.stage, service.staging.save_now)
    service.executor = Executor(service, machine, placement, composer, ledger, dumps)
    service.executor.firing.hold = config.watch.hold
    return dumps


async def _claim(machine: Machine) -> None:
    """Own the machine; a daemon that was killed just now is given CLAIM_S to be gone."""
    deadline = time.monotonic() + CLAIM_S
    while True:
        try:
            return machine.claim()
        except OwnerError as error:
            if time.monotonic() > deadline:
                raise AlreadyRunningError(
                    f"another daemon owns the machine ({error.what}); stop it first: "
                    "vnode-debug down"
                ) from None
        await asyncio.sleep(0.02)


def _ready(config: Config, ready_fd: int | None) -> None:
    missing = realtime.enter(realtime=config.watch.realtime)
    if missing:
        log.write("warning", "no-realtime", missing=", ".join(missing))
    if ready_fd is not None:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
    notify.notify("READY=1\nSTATUS=watching")
