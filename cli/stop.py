# SPDX-License-Identifier: GPL-2.0-or-later
"""stop: parks vnodes' CPUs and takes CPUs and memory back; the kernel is not asked."""

from adeos import abi
from cli.control import DOWN, Order, carry_out, place
from cli.session import Session
from cli.verb import dry_run_option, timeout_option, verb, vnodes_argument, wait_option


def plan(status: abi.Status) -> str:
    """What stop does to a vnode."""
    word = status.state.name.lower()
    return f"is {word}; park {place(status)}, then take both back; its memory is lost"


ORDER = Order("stop", goal=DOWN, fresh=False, plan=plan)


@verb(
    "stop",
    examples=[
        "vnode-debug stop 2 --dry-run       what would be done",
        "vnode-debug stop 2 --wait",
    ],
)
@vnodes_argument
@wait_option
@timeout_option
@dry_run_option
def command(
    session: Session, vnodes: tuple[str, ...], wait: bool, timeout: float, dry_run: bool
) -> None:
    """Stop vnodes."""
    carry_out(session, ORDER, vnodes, wait=wait, timeout=timeout, dry_run=dry_run)
