# SPDX-License-Identifier: GPL-2.0-or-later
"""One look at the machine, and what the screens say of it: words, marks, levels.

Plain data, no I/O.  A mark says with its shape what a colour says too.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from watchdog.observe import Daemon, Row


class Role(Enum):
    """What a piece of text is; a theme gives each a style."""

    PLAIN = "plain"
    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"
    HELD = "held"
    DIM = "dim"
    TITLE = "title"


class Piece(NamedTuple):
    """A text and its role."""

    text: str
    role: Role = Role.PLAIN


STATES: dict[str, tuple[str, Role]] = {
    "watching": ("●", Role.GOOD),
    "running": ("●", Role.GOOD),
    "loading": ("◐", Role.BUSY),
    "booting": ("◐", Role.BUSY),
    "restarting": ("◐", Role.BUSY),
    "suspect": ("?", Role.BUSY),
    "late": ("?", Role.BUSY),
    "held": ("‖", Role.HELD),
    "crashed": ("✖", Role.BAD),
    "fenced": ("✖", Role.BAD),
    "quarantined": ("⛌", Role.BAD),
    "unwatched": ("✖", Role.BAD),
    "stopped": ("○", Role.DIM),
    "halted": ("○", Role.DIM),
    "offline": ("○", Role.DIM),
}
"""State -> (mark, role); a state that is not here is plain."""
ALIVE = frozenset({"running", "suspect", "held", "booting"})
LAYERS = ("irq", "sched", "user")


class Usage(NamedTuple):
    """How much of its CPUs and memory a kernel uses."""

    cpu: float | None
    """0..1 since the reading before; None at the first."""
    used: int
    total: int
    """Bytes."""


class Vnode(NamedTuple):
    """A vnode at one moment: its row, and who may do what with it."""

    row: Row
    limits: tuple[float, ...] = ()
    """Seconds that a layer may be silent, in the order of LAYERS; 0 when there is none."""
    holder: int = 0
    """The process that controls it, 0 = none."""
    lease: float = 0.0
    """Seconds until that control ends by itself."""
    usage: Usage | None = None


class Look(NamedTuple):
    """All that was seen at one moment."""

    vnodes: tuple[Vnode, ...] = ()
    """By id; without the root."""
    root: Row | None = None
    """None in a vnode, which sees no root, and before a daemon ever ran."""
    late_ticks: int = 0
    wall: float = 0.0
    granted: bool = False
    """This is a vnode, which sees what it was granted."""
    problem: str = ""
    """Why nothing, or not all, could be seen."""

    def vnode(self, number: int) -> Vnode | None:
        return next((one for one in self.vnodes if one.row.id == number), None)

    @property
    def daemon(self) -> str:
        """ "" while it watches, else what is wrong with it."""
        if self.granted:
            return ""
        if self.root is None:
            return "no daemon has run since this machine booted: vnode-debug up"
        age = self.root.state_age_s
        ago = f"{age:.0f} s ago" if age is not None else "long ago"
        if self.root.state == Daemon.DEAD.value:
            return (
                f"the daemon is dead, its last beat was {ago}: states are as it left them, beats "
                "are live; vnode-debug up adopts the vnodes"
            )
        if self.root.state == Daemon.LATE.value:
            return f"the daemon's last beat was {ago}: states may be old, beats are live"
        return ""


def state(row: Row) -> Piece:
    """The state's mark and word."""
    mark, role = STATES.get(row.state, ("·", Role.PLAIN))
    return Piece(f"{mark} {row.state}", role)


def oldest(row: Row, layer: str) -> float | None:
    """Seconds since the last beat of the CPU that is silent for longest; None when one is."""
    ages = [cpu[layer].age_s for cpu in row.beats if layer in cpu]
    known = [age for age in ages if age is not None]
    return max(known) if known and len(known) == len(ages) else None


def level(vnode: Vnode) -> Piece:
    """How near a layer is to its limit: what the detector would see, not what it decided."""
    row = vnode.row
    if row.state not in ALIVE or not row.beats:
        return Piece("-", Role.DIM)
    worst, name = 0.0, ""
    for layer, limit in zip(LAYERS, vnode.limits, strict=False):
        age = oldest(row, layer)
        if limit <= 0 or age is None:
            continue
        if age / limit > worst:
            worst, name = age / limit, layer
    if worst < 0.5:
        return Piece("ok", Role.GOOD)
    if worst < 1:
        return Piece(f"{name} {worst:.0%}", Role.BUSY)
    return Piece(f"{name} over", Role.BAD)


def held_by(vnode: Vnode) -> str:
    """Who controls it, and for how long still."""
    return f"pid {vnode.holder}, {vnode.lease:.0f} s" if vnode.holder else ""
