# SPDX-License-Identifier: GPL-2.0-or-later
"""down: stops the vnodes and the daemon, and gives the root back what it lent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli import observe, output
from cli.control import POLL_S, Progress, label, place
from cli.errors import DaemonDown, TimedOut
from cli.session import DEVICE, Session, lends
from cli.verb import Place, dry_run_option, timeout_option, verb

BUSY_S = 5.0
"""How long a process that reads /dev/kmb may take to end."""

if TYPE_CHECKING:
    from adeos import abi
    from watchdog.loan import Loan


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
    """Stop the vnodes and the daemon; give back what 'up' took."""
    if keep_running and unload:
        raise click.UsageError("--unload: kmb.ko stays while vnodes run")
    returning = not keep_running and (unload or lends())
    here = session.machine_factory is not None or DEVICE.exists()
    running = started(session) if here and not keep_running else []
    if dry_run:
        from watchdog import loan

        for status in running:
            output.write(output.clean(f"stop {label(status)}: {place(status)}; its memory is lost"))
        output.write("end the daemon" + (" and take kmb.ko out" if returning else ""))
        if returning:
            output.write(f"give back to the root: {(loan.current() or loan.Loan()).words}")
        return
    deadline = time.monotonic() + timeout
    vnodes = [] if lends() else [status.id for status in running]
    ended = here and end(session, keep_running, timeout, vnodes)
    back = give_back(session, deadline) if returning else None
    if back is not None and not (back.cpus or back.blocks):
        back = None  # --unload of a kmb.ko that was loaded with reserved memory
    stopped = [{"vnode": s.id, "name": s.name} for s in running]
    if session.json:
        facts = {"daemon": "ended" if ended else "was not running", "stopped": stopped}
        returned = {"returned": {"cpus": back.cpus, "memory": back.memory}} if back else {}
        output.write_json(facts | returned)
    elif back is not None and not session.quiet:
        output.note(f"back in the root: {back.words}")


def give_back(session: Session, deadline: float) -> Loan:
    """Take kmb.ko out when nothing runs and no dump lies in its memory, and return what is lent."""
    from watchdog import ending, module, paths

    if DEVICE.exists():
        if lends():
            machine = session.open_writable()
            try:
                ending.stop_orphans(machine)
                ending.save_dumps(paths.state_dir(), deadline)
            finally:
                machine.close()
        session.close_machine()
    return module.unload(BUSY_S)


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
