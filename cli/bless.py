# SPDX-License-Identifier: GPL-2.0-or-later
"""bless: an operator's verdict on a slot, before the healthy time has passed or after a failure."""

from __future__ import annotations

import click

from cli import observe, output
from cli.session import Session
from cli.verb import slot_option, verb, vnode_argument


@verb(
    "bless",
    examples=[
        "vnode-debug bless 2                 the image that runs is good",
        "vnode-debug bless 2 --slot a        that one is, and starts next",
        "vnode-debug bless 2 --slot b --bad",
    ],
)
@vnode_argument
@slot_option
@click.option("--bad", is_flag=True, help="Call it bad: the other slot is started next.")
def command(session: Session, vnode: str, slot: str | None, bad: bool) -> None:
    """Call a vnode's slot good, or bad."""
    status = observe.find(session.machine(), vnode)
    reply = session.client().call("bless", vnode=status.id, slot=slot, bad=bad)
    if session.json:
        output.write_reply(reply)
    elif not session.quiet:
        one = next(found for found in reply["slots"] if found["slot"] == reply["slot"])
        words = f"slot {one['slot']} is {one['health']}; {reply['next']} starts next"
        output.write(output.one_line(f"vnode {status.id} ({status.name}): {words}"))
