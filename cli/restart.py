# SPDX-License-Identifier: GPL-2.0-or-later
"""restart: parks vnodes and starts them anew; no incident, not charged to the budget."""

from __future__ import annotations

from typing import Any

import click

from adeos import abi
from cli import observe, output
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
from kexec_restart import strategies


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
        "vnode-debug restart web --dry-run                    and what a crash of it would lead to",
        "vnode-debug restart web --dry-run --strategy kmb",
        "vnode-debug restart 2 --strategy standby --wait       resume what stands by",
        "vnode-debug restart 2 --strategy cold                 boot it, whatever its config says",
    ],
)
@vnodes_argument
@click.option(
    "--strategy",
    type=click.Choice((*WAYS, *strategies.NAMES)),
    help="How; default: as its config says.  kmb, spare, fire, manual: with --dry-run.",
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
    if dry_run:
        explain(session, vnodes, strategy)
        return
    if strategy is not None and strategy not in WAYS:
        raise click.UsageError(f"--strategy {strategy} is for --dry-run: how it boots is chosen")
    how = {} if strategy is None else {"strategy": strategy}
    carry_out(
        session,
        order(strategy),
        vnodes,
        wait=wait,
        timeout=timeout,
        dry_run=False,
        force=force,
        **how,
    )


def explain(session: Session, vnodes: tuple[str, ...], strategy: str | None) -> None:
    """Print what restart does, and the steps that the daemon takes after a crash."""
    found = [observe.find(session.machine(), vnode) for vnode in dict.fromkeys(vnodes)]
    items = [
        {"vnode": one.id, "name": one.name, "plan": plan(one), **steps(session, one, strategy)}
        for one in found
    ]
    if session.json:
        output.write_json(items)
        return
    for item in items:
        output.write(output.one_line(f"vnode {item['vnode']} ({item['name']}): {item['plan']}"))
        if "strategy" in item:
            rows = [(f"  {one['step']}", one["does"]) for one in item["steps"]]
            width = max(len(row[0]) for row in rows)
            output.write(f"After a crash, strategy {item['strategy']}:")
            output.write("\n".join(output.clean(f"{a:<{width}}  {b}") for a, b in rows))


def steps(session: Session, status: abi.Status, strategy: str | None) -> dict[str, Any]:
    """The daemon's steps; nothing where it cannot tell (dead, or the vnode has no memory)."""
    from watchdog.errors import NoDaemonError

    wish: dict[str, Any] = {} if strategy is None else {"strategy": strategy}
    if not status.region_size and strategy is None:
        return {}
    try:
        reply = session.client().call("restart", vnode=status.id, dry_run=True, **wish)
    except NoDaemonError:
        if strategy is not None:
            raise
        return {}
    return {"strategy": reply["strategy"], "steps": reply["steps"]}
