# SPDX-License-Identifier: GPL-2.0-or-later
"""clear: takes vnodes out of quarantine, stopped, with a fresh restart budget."""

from cli import observe
from cli.control import report
from cli.session import Session
from cli.verb import timeout_option, verb, vnodes_argument


@verb(
    "clear",
    examples=[
        "vnode-debug incidents --vnode 2 && vnode-debug clear 2 && vnode-debug start 2 --wait",
        "vnode-debug clear web --json",
    ],
)
@vnodes_argument
@timeout_option
def command(session: Session, vnodes: tuple[str, ...], timeout: float) -> None:
    """Take vnodes out of quarantine."""
    machine = session.machine()
    found = [observe.find(machine, vnode) for vnode in dict.fromkeys(vnodes)]
    client = session.client()
    replies = [client.call("clear", vnode=status.id, timeout=timeout) for status in found]
    report(
        session,
        [{"vnode": r["id"], "name": r["name"], "state": r["state"]} for r in replies],
    )
