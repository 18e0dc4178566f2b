# SPDX-License-Identifier: GPL-2.0-or-later
"""The last incidents of a vnode, one below the other, with the bars of their stages."""

from __future__ import annotations

from textual.app import ComposeResult

from tui.look import Piece, Role
from tui.panes.pane import Pane
from tui.report_lines import fact_lines, stage_lines
from tui.widgets.lines import Lines

MOST = 20


class HistoryPane(Pane):
    """Newest first."""

    def compose(self) -> ComposeResult:
        yield Lines()

    async def read(self) -> None:
        own = [one for one in self.dashboard.incidents if one.vnode == self.vnode][:MOST]
        lines: list[Piece] = []
        for one in own:
            lines += [*fact_lines(one), *stage_lines(one), Piece("")]
        self.query_one(Lines).show(lines or [Piece("no incidents", Role.DIM)])
