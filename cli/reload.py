# SPDX-License-Identifier: GPL-2.0-or-later
"""reload: the daemon reads its config anew; no running vnode is touched."""

from __future__ import annotations

from cli import output
from cli.session import Session
from cli.verb import timeout_option, verb


@verb(
    "reload",
    examples=["vnode-debug config check && vnode-debug reload", "vnode-debug reload --json"],
)
@timeout_option
def command(session: Session, timeout: float) -> None:
    """Have the daemon read its config anew."""
    reply = session.client().call("reload", timeout=timeout)
    groups = {key: reply[key] for key in ("applied", "later", "refused")}
    if session.json:
        output.write_json(groups)
        return
    for line in groups["refused"]:
        output.note(f"not done: {line}")
    lines = [*groups["applied"], *groups["later"]]
    if not session.quiet:
        output.write("\n".join(map(output.clean, lines)) or "nothing has changed")
