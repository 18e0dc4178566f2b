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
from adeos.errors import AdeosError, ImageError, OwnerError
from adeos.machine import Machine
from crashdump.errors import CrashdumpError
from kexec_restart.images import Stage
from watchdog import config as configs
from watchdog import log, module, paths, realtime, status
from watchdog.composer import Composer, spec_of
from watchdog.config import Config
from watchdog.control import ControlServer
from watchdog.dumps import Dumps
from watchdog.errors import AlreadyRunningError, WatchdogError
from watchdog.executor import Executor
from watchdog.ledger import Ledger
from watchdog.placement import Placement
from watchdog.service import Service
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
        config = configs.load(config_path or paths.config_file())
        asyncio.run(_run(config, ready_fd, open_machine, dumps_in_process))
    except (WatchdogError, AdeosError, CrashdumpError) as error:
        log.stop()
        for line in str(error).splitlines():
            print(f"vnode-debug: {line}", file=sys.stderr)
        return error.exit_code
    finally:
        log.stop()
    return 0


async def _run(
    config: Config, ready_fd: int | None, open_machine: OpenMachine, dumps_in_process: bool
) -> None:
    machine = open_machine(config)
    try:
        _claim(machine)
        log.start()
        tsc_khz = machine.info().tsc_khz
        root = RootBridge.open(machine, writable=True)
        placement = Placement(machine)
        state = paths.private_dir(paths.state_dir())
        ledger, dump_ledger = Ledger(state, tsc_khz), Ledger(state, tsc_khz)
        await ledger.start()
        await dump_ledger.start()
        period_us = config.watch.period_ms * 1000
        epoch = status.take_over(root, machine.tsc(), tsc_khz, period_us)
        dumps = Dumps(machine, placement, dump_ledger)
        dumps.hold = config.watch.hold
        dumps.in_process = dumps_in_process
        await dumps.resume()
        stage = Stage()
        service = Service(config, machine, root)
        service.executor = Executor(
            service, machine, placement, Composer(machine, stage), ledger, dumps
        )
        dumps.freed = service.prepare_all
        dumps.reclaim = service.executor.warm.reclaim
        await _stage_all(config, stage, machine)
        await service.adopt()
        server = ControlServer(paths.control_socket(), table(service))
        await server.start()
        log.write("info", "daemon", pid=os.getpid(), epoch=epoch, vnodes=len(config.vnode))
        try:
            await service.run(lambda: _ready(config, ready_fd))
        finally:
            await server.stop()
            await dumps.stop()
            await dump_ledger.stop()
            await ledger.stop()
    finally:
        machine.close()


def _claim(machine: Machine) -> None:
    try:
        machine.claim()
    except OwnerError as error:
        raise AlreadyRunningError(
            f"another daemon owns the machine ({error.what}); stop it first: vnode-debug down"
        ) from None


async def _stage_all(config: Config, stage: Stage, machine: Machine) -> None:
    """Read every image now: a restart must not wait for the disk, nor find a file gone.

    ImageError names the first that is wrong, before anything is started.  A
    vnode that runs already is watched all the same: its restart will fail.
    """
    for vnode in config.vnode:
        try:
            await asyncio.to_thread(stage.get, spec_of(vnode))
        except ImageError as error:
            if machine.query(vnode.id) is None:
                raise
            log.write("error", "image", vnode=vnode.id, what=error)


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
