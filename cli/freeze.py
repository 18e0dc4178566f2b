# SPDX-License-Identifier: GPL-2.0-or-later
"""freeze: makes the image that a vnode is resumed from instead of booting."""

from __future__ import annotations

from cli import observe, output
from cli.control import label, place, report
from cli.images import describe
from cli.session import Session
from cli.verb import dry_run_option, verb, vnode_argument

ANSWER_S = 30.0
"""More than the daemon may take: scripts of freeze.d, the copy, the way back."""


@verb(
    "freeze",
    examples=[
        "vnode-debug freeze 2                   it stands still for a second, then goes on",
        "vnode-debug freeze web && vnode-debug restart web --strategy warm",
    ],
)
@vnode_argument
@dry_run_option
def command(session: Session, vnode: str, dry_run: bool) -> None:
    """Freeze a vnode, keep its image, and let it go on.

    Its user space must have run vnode-ready. What it holds at this moment comes back with every
    restart from the image: docs/warm-restart.md says when that does harm.
    """
    status = observe.find(session.machine(), vnode)
    if dry_run:
        plan = f"is {status.state.name.lower()}; freeze it at {place(status)}, copy what is in use"
        plan += ", resume it there"
        report(session, [{"vnode": status.id, "name": status.name, "plan": plan}])
        return
    found = session.client().call("freeze", vnode=status.id, timeout=ANSWER_S)["images"]
    if session.json:
        output.write_json(found)
    elif not session.quiet:
        for one in found:
            output.write(output.one_line(f"{label(status)}: {describe(one)}"))
