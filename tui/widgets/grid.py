# SPDX-License-Identifier: GPL-2.0-or-later
"""A table of rows with a key, drawn line by line: only lines that changed are drawn again.

Textual's DataTable lays out every cell and takes 50 ms for 192 of them; here a look at 256 rows
costs a comparison a row, and drawing for those that are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.look import Piece, Role
from tui.text import fit, matches, safe
from tui.widgets.painter import CLASSES, Painter, css

GAP = "  "
MARK = "▪ "


class Column(NamedTuple):
    """A column; one of a higher `rank` goes first where room is short."""

    key: str
    title: str
    width: int
    right: bool = False
    rank: int = 0
    grows: bool = False
    """It takes what room is left."""


class Row:
    """A row: its key, a piece a column, and what each column sorts by.

    Pieces may be given as a function, which is called when the row is seen or filtered; `sort` may
    be one that takes the column's key.
    """

    __slots__ = ("_pieces", "_sort", "key")

    def __init__(
        self,
        key: str,
        pieces: tuple[Piece, ...] | Callable[[], tuple[Piece, ...]],
        sort: Mapping[str, Any] | Callable[[str], Any] = MappingProxyType({}),
    ) -> None:
        self.key = key
        self._pieces = pieces
        self._sort = sort

    @property
    def pieces(self) -> tuple[Piece, ...]:
        if callable(self._pieces):
            self._pieces = self._pieces()
        return self._pieces

    def sorts(self, column: str) -> Any:
        """What it is ordered by in a column."""
        return self._sort(column) if callable(self._sort) else self._sort[column]

    def text(self) -> str:
        """All of it, for filters."""
        return " ".join(piece.text for piece in self.pieces)


class Grid(ScrollView, can_focus=True):
    """Rows under headings, with a cursor, marks, a filter and an order."""

    DEFAULT_CSS = "Grid { height: 1fr; scrollbar-size: 1 1; overflow-x: hidden; }" + css("Grid")
    COMPONENT_CLASSES: ClassVar[set[str]] = CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor(-1)", show=False),
        Binding("down,j", "cursor(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "edge(0)", show=False),
        Binding("end", "edge(-1)", show=False),
    ]

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, grid: Grid, key: str) -> None:
            super().__init__()
            self.grid, self.key = grid, key

    class Opened(Message):
        """A row was clicked twice."""

        def __init__(self, grid: Grid, key: str) -> None:
            super().__init__()
            self.grid, self.key = grid, key

    def __init__(self, columns: Sequence[Column], *, sorted_by: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.columns = tuple(columns)
        self.order = sorted_by
        self.reversed = False
        self.pattern = ""
        self.marks: set[str] = set()
        self.cursor = 0
        self._all: dict[str, Row] = {}
        self._rows: list[Row] = []
        self._fitting: list[tuple[int, Column, int]] = []
        self._strips: dict[str, tuple[Any, Strip]] = {}
        self._painter = Painter(self)

    # Rows

    def show(self, rows: Sequence[Row]) -> None:
        """These rows, from now on; what did not change is not drawn again."""
        self._all = {row.key: row for row in rows}
        self.marks &= self._all.keys()
        self._arrange()

    def _arrange(self) -> None:
        key = self.cursor_key
        before = self._rows
        rows = [*self._all.values()]
        if self.pattern:
            rows = [row for row in rows if matches(self.pattern, row.text())]
        if self.order:
            rows.sort(key=lambda row: row.sorts(self.order), reverse=self.reversed)
        elif self.reversed:
            rows.reverse()
        self._rows = rows
        if len(rows) != len(before):
            self.virtual_size = Size(self.size.width, len(rows) + 1)
        self._redraw(before)
        found = next((i for i, row in enumerate(rows) if row.key == key), self.cursor)
        self._move(min(found, max(len(rows) - 1, 0)), follow=found != self.cursor)

    def _redraw(self, before: list[Row]) -> None:
        """Marks the lines in sight that changed as dirty."""
        top = round(self.scroll_y)
        for y in range(1, self.size.height):
            at = top + y - 1
            old = before[at] if at < len(before) else None
            new = self._rows[at] if at < len(self._rows) else None
            if self._seen(old) != self._seen(new):
                self._dirty(y)

    def _seen(self, row: Row | None) -> list[Piece] | None:
        """What a row shows in the columns that there is room for."""
        return None if row is None else [row.pieces[place] for place, _, _ in self._fitting]

    def _dirty(self, y: int) -> None:
        self.refresh(Region(0, y, self.size.width, 1))

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that pass the filter, in order."""
        return self._rows

    @property
    def cursor_key(self) -> str:
        """The key of the row under the cursor, "" when there is none."""
        return self._rows[self.cursor].key if self.cursor < len(self._rows) else ""

    @property
    def chosen(self) -> list[str]:
        """The keys of the marked rows in order, else of the one under the cursor."""
        marked = [row.key for row in self._rows if row.key in self.marks]
        return marked or [key for key in [self.cursor_key] if key]

    def line(self) -> str:
        """The row under the cursor as text."""
        return self._rows[self.cursor].text() if self.cursor < len(self._rows) else ""

    # What keys do

    def filter(self, pattern: str) -> None:
        """Only rows that hold these words; with ! before them, that do not."""
        self.pattern = pattern
        self._arrange()

    def sort_next(self) -> None:
        """Sort by the column after the one it is sorted by; after the last, as given."""
        keys = ["", *(column.key for _, column, _ in self._fitting)]
        now = keys.index(self.order) if self.order in keys else 0
        self.sort_by(keys[(now + 1) % len(keys)])

    def sort_by(self, key: str) -> None:
        """Sort by a column; by the same one again: the other way round."""
        self.reversed = key == self.order and not self.reversed
        self.order = key
        self._dirty(0)
        self._arrange()

    def reverse(self) -> None:
        """The other way round."""
        self.reversed = not self.reversed
        self._dirty(0)
        self._arrange()

    def mark(self) -> None:
        """Mark the row under the cursor, or no more, and go on to the next."""
        if self.cursor_key:
            self.marks ^= {self.cursor_key}
            self._dirty(self.cursor - round(self.scroll_y) + 1)
            self.action_cursor(1)

    def mark_all(self) -> None:
        """Mark all rows in the list; when all are, none."""
        keys = {row.key for row in self._rows}
        self.marks = set() if keys <= self.marks else keys
        self.refresh()

    def action_cursor(self, by: int) -> None:
        self._move(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._move(self.cursor + by * max(self.size.height - 2, 1))

    def action_edge(self, end: int) -> None:
        self._move(0 if end == 0 else len(self._rows) - 1)

    def _move(self, to: int, *, follow: bool = True) -> None:
        to = max(0, min(to, len(self._rows) - 1))
        top = round(self.scroll_y)
        changed = to != self.cursor
        if changed:
            self._dirty(self.cursor - top + 1)
            self._dirty(to - top + 1)
            self.cursor = to
        seen = max(self.size.height - 1, 1)
        if follow and not top <= to < top + seen:
            self.scroll_to(y=to if to < top else to - seen + 1, animate=False, immediate=True)
        if changed or not follow:
            self.post_message(self.Moved(self, self.cursor_key))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self._click_head(event.x)
            return
        at = round(self.scroll_y) + event.y - 1
        if at < len(self._rows):
            self._move(at)
            if event.chain == 2:
                self.post_message(self.Opened(self, self.cursor_key))

    def _click_head(self, x: int) -> None:
        left = len(MARK)
        for _, column, width in self._fitting:
            if left <= x < left + width:
                self.sort_by(column.key)
            left += width + len(GAP)

    # Drawing

    def on_resize(self, event: events.Resize) -> None:
        self._fitting = fitting(self.columns, event.size.width - len(MARK))
        self.virtual_size = Size(event.size.width, len(self._rows) + 1)
        self._strips.clear()
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._painter.renew()
        self._strips.clear()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._head(width)
        at = round(self.scroll_y) + y - 1
        if at >= len(self._rows):
            return self._painter.strip((), width)
        row = self._rows[at]
        over = "cursor" if at == self.cursor else "marked" if row.key in self.marks else ""
        state = (row.pieces, over, row.key in self.marks, width)
        known = self._strips.get(row.key)
        if known is not None and known[0] == state:
            return known[1]
        if len(self._strips) > 4 * len(self._rows) + 256:
            self._strips.clear()
        strip = self._painter.strip(self._cells(row), width, over)
        self._strips[row.key] = (state, strip)
        return strip

    def _cells(self, row: Row) -> list[Piece]:
        cells = [Piece(MARK if row.key in self.marks else "  ", Role.TITLE)]
        for place, column, width in self._fitting:
            piece = row.pieces[place]
            cells.append(Piece(fit(safe(piece.text), width, right=column.right) + GAP, piece.role))
        return cells

    def _head(self, width: int) -> Strip:
        words = [" " * len(MARK)]
        for _, column, room in self._fitting:
            arrow = ("▾" if self.reversed else "▴") if column.key == self.order else ""
            words.append(fit(f"{column.title}{arrow}", room, right=column.right) + GAP)
        pieces = [Piece("".join(words))]
        return self._painter.strip(pieces, width, "head")


def fitting(columns: Sequence[Column], room: int) -> list[tuple[int, Column, int]]:
    """(place, column, width) of the columns that fit, those of low rank left out first."""
    kept = list(enumerate(columns))
    while len(kept) > 1 and sum(c.width + len(GAP) for _, c in kept) - len(GAP) > room:
        kept.remove(min(kept, key=lambda one: (one[1].rank, -one[0])))
    spare = room - sum(c.width + len(GAP) for _, c in kept) + len(GAP)
    growing = [place for place, column in kept if column.grows]
    widths = {place: column.width for place, column in kept}
    for place in growing:
        widths[place] += max(spare, 0) // len(growing)
    return [(place, column, max(widths[place], 1)) for place, column in kept]
