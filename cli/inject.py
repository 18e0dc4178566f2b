# SPDX-License-Identifier: GPL-2.0-or-later
"""inject: makes a vnode's agent fail on purpose, where the config allows it (inject = true)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli import observe, output
from cli.control import Progress, label, report
from cli.errors import TimedOut
from cli.session import Session
from cli.show import as_text
from cli.store import as_dict
from cli.verb import dry_run_option, timeout_option, verb, vnode_argument, wait_option

if TYPE_CHECKING:
    from crashdump.incident import Incident

POLL_S = 0.1

KINDS = {
    "panic": "panic()",
    "oops": "a NULL dereference in a kernel thread",
    "hang": "user space stops, the kernel goes on",
    "softlockup": "every CPU spins with preemption off",
    "irqhang": "every CPU spins with interrupts off",
    "halt": "an orderly halt, which is no crash",
    "reboot": "an emergency reboot",
    "stuck": "a kernel thread that will not be frozen, which is no failure",
}


@verb(
    "inject",
    examples=[
        "vnode-debug inject 2 panic",
        "vnode-debug inject 2 panic --wait          show the incident when it is over",
        "vnode-debug inject pair panic --cpu 1     on its second CPU",
        "vnode-debug inject 2 irqhang --dry-run",
    ],
    epilog="Kinds: " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()) + ".",
)
@vnode_argument
@click.argument("kind", type=click.Choice(tuple(KINDS)), metavar="KIND")
@click.option("--cpu", type=click.IntRange(0, 15), help="Of a panic: the CPU within the vnode.")
@wait_option
@timeout_option
@dry_run_option
def command(
    session: Session,
    vnode: str,
    kind: str,
    cpu: int | None,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Make a vnode fail, to try things out."""
    if cpu is not None and kind != "panic":
        raise click.UsageError("--cpu is for a panic only")
    if wait and kind == "stuck":
        raise click.UsageError("--wait: a stuck thread leads to no incident")
    status = observe.find(session.machine(), vnode)
    if cpu is not None and cpu >= status.ncpus:
        raise click.UsageError(f"--cpu {cpu}: {label(status)} has {status.ncpus} CPU(s)")
    item = {"vnode": status.id, "name": status.name, "kind": kind}
    if dry_run:
        report(session, [{**item, "plan": f"is {status.state.name.lower()}; {KINDS[kind]}"}])
        return
    before = newest(session, status.id) if wait else None
    session.client().call("inject", vnode=status.id, kind=kind, cpu=cpu or 0)
    if not wait:
        report(session, [{**item, "state": f"{kind} injected"}])
        return
    known = before.id if before else 0
    incident = incident_after(session, status.id, known, timeout, label(status))
    if session.json:
        output.write_json([as_dict(session, incident)])
    else:
        output.write(as_text(session, incident))


def newest(session: Session, vnode: int) -> Incident | None:
    """The last incident of a vnode."""
    return next(iter(session.store().list(vnode=vnode, limit=1, reverse=True)), None)


def incident_after(session: Session, vnode: int, known: int, timeout: float, what: str) -> Incident:
    """The vnode's incident later than `known`, closed and with its dump's end; TimedOut."""
    from crashdump.incident import PENDING, IncidentState

    end = time.monotonic() + timeout
    with Progress(session) as progress:
        while time.monotonic() < end:
            one = newest(session, vnode)
            if one is None or one.id <= known:
                progress.show(f"{what}: no incident yet")
            elif one.state is IncidentState.OPEN or one.dump.state in PENDING:
                progress.show(f"{what}: incident {one.id} is {one.state}, dump {one.dump.state}")
            else:
                return one
            time.sleep(POLL_S)
    raise TimedOut(f"{what}: no finished incident after {timeout:g} s; see vnode-debug incidents")
