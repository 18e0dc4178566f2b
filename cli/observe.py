# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs ask of watchdog.observe, and the vnode that a word on a command line means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adeos.peers import Granted
from cli.errors import NotFound
from watchdog.observe import (
    Daemon,
    Row,
    Sample,
    Snapshot,
    daemon,
    describe,
    slowest,
    statuses,
    take,
)

if TYPE_CHECKING:
    from adeos import abi
    from adeos.machine import Machine

__all__ = [
    "ROOT", "Daemon", "Row", "Sample", "Snapshot", "daemon", "describe", "find",
    "slowest", "statuses", "take",
]  # fmt: skip


ROOT = "0"


def find(machine: Machine, vnode: str) -> abi.Status:
    """The status of a vnode given by id or name; NotFound says which ones there are."""
    if vnode == ROOT:
        raise NotFound(
            "vnode 0 is the root: its successor alone looks at it, with attach, log and drgn"
        )
    seen = statuses(machine)
    for status in seen:
        if vnode in (str(status.id), status.name):
            return status
    names = ", ".join(f"{s.id} ({s.name})" for s in seen)
    if isinstance(machine, Granted):
        raise NotFound(
            f"vnode {vnode} is not granted to this vnode; granted: {names or 'none'}; on the root: "
            f"vnode-debug grant {vnode} --to THIS-VNODE"
        )
    known = names or "none yet, see 'vnode-debug up'"
    raise NotFound(f"there is no vnode {vnode}; vnodes here: {known}")
