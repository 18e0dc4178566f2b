# SPDX-License-Identifier: GPL-2.0-or-later
"""One vnode: console, log, tasks, CPUs, memory, incidents, a pane each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import TabbedContent, TabPane

from tui import keys
from tui.look import Look, state
from tui.panes.console import ConsolePane
from tui.panes.cpus import CpusPane
from tui.panes.history import HistoryPane
from tui.panes.log import LogPane
from tui.panes.memory import MemoryPane
from tui.panes.pane import Pane
from tui.panes.tasks import TasksPane
from tui.screens.vnode_keys import VnodeKeys
from tui.widgets.grid import Grid
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from crashdump.incident import Incident

PANES: tuple[tuple[str, str, type[Pane]], ...] = (
    ("log", "log", LogPane),
    ("console", "console", ConsolePane),
    ("tasks", "tasks", TasksPane),
    ("cpus", "CPUs", CpusPane),
    ("memory", "memory", MemoryPane),
    ("history", "incidents", HistoryPane),
)


class VnodeScreen(VnodeKeys):
    """The pane in front reads; the others rest."""

    BINDINGS: ClassVar[list[BindingType]] = [
        binding
        for binding in keys.bindings("lists", "vnodes", "a vnode")
        if getattr(binding, "id", "") not in ("open", "twins")
    ]
    DEFAULT_CSS = """
    VnodeScreen TabbedContent, VnodeScreen ContentSwitcher, VnodeScreen TabPane { height: 1fr; }
    VnodeScreen TabPane { padding: 0; }
    """

    def __init__(self, vnode: int) -> None:
        super().__init__()
        self.vnode = vnode
        self._incarnation = 0

    def body(self) -> ComposeResult:
        with TabbedContent():
            for name, title, kind in PANES:
                with TabPane(title, id=name):
                    yield kind(self.vnode)

    @property
    def tabs(self) -> TabbedContent:
        return self.query_one(TabbedContent)

    @property
    def pane(self) -> Pane:
        """The one in front."""
        return self.query_one(f"#{self.tabs.active or PANES[0][0]}", TabPane).query_one(Pane)

    @property
    def in_hand(self) -> Widget | None:
        focused = self.focused
        if isinstance(focused, Grid | Lines):
            return focused
        return next(iter(self.pane.query("Grid, Lines")), None)

    def on_tabbed_content_tab_activated(self, _event: TabbedContent.TabActivated) -> None:
        for pane in self.query(Pane):
            if pane is not self.pane:
                pane.end()
        first = next(iter(self.pane.query("Grid, Lines")), None)
        if first is not None:
            first.focus()
        self.pane.begin()

    def on_screen_suspend(self) -> None:
        """Another screen is in front: nothing needs to be read."""
        for pane in self.query(Pane):
            pane.end()

    def on_screen_resume(self) -> None:
        self.pane.begin()

    def show(self, look: Look) -> None:
        super().show(look)
        vnode = look.vnode(self.vnode)
        incarnation = vnode.row.incarnation if vnode is not None else 0
        if self._incarnation and incarnation != self._incarnation:
            self.pane.begin()  # it was restarted: what is shown is its predecessor's
        self._incarnation = incarnation

    def show_incidents(self, incidents: Sequence[Incident]) -> None:
        if self.tabs.active == "history":
            self.pane.begin()

    def title_line(self) -> str:
        vnode = self.dashboard.look.vnode(self.vnode)
        if vnode is None:
            return f"vnode {self.vnode} is gone"
        row = vnode.row
        return f"vnode {row.id} ({row.name}) {state(row).text} {row.reason}".rstrip()

    def chosen(self) -> list[int]:
        return [self.vnode]

    def action_pane(self, by: int) -> None:
        """The pane beside this one."""
        names = [name for name, _, _ in PANES]
        at = names.index(self.tabs.active) if self.tabs.active in names else 0
        self.tabs.active = names[(at + by) % len(names)]

    def action_reread(self) -> None:
        """Read the pane anew."""
        self.pane.begin()

    async def action_type(self) -> None:
        """Into the console, whatever pane is in front."""
        self.tabs.active = "console"
        self.call_after_refresh(self.query_one(ConsolePane).action_type)

    def action_tree(self) -> None:
        """Tasks as a tree."""
        self.query_one(TasksPane).action_tree()
