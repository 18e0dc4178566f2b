# SPDX-License-Identifier: GPL-2.0-or-later
"""restart: parks vnodes and starts them anew; no incident, not charged to the budget."""

import click

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
    how = "load its kernel and start it"
    if status.image_tsc or status.standby_tsc:
        how = "bring it up by the strategy of its config"
    return f"is {word}; park {place(status)}, {how}; its memory is lost"


ORDER = Order("restart", goal=UP, fresh=True, plan=plan)

WAYS = {
    "cold": "park {} and boot its kernel; its memory is lost",
    "warm": "park {}, copy its image back and resume it; its memory is lost",
    "standby": "park {} and resume the kernel that stands by; its memory is lost",
}


def order(strategy: str | None) -> Order:
    """The order for a strategy, None = the config's."""
    if strategy is None:
        return ORDER
    words = WAYS[strategy]
    return ORDER._replace(
        plan=lambda status: f"is {status.state.name.lower()}; {words.format(place(status))}"
    )


@verb(
    "restart",
    examples=[
        "vnode-debug restart 2 --wait",
        "vnode-debug restart web --dry-run",
        "vnode-debug restart 2 --strategy standby --wait       resume what stands by",
        "vnode-debug restart 2 --strategy cold                 boot it, whatever its config says",
    ],
)
@vnodes_argument
@click.option(
    "--strategy", type=click.Choice(tuple(WAYS)), help="How; default: as its config says."
)
@wait_option
@timeout_option
@dry_run_option
@force_option
def command(
    session: Session,
    vnodes: tuple[str, ...],
    strategy: str | None,
    wait: bool,
    timeout: float,
    dry_run: bool,
    force: bool,
) -> None:
    """Restart vnodes."""
    how = {} if strategy is None else {"strategy": strategy}
    carry_out(
        session,
        order(strategy),
        vnodes,
        wait=wait,
        timeout=timeout,
        dry_run=dry_run,
        force=force,
        **how,
    )
