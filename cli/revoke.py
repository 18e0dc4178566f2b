# SPDX-License-Identifier: GPL-2.0-or-later
"""revoke: takes a grant back; what was mapped of the vnode's memory is gone at once."""

from __future__ import annotations

import click

from cli.grant import change
from cli.session import Session
from cli.verb import VNODE, verb, vnode_argument


@verb(
    "revoke",
    examples=[
        "vnode-debug revoke 2 --from 1",
    ],
)
@vnode_argument
@click.option(
    "--from", "holder", type=VNODE, required=True, metavar="VNODE", help="Who may look no more."
)
def command(session: Session, vnode: str, holder: str) -> None:
    """Take a grant back."""
    change(session, "revoke", vnode, holder, "may no longer look at", **{"from": holder})
