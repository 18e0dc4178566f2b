# SPDX-License-Identifier: GPL-2.0-or-later
"""The incidents, grouped by title: above how often each came, below those of the group."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from adeos.units import duration
from tui import keys
from tui.look import Piece, Role
from tui.report_lines import stage_lines
from tui.screens.incident_keys import IncidentKeys
from tui.widgets.grid import Column, Grid, Row
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from crashdump.incident import Incident

GROUPS = (
    Column("count", "TIMES", 5, right=True, rank=9),
    Column("last", "LAST", 19, rank=8),
    Column("vnodes", "VNODES", 10, rank=7),
    Column("title", "TITLE", 30, rank=9, grows=True),
)
INCIDENTS = (
    Column("id", "ID", 5, right=True, rank=9),
    Column("time", "TIME", 19, rank=8),
    Column("vnode", "VNODE", 12, rank=8),
    Column("inc", "INC", 4, right=True, rank=6),
    Column("reason", "REASON", 12, rank=7),
    Column("state", "STATE", 11, rank=5),
    Column("dump", "DUMP", 8, rank=6),
    Column("down", "DOWN", 7, right=True, rank=8),
    Column("outcome", "OUTCOME", 12, rank=4, grows=True),
)


def name_of(one: Incident) -> str:
    """What an incident is grouped by."""
    return one.title or one.message or one.reason


class Incidents(IncidentKeys):
    """Newest first; Enter opens the report."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("lists", "incidents")
    DEFAULT_CSS = """
    Incidents > #groups { height: 1fr; }
    Incidents > #incidents { height: 1fr; border-top: solid $panel; }
    Incidents > #stages { height: 9; border-top: solid $panel; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_name: dict[str, list[Incident]] = {}

    def body(self) -> ComposeResult:
        yield Grid(GROUPS, id="groups")
        yield Grid(INCIDENTS, id="incidents")
        yield Lines(id="stages")

    def title_line(self) -> str:
        return f"{len(self.dashboard.incidents)} incidents"

    def show_incidents(self, incidents: Sequence[Incident]) -> None:
        groups: dict[str, list[Incident]] = {}
        for one in incidents:
            groups.setdefault(name_of(one), []).append(one)
        self._by_name = groups
        self.query_one("#groups", Grid).show([_group(name, own) for name, own in groups.items()])
        self._show_group()

    def on_grid_moved(self, event: Grid.Moved) -> None:
        """Another group, or another incident of it."""
        if event.grid.id == "groups":
            self._show_group()
        else:
            self._show_stages()

    def on_grid_opened(self, event: Grid.Opened) -> None:
        self.action_open()

    def _show_group(self) -> None:
        own = self._by_name.get(self.query_one("#groups", Grid).cursor_key, [])
        self.query_one("#incidents", Grid).show([_incident(one) for one in own])
        self._show_stages()

    def _show_stages(self) -> None:
        one = self.chosen_incident()
        lines = list(stage_lines(one)) if one is not None else []
        self.query_one("#stages", Lines).show(lines or [Piece("no stages", Role.DIM)])

    def chosen_incident(self) -> Incident | None:
        key = self.query_one("#incidents", Grid).cursor_key
        return next((one for one in self.dashboard.incidents if str(one.id) == key), None)

    def action_open(self) -> None:
        """The report on the incident."""
        from tui.screens.report import ReportScreen

        one = self.chosen_incident()
        if one is not None:
            self.app.push_screen(ReportScreen(one.id))


def _group(name: str, own: Sequence[Incident]) -> Row:
    latest = own[0]
    vnodes = sorted({one.vnode for one in own})
    pieces = (
        Piece(str(len(own)), Role.BUSY if len(own) > 1 else Role.PLAIN),
        Piece(_when(latest.opened), Role.DIM),
        Piece(",".join(map(str, vnodes))),
        Piece(name, Role.TITLE if latest.crash else Role.PLAIN),
    )
    sort = {"count": len(own), "last": latest.opened, "vnodes": vnodes, "title": name}
    return Row(name, pieces, sort)


def _incident(one: Incident) -> Row:
    running = one.stamps.get("running")
    down = duration(running / 1e9) if running is not None else "-"
    bad = one.state in ("open", "interrupted")
    pieces = (
        Piece(str(one.id)),
        Piece(_when(one.opened), Role.DIM),
        Piece(f"{one.vnode} {one.name}"),
        Piece(str(one.incarnation)),
        Piece(one.reason, Role.BAD if one.crash else Role.PLAIN),
        Piece(str(one.state), Role.BUSY if bad else Role.DIM),
        Piece(str(one.dump.state), Role.BAD if one.dump.state in ("failed", "lost") else Role.DIM),
        Piece(down),
        Piece(one.outcome or "-"),
    )
    sort = {
        "id": one.id, "time": one.opened, "vnode": one.vnode, "inc": one.incarnation,
        "reason": one.reason, "state": str(one.state), "dump": str(one.dump.state),
        "down": running or 0, "outcome": one.outcome,
    }  # fmt: skip
    return Row(str(one.id), pieces, sort)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
