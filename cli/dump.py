# SPDX-License-Identifier: GPL-2.0-or-later
"""dump: has the daemon write a vnode's memory as a vmcore, and shows how far it is.

It returns when the vmcore is complete.  Interrupted or timed out, the daemon
goes on with it: "vnode-debug incidents" shows its end.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import click

from cli import observe, output
from cli.control import Progress, label, place, report
from cli.errors import CliError
from cli.session import Session
from cli.store import as_dict, whole_path
from cli.verb import SecondsParam, dry_run_option, verb, vnode_argument

POLL_S = 0.2


@verb(
    "dump",
    examples=[
        "vnode-debug dump 2                 prints the vmcore's path",
        "vnode-debug dump 2 --json | jq -r '.[0].incident'",
        "vnode-debug dump 2 --dry-run",
    ],
)
@vnode_argument
@click.option(
    "--timeout",
    type=SecondsParam(0.1, 86400),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up waiting after this long (exit code 7).",
)
@dry_run_option
def command(session: Session, vnode: str, timeout: float, dry_run: bool) -> None:
    """Write a vnode's memory as a vmcore."""
    status = observe.find(session.machine(), vnode)
    if dry_run:
        plan = f"is {status.state.name.lower()}; write {place(status)} as a vmcore, without a stop"
        report(session, [{"vnode": status.id, "name": status.name, "plan": plan}])
        return
    reply = ask(session, status.id, timeout, label(status))
    record = session.store().get(int(reply["incident"]))
    if str(record.dump.state) != "done":
        raise CliError(f"{label(status)}: the dump is {record.dump.state}: {record.dump.reason}")
    if session.json:
        output.write_json([as_dict(session, record)])
        return
    output.write(output.clean(str(whole_path(session, record))))
    if reply.get("inconsistent") and not session.quiet:
        output.note("the vnode was running: the dump's pages are of different moments")


def ask(session: Session, vnode: int, timeout: float, what: str) -> dict[str, Any]:
    """The daemon's reply, which comes at the end; meanwhile the growing file is shown."""
    client, begin = session.client(), time.time()
    replies: list[dict[str, Any] | Exception] = []

    def call() -> None:
        try:
            replies.append(client.call("dump", vnode=vnode, timeout=timeout))
        except Exception as error:  # raised again by the waiting thread
            replies.append(error)

    worker = threading.Thread(target=call, daemon=True)
    worker.start()
    with Progress(session) as progress:
        while worker.is_alive():
            if progress.shown:
                progress.show(f"dump of {what}: {written(session, vnode, begin)}")
            worker.join(POLL_S)
    if isinstance(replies[0], Exception):
        raise replies[0]
    return replies[0]


def written(session: Session, vnode: int, since: float) -> str:
    """How much of a dump begun then is on the disk, in words."""
    for one in session.store().list(vnode=vnode, since=since, limit=1, reverse=True):
        directory: Path = session.store().path(one.id)
        # Blocks, not the size: a dump is sparse.
        blocks = [f.stat().st_blocks for f in directory.glob("vmcore*") if f.is_file()]
        return output.size(max(blocks, default=0) * 512)
    return "asked"
