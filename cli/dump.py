# SPDX-License-Identifier: GPL-2.0-or-later
"""dump: asks the daemon to write a vnode's memory as a vmcore, and shows how far it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli import observe, output
from cli.control import Progress, label, place, report
from cli.errors import CliError, TimedOut
from cli.session import Session
from cli.store import as_dict
from cli.verb import dry_run_option, timeout_option, verb, vnode_argument, wait_option

if TYPE_CHECKING:
    from crashdump.incident import Incident

POLL_S = 0.2


@verb(
    "dump",
    examples=[
        "vnode-debug dump 2 --wait          prints the vmcore's path",
        "vnode-debug dump 2 --wait --json | jq -r '.[0].dump.path'",
        "vnode-debug dump 2 --dry-run",
    ],
)
@vnode_argument
@wait_option
@timeout_option
@dry_run_option
def command(session: Session, vnode: str, wait: bool, timeout: float, dry_run: bool) -> None:
    """Write a vnode's memory as a vmcore."""
    status = observe.find(session.machine(), vnode)
    item = {"vnode": status.id, "name": status.name}
    if dry_run:
        plan = f"is {status.state.name.lower()}; write {place(status)} as a vmcore, without a stop"
        report(session, [{**item, "plan": plan}])
        return
    reply = session.client().call("dump", vnode=status.id, timeout=timeout)
    number = int(reply["incident"])
    if not wait:
        report(
            session, [{**item, "incident": number, "state": f"incident {number}, being written"}]
        )
        return
    done = wait_for_dump(session, number, time.monotonic() + timeout, label(status))
    if session.json:
        output.write_json([as_dict(session, done)])
    else:
        output.write(output.clean(done.dump.path))


def wait_for_dump(session: Session, number: int, deadline: float, what: str) -> Incident:
    """The incident once its dump is written; CliError when it will not be."""
    from crashdump.incident import PENDING, DumpState

    with Progress(session) as progress:
        while True:
            one = session.store().get(number)
            if one.dump.state is DumpState.DONE:
                return one
            if one.dump.state not in PENDING and one.dump.state is not DumpState.NONE:
                raise CliError(f"{what}: the dump is {one.dump.state}: {one.dump.reason}")
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{what}: the dump is {one.dump.state}; see vnode-debug show {number}"
                )
            size = f", {output.size(one.dump.stored)} so far" if one.dump.stored else ""
            progress.show(f"dump of {what} is {one.dump.state}{size}")
            time.sleep(POLL_S)
