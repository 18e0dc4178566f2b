# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log out of the vnode's memory, or that of the incarnation before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Static

from tui import keys
from tui.look import Piece, Role
from tui.panes.pane import Pane
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from introspect.printk import LogRecord

FOLLOW_S = 1.0
"""Each look copies the whole log buffer."""
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
STEPS = (7, 4, 3)
"""All, warnings and worse, errors and worse."""


def pieces(records: Iterable[LogRecord], worst: int) -> list[Piece]:
    """Records up to a level as lines, in the role of their level."""
    from introspect.printk import lines

    return [
        Piece(line, Role.BAD if one.level <= 3 else Role.BUSY if one.level == 4 else Role.PLAIN)
        for one in records
        if one.level <= worst
        for line in lines(one)
    ]


class LogPane(Pane):
    """Follows what is added, over restarts."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("logs")
    DEFAULT_CSS = "LogPane > Static { height: 1; color: $foreground 60%; padding: 0 1; }"

    def compose(self) -> ComposeResult:
        yield Lines(follow=True)
        yield Static(markup=False)

    def on_mount(self) -> None:
        self._lines = self.query_one(Lines)
        self._records: Sequence[LogRecord] = ()
        self._worst = STEPS[0]
        self._previous = False

    async def read(self) -> None:
        while True:
            if self._previous:
                await self._read_previous()
                return
            now = await self.fetch(lambda: self.client.kernels.log(self.vnode))
            self._merge(now)
            await asyncio.sleep(FOLLOW_S)

    def _merge(self, now: list[LogRecord]) -> None:
        """Adds what is new; another kernel's log replaces what is there."""
        before = self._records
        self._records = now
        goes_on = bool(before) and before[-1] in now
        if not goes_on:
            self._lines.show(pieces(now, self._worst))
        else:
            fresh = [record for record in now if record.seq > before[-1].seq]
            self._lines.add(pieces(fresh, self._worst))
        self._tell()

    async def _read_previous(self) -> None:
        """The log that the last incident of this vnode kept."""
        last = [one for one in self.dashboard.incidents if one.vnode == self.vnode and one.crash]
        saved = await self.fetch(lambda: self.client.saved_log(last[0].id)) if last else []
        what = f"of incident {last[0].id}" if last else "there is no incident of this vnode"
        lines = [Piece(line) for line in saved]
        self._lines.show(lines or [Piece(f"no log was kept: {what}", Role.DIM)])
        self._tell(f"the end of the log of incarnation {last[0].incarnation}" if last else "")

    def _tell(self, what: str = "") -> None:
        level = "" if self._worst == STEPS[0] else f", {LEVELS[self._worst]} and worse"
        state = "follows" if self._lines.following else "stays; f follows"
        self.query_one(Static).update(what or f"{len(self._records)} records{level}, {state}")

    def action_follow(self) -> None:
        """Stay at the end, or not."""
        self._lines.toggle_follow()
        self._tell()

    def action_wrap(self) -> None:
        """Wrap long lines, or not."""
        self._lines.toggle_wrap()

    def action_level(self) -> None:
        """Warnings and worse, errors and worse, all."""
        self._worst = STEPS[(STEPS.index(self._worst) + 1) % len(STEPS)]
        self._lines.show(pieces(self._records, self._worst))
        self._tell()

    def action_context(self) -> None:
        """Lines around each hit of the filter."""
        self.dashboard.say(f"{self._lines.next_context()} lines around a hit")

    def action_previous(self) -> None:
        """The log of the incarnation before, or this one's again."""
        self._previous = not self._previous
        self._records = ()
        self.begin()
