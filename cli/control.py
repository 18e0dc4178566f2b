# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands to the daemon about vnodes, and waiting for what they lead to.

All vnodes of a command line are looked up before the first command is sent, so
a wrong name changes nothing.  Waiting watches shared memory: it ends the same
way when the daemon dies meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from adeos import abi
from adeos.abi import StatusState
from adeos.bridge import RootBridge
from cli import observe, output
from cli.errors import CliError, DaemonDown, TimedOut

if TYPE_CHECKING:
    from cli.session import Session

POLL_S = 0.05

UP = frozenset({StatusState.RUNNING, StatusState.HELD})
DOWN = frozenset({StatusState.STOPPED, StatusState.OFFLINE})
DEAD_END = frozenset({StatusState.QUARANTINED, StatusState.HALTED})
"""States that no waiting leaves."""


class Order(NamedTuple):
    """A command for vnodes and what it is to lead to."""

    verb: str
    goal: frozenset[StatusState]
    fresh: bool
    """The goal has to be reached by a new incarnation."""
    plan: Callable[[abi.Status], str]
    """What will be done, for --dry-run."""


def place(status: abi.Status) -> str:
    """A vnode's CPUs and memory in words."""
    cpus = ",".join(map(str, status.cpu[: status.ncpus]))
    memory = f", {output.size(status.region_size)} at {status.region_base:#x}"
    return f"CPU {cpus}{memory if status.region_size else ''}"


def label(status: abi.Status) -> str:
    """A vnode in words: vnode 2 (beta)."""
    return f"vnode {status.id} ({status.name})"


def carry_out(
    session: Session,
    order: Order,
    vnodes: Sequence[str],
    *,
    wait: bool,
    timeout: float,
    dry_run: bool,
    **arguments: Any,
) -> None:
    """Give the order for each vnode, wait if wanted, print what became of them."""
    machine = session.machine()
    before = [observe.find(machine, vnode) for vnode in dict.fromkeys(vnodes)]
    if dry_run:
        report(session, [{"vnode": s.id, "name": s.name, "plan": order.plan(s)} for s in before])
        return
    client = session.client()
    replies = []
    for status in before:
        reply = client.call(order.verb, vnode=status.id, **arguments)
        replies.append({"vnode": status.id, "name": status.name, **_facts(reply)})
    if wait:
        deadline = time.monotonic() + timeout
        for status, reply in zip(before, replies, strict=True):
            reached = wait_for(session, status, order, deadline, timeout)
            reply.update(state=reached.state.name.lower(), incarnation=reached.incarnation)
    report(session, replies)


def _facts(reply: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in reply.items() if key not in ("ok", "id")}


def report(session: Session, items: Sequence[dict[str, Any]]) -> None:
    """What was, or would be, done: JSON, or a line a vnode."""
    if session.json:
        output.write_json(list(items))
        return
    if session.quiet and not any("plan" in item for item in items):
        return
    for item in items:
        words = item.get("plan") or item.get("state") or "accepted"
        output.write(output.one_line(f"vnode {item['vnode']} ({item['name']}): {words}"))


def wait_for(
    session: Session, before: abi.Status, order: Order, deadline: float, timeout: float
) -> abi.Status:
    """The vnode's status once the order's goal is reached.

    TimedOut at the deadline; CliError when it ended where no waiting helps;
    DaemonDown when the daemon died over it.
    """
    machine = session.machine()
    root = RootBridge.open(machine)
    with Progress(session) as progress:
        while True:
            status = root.status(before.id)
            if status is None:
                raise CliError(f"{label(before)} is gone from the daemon's table")
            newer = status.incarnation > before.incarnation
            released = order.goal is not DOWN or machine.query(status.id) is None
            if status.state in order.goal and (newer or not order.fresh) and released:
                return status
            word = status.state.name.lower()
            if status.state in DEAD_END and (newer or status.since_tsc != before.since_tsc):
                raise CliError(
                    f"{label(status)} ended {word}: {status.reason or 'no reason given'}"
                )
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{label(status)} is {word} after {timeout:g} s; see vnode-debug log"
                )
            if not machine.info().owner_pid:
                raise DaemonDown("the daemon died over it; 'vnode-debug up' starts it again")
            progress.show(f"{label(status)} is {word}")
            time.sleep(POLL_S)


class Progress:
    """One line on stderr, redrawn, on a terminal only; gone at the end."""

    def __init__(self, session: Session) -> None:
        self.shown = sys.stderr.isatty() and not session.quiet
        self._begin = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Replace the line; the time since the start is added."""
        if self.shown:
            since = time.monotonic() - self._begin
            line = f"\r{output.one_line(text)}, {since:.1f} s\x1b[K"
            print(line, end="", file=sys.stderr, flush=True)
