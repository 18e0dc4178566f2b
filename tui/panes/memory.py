# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory, slab caches and modules of a vnode, and which kernel it is."""

from __future__ import annotations

from textual.app import ComposeResult

from tui.panes.pane import Pane
from tui.report_lines import panel_lines
from tui.widgets.lines import Lines

PANELS = ("memory", "system", "modules")


class MemoryPane(Pane):
    """Panels of crashdump's analysis, on the kernel as it is now."""

    def compose(self) -> ComposeResult:
        yield Lines()

    async def read(self) -> None:
        panels = await self.fetch(lambda: self.client.kernels.panels(self.vnode, *PANELS))
        lines = [line for panel in panels for line in panel_lines(panel)]
        self.query_one(Lines).show(lines)
