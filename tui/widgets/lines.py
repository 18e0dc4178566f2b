# SPDX-License-Identifier: GPL-2.0-or-later
"""Many lines of text, drawn line by line: logs, consoles, reports.

It follows what is added until one scrolls up, and again at the end.  Memory is bounded: of more
than MAX lines the oldest go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.look import Piece, Role
from tui.text import around, matches, safe, wrapped
from tui.widgets.painter import CLASSES, Painter, css

MAX = 20_000
BREAK = Piece("┄┄", Role.DIM)


class Lines(ScrollView, can_focus=True):
    """Pieces, one a line."""

    DEFAULT_CSS = "Lines { height: 1fr; scrollbar-size: 1 1; }" + css("Lines")
    COMPONENT_CLASSES: ClassVar[set[str]] = CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", show=False),
        Binding("j", "scroll_down", show=False),
    ]

    def __init__(self, *, follow: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.following = follow
        self.wrapping = False
        self.pattern = ""
        self.context = 0
        self._all: list[Piece] = []
        self._drawn: list[Piece] = []
        self._widest = 0
        self._painter = Painter(self)

    # What is shown

    def show(self, lines: Sequence[Piece]) -> None:
        """These lines, from now on."""
        if list(lines) != self._all:
            self._all = [Piece(safe(text), role) for text, role in lines[-MAX:]]
            self._arrange()

    def add(self, lines: Iterable[Piece]) -> None:
        """More lines behind those that are there."""
        fresh = [Piece(safe(text), role) for text, role in lines]
        if not fresh:
            return
        self._all += fresh
        if len(self._all) > MAX or self.pattern:
            del self._all[:-MAX]
            self._arrange()
        else:
            self._extend(fresh)
            self._resize()

    def replace_last(self, line: Piece) -> None:
        """Another text for the last line: a console has written more into it."""
        self._all[-1:] = [Piece(safe(line.text), line.role)]
        self._arrange()

    @property
    def texts(self) -> list[str]:
        """What is drawn, a text a line."""
        return [piece.text for piece in self._drawn]

    def line(self) -> str:
        """The line at the top of what is seen."""
        at = round(self.scroll_y)
        return self._drawn[at].text if at < len(self._drawn) else ""

    # What keys do

    def filter(self, pattern: str) -> None:
        """Only lines that hold these words, with `context` lines around each."""
        self.pattern = pattern
        self._arrange()

    def next_context(self) -> int:
        """0, 2 and 5 lines around each hit, in turn."""
        self.context = {0: 2, 2: 5}.get(self.context, 0)
        self._arrange()
        return self.context

    def toggle_wrap(self) -> bool:
        """Wrap long lines, or let them run out of sight."""
        self.wrapping = not self.wrapping
        self.scroll_to(x=0, animate=False, immediate=True)
        self._arrange()
        return self.wrapping

    def toggle_follow(self) -> bool:
        """Stay at the end, or where it is."""
        self.following = not self.following
        self._resize()
        return self.following

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Scrolling up freezes it; at the end it follows again, if it followed at all."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value < self.max_scroll_y:
            self.following = False

    # Drawing

    def _arrange(self) -> None:
        self._drawn, self._widest = [], 0
        self._extend(self._picked() if self.pattern else self._all)
        self._resize()
        self.refresh()

    def _picked(self) -> list[Piece]:
        hits = [matches(self.pattern, piece.text) for piece in self._all]
        picked: list[Piece] = []
        last = -1
        for at in around(hits, self.context):
            if self.context and picked and at != last + 1:
                picked.append(BREAK)
            picked.append(self._all[at])
            last = at
        return picked

    def _extend(self, lines: Iterable[Piece]) -> None:
        width = self.size.width if self.wrapping else 0
        for text, role in lines:
            parts = wrapped(text, width) if width else [text]
            self._drawn += [Piece(part, role) for part in parts]
            self._widest = max(self._widest, cell_len(text))

    def _resize(self) -> None:
        self.virtual_size = Size(0 if self.wrapping else self._widest, len(self._drawn))
        if self.following:
            self.call_after_refresh(self._to_end)
        self.refresh()

    def _to_end(self) -> None:
        if self.following:
            # forced: before its first layout it has no scrollbar, and Textual would not scroll
            self.scroll_end(animate=False, immediate=True, x_axis=False, force=True)

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._painter.renew()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        at = round(self.scroll_y) + y
        if at >= len(self._drawn):
            return self._painter.strip((), width)
        left = round(self.scroll_x)
        return self._painter.strip([self._drawn[at]], left + width).crop(left, left + width)
