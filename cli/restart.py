# SPDX-License-Identifier: GPL-2.0-or-later
"""restart: parks vnodes and starts them anew; no incident, not charged to the budget."""

from adeos import abi
from cli.control import UP, Order, carry_out, place
from cli.session import Session
from cli.verb import (
    dry_run_option,
    force_option,
    timeout_option,
    verb,
    vnodes_argument,
    wait_option,
)


def plan(status: abi.Status) -> str:
    """What restart does to a vnode."""
    word = status.state.name.lower()
    return f"is {word}; park {place(status)}, load its kernel and start it; its memory is lost"


ORDER = Order("restart", goal=UP, fresh=True, plan=plan)


@verb(
    "restart",
    examples=[
        "vnode-debug restart 2 --wait",
        "vnode-debug restart web --dry-run",
    ],
)
@vnodes_argument
@wait_option
@timeout_option
@dry_run_option
@force_option
def command(
    session: Session,
    vnodes: tuple[str, ...],
    wait: bool,
    timeout: float,
    dry_run: bool,
    force: bool,
) -> None:
    """Restart vnodes."""
    carry_out(session, ORDER, vnodes, wait=wait, timeout=timeout, dry_run=dry_run, force=force)
