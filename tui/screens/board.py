# SPDX-License-Identifier: GPL-2.0-or-later
"""What all screens have in common: a head line, a banner for what is wrong, a filter, keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Input, Static

from tui.look import Look, state
from tui.text import safe
from tui.widgets.grid import Grid
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from crashdump.incident import Incident
    from tui.app import Dashboard


class FilterLine(Input):
    """The filter, at the bottom; it shows while it is typed and while it filters."""

    DEFAULT_CSS = """
    FilterLine { dock: bottom; height: 1; border: none; padding: 0 1; display: none; }
    FilterLine:focus { border: none; }
    """

    def key_escape(self, event: events.Key) -> None:
        event.stop()
        self.value = ""
        self.submit()

    def submit(self) -> None:
        """Typing is over."""
        self.post_message(self.Submitted(self, self.value))


class Board(Screen[None]):
    """One screen; `show` gets each look while it is in front."""

    DEFAULT_CSS = """
    Board { layers: base over; }
    Board > #head { height: 1; background: $panel; padding: 0 1; }
    Board > #banner { height: auto; background: $error 30%; padding: 0 1; display: none; }
    """
    AUTO_FOCUS: ClassVar[str | None] = "Grid, Lines"

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield Static(id="banner", markup=False)
        yield from self.body()
        yield FilterLine(placeholder="filter; ! inverts", id="filter")
        yield Footer(show_command_palette=False)

    def body(self) -> ComposeResult:
        """The widgets between the head and the keys."""
        raise NotImplementedError

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    ready = False
    """Whether its widgets are there; a look may come before that."""

    def on_mount(self) -> None:
        self.ready = True
        self.refill()

    def on_screen_resume(self) -> None:
        self.refill()

    def refill(self) -> None:
        """Shows what the dashboard knows already."""
        if self.ready:
            self.show(self.dashboard.look)
            self.show_incidents(self.dashboard.incidents)

    # What is seen

    def show(self, look: Look) -> None:
        """A new look at the machine."""
        self._put("#head", head(look, self.title_line(), self.dashboard.readonly))
        banner = self.query_one("#banner", Static)
        text = look.problem or look.daemon
        self._put("#banner", Text(safe(text)))
        banner.display = bool(text)

    def show_incidents(self, incidents: Sequence[Incident]) -> None:
        """The incidents, when they have changed."""

    def title_line(self) -> str:
        """What this screen shows, for the head line."""
        return ""

    def _put(self, where: str, text: Text) -> None:
        """Text into a Static, unless it is there already."""
        static = self.query_one(where, Static)
        if static.content != text:
            static.update(text)

    # Keys

    @property
    def in_hand(self) -> Widget | None:
        """The list that keys act on: the focused one, else the first."""
        found = self.focused
        if isinstance(found, Grid | Lines):
            return found
        every: list[Widget] = [*self.query("Grid, Lines")]
        return every[0] if every else None

    def line(self) -> str:
        """The line under the cursor."""
        found = self.in_hand
        return found.line() if isinstance(found, Grid | Lines) else ""

    def action_filter(self) -> None:
        """Type a filter."""
        line = self.query_one(FilterLine)
        self._filtered: Any = self.in_hand
        line.value = getattr(self._filtered, "pattern", "")
        line.display = True
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if isinstance(event.input, FilterLine) and event.input.has_focus:
            event.stop()
            self._filtered.filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if isinstance(event.input, FilterLine):
            event.stop()
            self._filtered.filter(event.value)
            event.input.display = bool(event.value)
            self._filtered.focus()

    def action_sort(self) -> None:
        """By the next column."""
        if isinstance(self.in_hand, Grid):
            self.in_hand.sort_next()

    def action_reverse(self) -> None:
        """The other way round."""
        if isinstance(self.in_hand, Grid):
            self.in_hand.reverse()

    def action_mark(self) -> None:
        """Mark a row."""
        if isinstance(self.in_hand, Grid):
            self.in_hand.mark()

    def action_mark_all(self) -> None:
        """Mark all rows."""
        if isinstance(self.in_hand, Grid):
            self.in_hand.mark_all()


def head(look: Look, title: str, readonly: bool) -> Text:
    """The first line: what is shown, the watcher's health, how many vnodes are in which state."""
    words = ["read-only"] if readonly else []
    words.append(title or "vnodes")
    counts = Counter(vnode.row.state for vnode in look.vnodes)
    words.append(", ".join(f"{count} {word}" for word, count in counts.most_common()) or "none")
    if look.root is not None:
        words.append(f"{state(look.root).text}: {look.root.reason}, {look.late_ticks} late ticks")
    elif look.granted:
        words.append("as granted to this vnode")
    return Text(safe(" │ ".join(words)), no_wrap=True, overflow="ellipsis")
