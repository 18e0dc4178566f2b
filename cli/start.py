# SPDX-License-Identifier: GPL-2.0-or-later
"""start: starts vnodes from their configured kernel."""

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
    """What start does to a vnode."""
    word = status.state.name.lower()
    return f"is {word}; load its kernel and start {place(status)}"


ORDER = Order("start", goal=UP, fresh=True, plan=plan)


@verb(
    "start",
    examples=[
        "vnode-debug start 2 --wait",
        "vnode-debug start web db --wait --timeout 120",
        "vnode-debug start 2 --force        out of quarantine",
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
    """Start vnodes."""
    carry_out(session, ORDER, vnodes, wait=wait, timeout=timeout, dry_run=dry_run, force=force)
