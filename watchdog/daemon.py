# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts a daemon together and runs it in the foreground."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from adeos.bridge import RootBridge
from adeos.errors import AdeosError, OwnerError
from adeos.machine import Machine
from crashdump.errors import CrashdumpError
from watchdog import config as configs
from watchdog import log, module, paths, realtime, status
from watchdog.composer import Composer
from watchdog.config import Config
from watchdog.control import ControlServer
from watchdog.dumps import Dumps
from watchdog.errors import AlreadyRunningError, WatchdogError
from watchdog.eventlog import EventLog
from watchdog.executor import Executor
from watchdog.ledger import Ledger
from watchdog.placement import Placement
from watchdog.service import Service
from watchdog.staging import open_staging
from watchdog.verbs import table

OpenMachine = Callable[[Config], Machine]


def open_kmb(config: Config) -> Machine:
    """/dev/kmb, its module loaded when the config says how."""
    from adeos.kmb import KmbMachine

    module.load(config.machine)
    return KmbMachine(writable=True)


def main(
    config_path: Path | None = None,
    *,
    ready_fd: int | None = None,
    open_machine: OpenMachine = open_kmb,
    dumps_in_process: bool = False,
) -> int:
    """Run the daemon until it is told to end; the exit code.

    `ready_fd`: a descriptor that gets "ready\\n" when vnodes are adopted and the
    control socket listens; systemd's NOTIFY_SOCKET is served too.  Errors are
    one line each on stderr.
    """
    os.umask(0o077)
    try:
        path = (config_path or paths.config_file()).absolute()
        config = configs.load(path)
        asyncio.run(_run(config, path, ready_fd, open_machine, dumps_in_process))
    except (WatchdogError, AdeosError, CrashdumpError) as error:
        log.stop()
        for line in str(error).splitlines():
            print(f"vnode-debug: {line}", file=sys.stderr)
        return error.exit_code
    finally:
        log.stop()
    return 0


async def _run(
    config: Config,
    path: Path,
    ready_fd: int | None,
    open_machine: OpenMachine,
    dumps_in_process: bool,
) -> None:
    machine = open_machine(config)
    history: EventLog | None = None
    try:
        _claim(machine)
        log.start(as_json=config.watch.log == "json")
        tsc_khz = machine.info().tsc_khz
        root = RootBridge.open(machine, writable=True)
        placement = Placement(machine)
        state = paths.private_dir(paths.state_dir())
        history = EventLog(state)
        history.start()
        log.sinks.add(history.put)
        ledger, dump_ledger = Ledger(state, tsc_khz), Ledger(state, tsc_khz)
        await ledger.start()
        await dump_ledger.start()
        period_us = config.watch.period_ms * 1000
        epoch = status.take_over(root, machine.tsc(), tsc_khz, period_us)
        dumps = Dumps(machine, placement, dump_ledger)
        dumps.hold = config.watch.hold
        dumps.in_process = dumps_in_process
        dumps.limits = config.dumps.limits
        await dumps.resume()
        service = Service(config, machine, root)
        service.config_path = path
        ledger.finished = service.hooks.incident
        service.staging = open_staging(service, state)
        composer = Composer(machine, service.staging.stage, service.staging.save_now)
        service.executor = Executor(service, machine, placement, composer, ledger, dumps)
        dumps.freed = service.prepare_all
        await service.staging.restore_all()
        await service.adopt()
        server = ControlServer(paths.control_socket(), table(service))
        await server.start()
        log.write("info", "daemon", pid=os.getpid(), epoch=epoch, vnodes=len(config.vnode))
        try:
            service.spawn(dumps.keep_quota())
            await service.run(lambda: _ready(config, ready_fd))
        finally:
            await server.stop()
            await service.staging.flush()
            await dumps.stop()
            await dump_ledger.stop()
            await ledger.stop()
    finally:
        if history is not None:
            log.sinks.discard(history.put)
            history.stop()
        machine.close()


def _claim(machine: Machine) -> None:
    try:
        machine.claim()
    except OwnerError as error:
        raise AlreadyRunningError(
            f"another daemon owns the machine ({error.what}); stop it first: vnode-debug down"
        ) from None


def _ready(config: Config, ready_fd: int | None) -> None:
    missing = realtime.enter(realtime=config.watch.realtime)
    if missing:
        log.write("warning", "no-realtime", missing=", ".join(missing))
    if ready_fd is not None:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
    notify("READY=1")


def notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens without NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(message.encode(), address.replace("@", "\0", 1))
        except OSError as error:
            log.write("warning", "notify", what=error)
