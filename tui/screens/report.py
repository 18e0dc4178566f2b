# SPDX-License-Identifier: GPL-2.0-or-later
"""One incident: its facts and stages, and the panels of its analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from tui import keys
from tui.look import Piece, Role
from tui.off_loop import off_loop, one_line, start
from tui.report_lines import fact_lines, panel_lines, stage_lines
from tui.screens.incident_keys import IncidentKeys
from tui.widgets.grid import Column, Grid, Row
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from crashdump.analysis.report import Report
    from crashdump.incident import Incident

FIRST = "summary"
PANELS = (Column("panel", "PANEL", 22, rank=9, grows=True),)
ROLES = {"ok": Role.PLAIN, "partial": Role.BUSY, "failed": Role.DIM}


class ReportScreen(IncidentKeys):
    """Panels at the left, the chosen one at the right."""

    BINDINGS: ClassVar[list[BindingType]] = [
        binding
        for binding in keys.bindings("incidents", "lists")
        if getattr(binding, "id", "") not in ("incident-open", "mark", "mark-all")
    ]
    DEFAULT_CSS = """
    ReportScreen Grid { width: 26; border-right: solid $panel; }
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self._report: Report | None = None
        self._problem = "the analysis is being read"

    def body(self) -> ComposeResult:
        with Horizontal():
            yield Grid(PANELS, id="panels")
            yield Lines(id="panel")

    def on_mount(self) -> None:
        self._list()
        start(self, self._load, "report", exclusive=True)

    async def _load(self) -> None:
        try:
            self._report = await off_loop(lambda: self.dashboard.client.report(self.number))
            self._problem = ""
        except Exception as error:  # a dump can make any reader stumble; the screen stays
            self._problem = one_line(error)
        self._list()

    def _list(self) -> None:
        rows = [Row(FIRST, (Piece(FIRST, Role.TITLE),), {"panel": FIRST})]
        panels = self._report.panels if self._report is not None else ()
        rows += [
            Row(panel.name, (Piece(panel.title, ROLES[str(panel.state)]),), {"panel": panel.title})
            for panel in panels
        ]
        self.query_one("#panels", Grid).show(rows)
        self._show()

    def on_grid_moved(self, _event: Grid.Moved) -> None:
        """Another panel."""
        self._show()

    def _show(self) -> None:
        name = self.query_one("#panels", Grid).cursor_key
        panel = self._report.panel(name) if self._report is not None else None
        lines = list(panel_lines(panel)) if panel is not None else self._summary()
        self.query_one("#panel", Lines).show(lines)

    def _summary(self) -> list[Piece]:
        one = self.chosen_incident()
        lines = [*fact_lines(one), Piece(""), *stage_lines(one), Piece("")] if one else []
        report = self._report
        if report is not None:
            guess = " (a guess)" if report.guess else ""
            facts = (
                ("culprit", report.culprit),
                ("known by", report.basis),
            )
            lines += [Piece(f"  {name:9} {text}{guess}") for name, text in facts if text]
        if self._problem:
            lines.append(Piece(self._problem, Role.BUSY))
        return lines

    def title_line(self) -> str:
        return f"incident {self.number}"

    def chosen_incident(self) -> Incident | None:
        return next((one for one in self.dashboard.incidents if one.id == self.number), None)
