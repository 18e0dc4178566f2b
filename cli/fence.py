# SPDX-License-Identifier: GPL-2.0-or-later
"""fence: parks vnodes' CPUs and keeps their memory as it is, to be looked at."""

from adeos import abi
from adeos.abi import StatusState
from cli.control import Order, carry_out, place
from cli.session import Session
from cli.verb import dry_run_option, timeout_option, verb, vnodes_argument


def plan(status: abi.Status) -> str:
    """What fence does to a vnode."""
    word = status.state.name.lower()
    return f"is {word}; park {place(status)}; both stay with it, its kernel runs no more"


ORDER = Order("fence", goal=frozenset({StatusState.FENCED}), fresh=False, plan=plan)


@verb(
    "fence",
    examples=[
        "vnode-debug fence 2 && vnode-debug attach 2       its kernel as it stood",
        "vnode-debug fence 2 --dry-run                     what would be done",
    ],
)
@vnodes_argument
@timeout_option
@dry_run_option
def command(session: Session, vnodes: tuple[str, ...], timeout: float, dry_run: bool) -> None:
    """Park vnodes' CPUs for good and keep their memory."""
    carry_out(session, ORDER, vnodes, wait=True, timeout=timeout, dry_run=dry_run)
