# SPDX-License-Identifier: GPL-2.0-or-later
"""grant: lets a vnode look at another's kernel, or debug it; its own vnode-debug then knows it."""

from __future__ import annotations

from typing import Any

import click

from cli import observe, output
from cli.control import label
from cli.session import Session
from cli.verb import VNODE, verb, vnode_argument


@verb(
    "grant",
    examples=[
        "vnode-debug grant 2 --to 1             then, in vnode 1: vnode-debug attach 2",
        "vnode-debug grant 2 --to 1 --control   then also: vnode-debug attach --stop 2",
        "vnode-debug grant web --to debugger --json",
    ],
)
@vnode_argument
@click.option("--to", "holder", type=VNODE, required=True, metavar="VNODE", help="Who may look.")
@click.option("--control", is_flag=True, help="It may also stop, step and change it.")
def command(session: Session, vnode: str, holder: str, control: bool) -> None:
    """Let a vnode look at another's kernel."""
    words = "may control" if control else "may look at"
    change(session, "grant", vnode, holder, words, to=holder, control=control)


def change(
    session: Session, verb: str, vnode: str, holder: str, words: str, **arguments: Any
) -> None:
    """Tell the daemon, then the user: what `holder` may do to `vnode` now."""
    machine, client = session.machine(), session.client()
    if vnode != "0" and holder != "0":  # the daemon says best why not
        target, granted = observe.find(machine, vnode), observe.find(machine, holder)
        words = f"{label(granted)} {words} {label(target)}"
    reply = client.call(verb, vnode=vnode, **arguments)
    if session.json:
        output.write_reply(reply)
        return
    if not session.quiet:
        output.write(output.one_line(words))
    if not reply.get("taken"):
        output.note(f"the agent of vnode {holder} has not confirmed it: its kernel may hang")
