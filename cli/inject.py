# SPDX-License-Identifier: GPL-2.0-or-later
"""inject: makes a vnode's agent fail on purpose, where the config allows it (inject = true)."""

import click

from cli import observe
from cli.control import label, report
from cli.session import Session
from cli.verb import dry_run_option, verb, vnode_argument

KINDS = {
    "panic": "panic()",
    "oops": "a NULL dereference in a kernel thread",
    "hang": "user space stops, the kernel goes on",
    "softlockup": "every CPU spins with preemption off",
    "irqhang": "every CPU spins with interrupts off",
    "halt": "an orderly halt, which is no crash",
    "reboot": "an emergency reboot",
}


@verb(
    "inject",
    examples=[
        "vnode-debug inject 2 panic",
        "vnode-debug inject pair panic --cpu 1     on its second CPU",
        "vnode-debug inject 2 irqhang --dry-run",
    ],
    epilog="Kinds: " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()) + ".",
)
@vnode_argument
@click.argument("kind", type=click.Choice(tuple(KINDS)), metavar="KIND")
@click.option("--cpu", type=click.IntRange(0, 15), help="Of a panic: the CPU within the vnode.")
@dry_run_option
def command(session: Session, vnode: str, kind: str, cpu: int | None, dry_run: bool) -> None:
    """Make a vnode fail, to try things out."""
    if cpu is not None and kind != "panic":
        raise click.UsageError("--cpu is for a panic only")
    status = observe.find(session.machine(), vnode)
    if cpu is not None and cpu >= status.ncpus:
        raise click.UsageError(f"--cpu {cpu}: {label(status)} has {status.ncpus} CPU(s)")
    item = {"vnode": status.id, "name": status.name, "kind": kind}
    if dry_run:
        report(session, [{**item, "plan": f"is {status.state.name.lower()}; {KINDS[kind]}"}])
        return
    session.client().call("inject", vnode=status.id, kind=kind, cpu=cpu or 0)
    report(session, [{**item, "state": f"{kind} injected"}])
