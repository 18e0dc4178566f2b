# SPDX-License-Identifier: GPL-2.0-or-later
"""A lane a vnode over one time axis: beats as blocks, states as colours, marks for changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.look import STATES, Piece, Role
from tui.recorder import Mark, Point
from tui.text import BLOCKS, fit, safe
from tui.widgets.painter import CLASSES, Painter, css

NAME = 14
"""Cells of a lane's name."""
WORST = (Role.BAD, Role.HELD, Role.BUSY, Role.DIM, Role.GOOD, Role.PLAIN)


class Cell(NamedTuple):
    """What a lane shows of one span of time."""

    char: str
    role: Role


class Lanes(Widget, can_focus=True):
    """Time runs to the right; `picked` is the column under the cursor."""

    DEFAULT_CSS = "Lanes { height: auto; }" + css("Lanes")
    COMPONENT_CLASSES: ClassVar[set[str]] = CLASSES

    class Picked(Message):
        """A column was clicked."""

        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.picked = 0
        self._lanes: list[tuple[str, list[Cell]]] = []
        self._axis = ""
        self._painter = Painter(self)

    @property
    def room(self) -> int:
        """Columns of time."""
        return max(self.size.width - NAME, 1)

    def show(self, lanes: list[tuple[str, list[Cell]]], axis: str, picked: int) -> None:
        """These lanes, with the axis' text above them."""
        if (lanes, axis, picked) == (self._lanes, self._axis, self.picked):
            return
        resized = len(lanes) != len(self._lanes)
        self._lanes, self._axis, self.picked = lanes, axis, picked
        self.refresh(layout=resized)

    def get_content_height(self, container: Any, viewport: Any, width: int) -> int:
        return len(self._lanes) + 1

    def on_click(self, event: events.Click) -> None:
        if event.x >= NAME:
            self.post_message(self.Picked(event.x - NAME))

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._painter.renew()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            axis = fit(self._axis, width - NAME)
            return self._painter.strip([Piece(" " * NAME), Piece(axis)], width, "head")
        if y > len(self._lanes):
            return self._painter.strip((), width)
        name, cells = self._lanes[y - 1]
        strips = [self._painter.strip([Piece(fit(safe(name), NAME), Role.TITLE)], NAME)]
        for column, cell in enumerate(cells):
            over = "cursor" if column == self.picked else ""
            strips.append(self._painter.strip([Piece(*cell)], 1, over))
        return Strip.join(strips).adjust_cell_length(width)


def cell(span: Sequence[Point], before: Mark | None, vnode: int, top: float) -> Cell:
    """A vnode in a span of time: its worst state, its fewest beats, a mark when something changed
    since it was `before`.

    `!` an incident, `g` a debugger, `+` a new incarnation.
    """
    marks = [point.marks[vnode] for point in span if vnode in point.marks]
    if not marks:
        return Cell(" ", Role.DIM)
    roles = [STATES.get(mark.state, ("", Role.PLAIN))[1] for mark in marks]
    role = min(roles, key=WORST.index)
    first, last = before or marks[0], marks[-1]
    if last.incident != first.incident:
        return Cell("!", Role.BAD)
    if any(mark.holder for mark in marks):
        return Cell("g", Role.HELD)
    if last.incarnation != first.incarnation:
        return Cell("+", Role.BUSY)
    return Cell(_height(marks, top), role)


def _height(marks: Sequence[Mark], top: float) -> str:
    rates = [mark.rates[0] for mark in marks]
    known = [rate for rate in rates if rate is not None]
    if not known:
        return "·"
    return BLOCKS[1 + min(int(min(known) / top * 7.999), 7)] if top > 0 else BLOCKS[1]
