# SPDX-License-Identifier: GPL-2.0-or-later
"""stage: reads an image into a vnode's other slot; its next start is from there."""

from __future__ import annotations

import click

from cli import observe, output
from cli.session import Session
from cli.verb import slot_option, timeout_option, verb, vnode_argument


@verb(
    "stage",
    examples=[
        "vnode-debug stage 2 --kernel /boot/vmlinuz-6.1.0-57-cloud-amd64 && vnode-debug restart 2",
        "vnode-debug stage web                       the config's files, as they are now",
        "vnode-debug stage 2 --cmdline 'quiet nosmt'",
    ],
)
@vnode_argument
@click.option("--kernel", metavar="FILE", help="Instead of the config's.")
@click.option("--initrd", metavar="FILE", help="Instead of the config's.")
@click.option("--cmdline", metavar="TEXT", help="Instead of the config's.")
@slot_option
@timeout_option
def command(
    session: Session,
    vnode: str,
    kernel: str | None,
    initrd: str | None,
    cmdline: str | None,
    slot: str | None,
    timeout: float,
) -> None:
    """Stage an image for a vnode's next start."""
    status = observe.find(session.machine(), vnode)
    wish = {"kernel": _absolute(kernel), "initrd": _absolute(initrd), "cmdline": cmdline}
    reply = session.client().call("stage", vnode=status.id, slot=slot, timeout=timeout, **wish)
    if session.json:
        output.write_reply(reply)
    elif not session.quiet:
        one = next(found for found in reply["slots"] if found["slot"] == reply["slot"])
        what = f"{one['kernel']} ({one['kernel_sha256'][:12]}), {one['tries']} tries"
        output.write(
            output.one_line(f"vnode {status.id} ({status.name}): slot {one['slot']}: {what}")
        )


def _absolute(name: str | None) -> str | None:
    from pathlib import Path

    return str(Path(name).absolute()) if name else name
