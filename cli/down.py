# SPDX-License-Identifier: GPL-2.0-or-later
"""down: stops the vnodes and the daemon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli import observe, output
from cli.control import POLL_S, Progress, label, place
from cli.errors import DaemonDown, TimedOut
from cli.session import Session
from cli.verb import Place, dry_run_option, timeout_option, verb

if TYPE_CHECKING:
    from adeos import abi


@verb(
    "down",
    place=Place.MACHINE,
    examples=[
        "vnode-debug down --dry-run",
        "vnode-debug down",
        "vnode-debug down --keep-running      vnodes run on, unwatched; 'up' adopts them",
    ],
)
@click.option("--keep-running", is_flag=True, help="Leave the vnodes running.")
@click.option("--unload", is_flag=True, help="Take kmb.ko out too.")
@timeout_option
@dry_run_option
def command(
    session: Session, keep_running: bool, unload: bool, timeout: float, dry_run: bool
) -> None:
    """Stop the vnodes and the daemon."""
    if keep_running and unload:
        raise click.UsageError("--unload: kmb.ko stays while vnodes run")
    running = [] if keep_running else started(session)
    if dry_run:
        for status in running:
            output.write(output.clean(f"stop {label(status)}: {place(status)}; its memory is lost"))
        output.write("end the daemon" + (" and take kmb.ko out" if unload else ""))
        return
    ended = end(session, keep_running, timeout, [status.id for status in running])
    if unload:
        from watchdog import module

        module.unload()
    stopped = [{"vnode": s.id, "name": s.name} for s in running]
    if session.json:
        output.write_json({"daemon": "ended" if ended else "was not running", "stopped": stopped})


def started(session: Session) -> list[abi.Status]:
    """The vnodes that have CPUs running."""
    machine = session.machine()
    return [
        sample.status
        for sample in observe.take(machine).samples
        if sample.binding is not None and sample.binding.started
    ]


def end(session: Session, keep_running: bool, timeout: float, running: list[int]) -> bool:
    """End the daemon and wait for its end; whether there was one."""
    from watchdog.errors import NoDaemonError

    deadline = time.monotonic() + timeout
    wish = "leave" if keep_running else "stop"
    try:
        session.client().call("shutdown", vnodes=wish, timeout=timeout)
    except NoDaemonError:
        if running:
            raise DaemonDown(
                "the daemon is dead and vnodes run; 'vnode-debug up' adopts them, then repeat this"
            ) from None
        if not session.quiet:
            output.note("the daemon was not running")
        return False
    with Progress(session) as progress:
        while answers(session):
            if time.monotonic() > deadline:
                raise TimedOut(f"the daemon still runs after {timeout:g} s")
            progress.show("the daemon is ending")
            time.sleep(POLL_S)
    return True


def answers(session: Session) -> bool:
    """Whether the daemon still takes commands or owns the machine."""
    from watchdog.errors import WatchdogError

    try:
        session.client().call("ping", timeout=1.0)
    except WatchdogError:
        return bool(session.machine().info().owner_pid)
    return True
