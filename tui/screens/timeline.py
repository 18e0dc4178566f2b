# SPDX-License-Identifier: GPL-2.0-or-later
"""One time axis over all kernels: beats, states, debuggers, incidents, log lines of the last hour.

The recorded ring is scrubbed; below stands what was at the moment under the cursor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from tui import keys
from tui.look import LAYERS, STATES, Look, Piece, Role
from tui.off_loop import off_loop, start
from tui.recorder import Mark, Point, divergence, events
from tui.screens.board import Board
from tui.text import since
from tui.widgets.lanes import Cell, Lanes, cell
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from introspect.printk import LogRecord

ZOOMS = (1, 2, 5, 15, 60)
"""Seconds a column."""
LOGS_S = 3.0
SEVERE = 4
"""Warnings and worse have a mark on the axis."""
LOG_LINES = 400
"""Kept of each vnode's log."""


class Timeline(Board):
    """It follows the present until it is scrubbed back."""

    AUTO_FOCUS = "Lanes"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("timeline")
    DEFAULT_CSS = """
    Timeline > Lanes { max-height: 60%; }
    Timeline > Lines { border-top: solid $panel; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._zoom = 0
        self._at: float | None = None
        """The moment under the cursor, Unix time; None follows the present."""
        self._logs: dict[int, list[tuple[float, LogRecord]]] = {}

    def body(self) -> ComposeResult:
        yield Lanes()
        yield Lines()

    def on_mount(self) -> None:
        start(self, self._read_logs, "logs")

    def title_line(self) -> str:
        return f"timeline, {ZOOMS[self._zoom]} s a column"

    def show(self, look: Look) -> None:
        super().show(look)
        self._draw()

    async def _read_logs(self) -> None:
        """Log lines with the Unix time they were written at; a vnode that has none is left out."""
        client = self.dashboard.client
        while True:
            for vnode in self.dashboard.look.vnodes:
                up = vnode.row.uptime_s
                if up is None:
                    continue
                born = self.dashboard.look.wall - up
                try:
                    records = await off_loop(lambda n=vnode.row.id: client.kernels.log(n))  # type: ignore[misc]
                except Exception:
                    continue  # no kernel there, or none yet
                recent = records[-LOG_LINES:]
                self._logs[vnode.row.id] = [(born + one.ts_ns / 1e9, one) for one in recent]
            await asyncio.sleep(LOGS_S)

    # Drawing

    def _draw(self) -> None:
        points = list(self.dashboard.recorder.points)
        lanes = self.query_one(Lanes)
        if not points:
            return
        step, columns = ZOOMS[self._zoom], lanes.room
        at = self._at if self._at is not None else points[-1].wall
        # the cursor stands at the right edge while it follows, else in the middle
        end = points[-1].wall if self._at is None else min(at + step * columns / 2, points[-1].wall)
        begin = end - step * columns
        spans = _spans(points, begin, step, columns)
        picked = max(0, min(int((at - begin) / step), columns - 1))
        vnodes = sorted({number for point in points for number in point.marks})
        names = {number: mark.name for point in points for number, mark in point.marks.items()}
        drawn = [(f"{n} {names[n]}", self._lane(spans, n, begin, step)) for n in vnodes]
        axis = f"{_clock(begin)} … {_clock(at)} … {_clock(end)}"
        lanes.show(drawn, axis, picked)
        self.query_one(Lines).show(list(self._moment(points, at, step)))

    def _lane(self, spans: list[list[Point]], vnode: int, begin: float, step: int) -> list[Cell]:
        rates = [
            rate
            for span in spans
            for point in span
            if vnode in point.marks and (rate := point.marks[vnode].rates[0]) is not None
        ]
        top = max(rates, default=0.0)
        cells: list[Cell] = []
        before: Mark | None = None
        for span in spans:
            cells.append(cell(span, before, vnode, top))
            before = next((p.marks[vnode] for p in reversed(span) if vnode in p.marks), before)
        for wall, record in self._logs.get(vnode, ()):
            column = int((wall - begin) / step)
            if record.level <= SEVERE and 0 <= column < len(cells) and cells[column].char in BEATS:
                cells[column] = Cell("╷", Role.BUSY)
        return cells

    def _moment(self, points: list[Point], at: float, step: int) -> Iterator[Piece]:
        point = min(points, key=lambda one: abs(one.wall - at))
        ago = points[-1].wall - point.wall
        yield Piece(f"{_clock(point.wall)}, {since(ago)} ago  {point.daemon}", Role.TITLE)
        for number, mark in sorted(point.marks.items()):
            sign, role = STATES.get(mark.state, ("·", Role.PLAIN))
            rates = "/".join("?" if rate is None else f"{rate:.0f}" for rate in mark.rates)
            held = f"  held by pid {mark.holder}" if mark.holder else ""
            yield Piece(
                f"  {number:>2} {mark.name:12} {sign} {mark.state:12} incarnation "
                f"{mark.incarnation:<4} {'/'.join(LAYERS)} {rates}{held}",
                role,
            )
        around = [event for event in events(points) if abs(event.wall - at) <= max(step, 5)]
        for event in around:
            yield Piece(f"  {_clock(event.wall)} vnode {event.vnode}: {event.text}", Role.BUSY)
        yield from self._log_lines(at, step)

    def _log_lines(self, at: float, step: int) -> Iterator[Piece]:
        from introspect.printk import lines

        near = [
            (wall, vnode, record)
            for vnode, kept in self._logs.items()
            for wall, record in kept
            if abs(wall - at) <= max(step, 2)
        ]
        for _, vnode, record in sorted(near, key=lambda one: one[:2]):
            role = Role.BAD if record.level <= SEVERE else Role.PLAIN
            yield from (Piece(f"  {vnode:>2} {line}", role) for line in lines(record))

    # Keys

    def action_scrub(self, by: int) -> None:
        """So many columns back or forward; past the last point it follows again."""
        points = self.dashboard.recorder.points
        if not points:
            return
        now = points[-1].wall
        at = (self._at if self._at is not None else now) + by * ZOOMS[self._zoom]
        self._at = None if at >= now else max(at, points[0].wall)
        self._draw()

    def action_now(self) -> None:
        """Follow the present."""
        self._at = None
        self._draw()

    def action_zoom(self, by: int) -> None:
        """More or fewer seconds a column."""
        self._zoom = max(0, min(self._zoom + by, len(ZOOMS) - 1))
        self.show(self.dashboard.look)

    def action_divergence(self) -> None:
        """To the first moment at which one vnode fared otherwise than the rest."""
        points = list(self.dashboard.recorder.points)
        found = divergence(points)
        if found is None:
            self.dashboard.say("no vnode has fared otherwise than the rest")
            return
        index, vnode = found
        self._at = points[index].wall
        self.dashboard.say(f"vnode {vnode}: {points[index].marks[vnode].health}")
        self._draw()

    def on_lanes_picked(self, event: Lanes.Picked) -> None:
        """A click: that moment."""
        self.action_scrub(event.column - self.query_one(Lanes).picked)


BEATS = " ·▁▂▃▄▅▆▇█"


def _spans(points: list[Point], begin: float, step: int, columns: int) -> list[list[Point]]:
    """The points of each column."""
    spans: list[list[Point]] = [[] for _ in range(columns)]
    for point in points:
        column = int((point.wall - begin) // step)
        if point.wall >= begin:
            spans[min(column, columns - 1)].append(point)
    return spans


def _clock(wall: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall))
