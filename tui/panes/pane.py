# SPDX-License-Identifier: GPL-2.0-or-later
"""What the panes of a vnode have in common: they read when they come in front, off the UI loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from textual.containers import Vertical

from tui.look import Piece, Role
from tui.off_loop import off_loop, one_line, start
from tui.text import wrapped
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from tui.app import Dashboard
    from tui.client import Client

T = TypeVar("T")
ERROR_WIDTH = 78
"""Of a pane that has not been laid out yet."""


class Pane(Vertical):
    """One thing about a vnode."""

    def __init__(self, vnode: int) -> None:
        super().__init__()
        self.vnode = vnode

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @property
    def client(self) -> Client:
        return self.dashboard.client

    def begin(self) -> None:
        """It came in front, or is to be read anew."""
        start(self, self._guarded, "read", exclusive=True)

    def end(self) -> None:
        """It is not in front any more."""
        self.workers.cancel_node(self)

    async def _guarded(self) -> None:
        lines = self.query(Lines).last()
        try:
            await self.read()
        except Exception as error:  # a vnode can make any reader stumble; the screen stays
            width = lines.size.width or ERROR_WIDTH
            lines.show([Piece(part, Role.BAD) for part in wrapped(one_line(error), width)])

    async def read(self) -> None:
        """Reads and shows it; an error is shown in the last of its line widgets."""
        raise NotImplementedError

    async def fetch(self, work: Callable[[], T]) -> T:
        """What `work` reads, off the UI loop."""
        return await off_loop(work)
