# SPDX-License-Identifier: GPL-2.0-or-later
"""The last hour, a point a second: states, beats, debuggers, incidents of every vnode.

Limits: recorded while the dashboard runs; what lies before is only in the incident store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from tui.look import ALIVE, LAYERS, Look, Vnode
from watchdog.observe import slowest

SECONDS = 3600
STEP_S = 1.0


class Mark(NamedTuple):
    """A vnode at a recorded moment."""

    name: str
    state: str
    incarnation: int
    rates: tuple[float | None, ...]
    """Beats a second of the slowest CPU, in the order of LAYERS."""
    holder: int
    incident: int
    """The last one so far."""

    @property
    def health(self) -> str:
        """What is compared between vnodes: its state, or that a layer stands still."""
        if self.state not in ALIVE:
            return self.state
        silent = [layer for layer, rate in zip(LAYERS, self.rates, strict=False) if rate == 0]
        return f"{self.state}, no {silent[0]} beats" if silent else "alive"


class Point(NamedTuple):
    """All vnodes at a recorded moment; `wall` is Unix time."""

    wall: float
    daemon: str
    marks: dict[int, Mark]


class Event(NamedTuple):
    """A change between two points."""

    wall: float
    vnode: int
    text: str


class Recorder:
    """A ring of points."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self.points: deque[Point] = deque(maxlen=int(seconds / STEP_S))

    def add(self, look: Look) -> bool:
        """Records a look, unless it follows the last point too soon."""
        if look.problem:
            return False
        since_last = look.wall - self.points[-1].wall if self.points else STEP_S
        if since_last < 0:
            self.points.clear()  # the clock was set back: one axis has one direction
        elif since_last < STEP_S:
            return False
        marks = {vnode.row.id: _mark(vnode) for vnode in look.vnodes}
        self.points.append(Point(look.wall, look.daemon, marks))
        return True

    def rates(self, vnode: int, layer: int, count: int) -> list[float | None]:
        """The last rates of a layer, oldest first; None where there is no point yet."""
        points = [self.points[-n] for n in range(min(count, len(self.points)), 0, -1)]
        found = [
            point.marks[vnode].rates[layer] if vnode in point.marks else None for point in points
        ]
        return [None] * (count - len(found)) + found


def _mark(vnode: Vnode) -> Mark:
    row = vnode.row
    rates = tuple(slowest(row, layer) for layer in LAYERS)
    return Mark(row.name, row.state, row.incarnation, rates, vnode.holder, row.last_incident)


def events(points: Sequence[Point]) -> list[Event]:
    """What changed from point to point, oldest first."""
    found: list[Event] = []
    for before, now in pairwise(points):
        if before.daemon != now.daemon:
            found.append(Event(now.wall, 0, now.daemon or "the daemon watches"))
        for vnode, mark in now.marks.items():
            was = before.marks.get(vnode)
            if was is not None:
                found += [Event(now.wall, vnode, text) for text in _changes(was, mark)]
    return found


def _changes(was: Mark, now: Mark) -> list[str]:
    texts = []
    if was.state != now.state:
        texts.append(f"{was.state} -> {now.state}")
    if was.incarnation != now.incarnation:
        texts.append(f"incarnation {now.incarnation}")
    if was.holder != now.holder:
        texts.append(f"a debugger took it, pid {now.holder}" if now.holder else "debugger gone")
    if was.incident != now.incident:
        texts.append(f"incident {now.incident}")
    return texts


def divergence(points: Sequence[Point]) -> tuple[int, int] | None:
    """(index, vnode) of the first point where one fares otherwise than the rest did together.

    The vnode is the one that left what they had in common.
    """
    common = ""
    for index, point in enumerate(points):
        healths = {vnode: mark.health for vnode, mark in point.marks.items()}
        if len(set(healths.values())) == 1:
            common = next(iter(healths.values()))
        elif common:
            strays = [vnode for vnode, health in healths.items() if health != common]
            return index, strays[0]
    return None
