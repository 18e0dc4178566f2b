# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks of a vnode, as a list or a tree, with the stack of the one under the cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from tui import keys
from tui.look import Piece, Role
from tui.off_loop import start
from tui.panes.pane import Pane
from tui.widgets.grid import Column, Grid, Row
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from introspect.tasks import Task

AGAIN_S = 5.0
DEPTH_MAX = 12
COLUMNS = (
    Column("pid", "PID", 7, right=True, rank=9),
    Column("parent", "PARENT", 7, right=True, rank=5),
    Column("state", "S", 2, rank=8),
    Column("cpu", "CPU", 3, right=True, rank=6),
    Column("comm", "COMMAND", 20, rank=9, grows=True),
)
ROLES = {"R": Role.GOOD, "D": Role.BAD, "Z": Role.BUSY, "T": Role.HELD, "t": Role.HELD}


def rows(tasks: Sequence[Task], *, tree: bool) -> list[Row]:
    """The tasks as rows: as the kernel lists them, or each below its parent."""
    depths = tree_order(tasks) if tree else [(task, 0) for task in tasks]
    return [_row(task, depth) for task, depth in depths]


def _row(task: Task, depth: int) -> Row:
    kind = Role.DIM if task.kthread else Role.PLAIN
    running = "*" if task.running else ""
    pieces = (
        Piece(str(task.pid)),
        Piece(str(task.ppid), Role.DIM),
        Piece(f"{task.state}{running}", ROLES.get(task.state, Role.DIM)),
        Piece(str(task.cpu)),
        Piece("  " * min(depth, DEPTH_MAX) + task.comm, kind),
    )
    sort = {
        "pid": task.pid, "parent": task.ppid, "state": task.state, "cpu": task.cpu,
        "comm": task.comm,
    }  # fmt: skip
    return Row(f"{task.address:x}", pieces, sort)


def tree_order(tasks: Sequence[Task]) -> list[tuple[Task, int]]:
    """Each task with its depth, children behind their parents; a circle of parents is cut."""
    children: dict[int, list[Task]] = {}
    known = {task.pid for task in tasks}
    for task in tasks:
        parent = task.tgid if not task.leader else task.ppid
        children.setdefault(parent if parent in known else -1, []).append(task)
    ordered: list[tuple[Task, int]] = []
    seen: set[int] = set()
    roots = [task for task in tasks if task.pid == 0] + children.get(-1, [])
    # those that hang on a circle come last, from its first task on
    for root in [*roots, *tasks]:
        stack = [(root, 0)]
        while stack:
            task, depth = stack.pop()
            if task.address in seen:
                continue
            seen.add(task.address)
            ordered.append((task, depth))
            below = children.get(task.pid, []) if task.leader else []
            stack += [(child, depth + 1) for child in reversed(below)]
    return ordered


class TasksPane(Pane):
    """The list above, the stack below."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("lists")
    DEFAULT_CSS = """
    TasksPane > Grid { height: 2fr; }
    TasksPane > Lines { height: 1fr; border-top: solid $panel; }
    """

    def compose(self) -> ComposeResult:
        yield Grid(COLUMNS)
        yield Lines()

    def on_mount(self) -> None:
        self._grid, self._stack = self.query_one(Grid), self.query_one(Lines)
        self._tasks: dict[str, Task] = {}
        self._tree = False

    async def read(self) -> None:
        while True:
            found, note = await self.fetch(lambda: self.client.kernels.tasks(self.vnode))
            fresh = {f"{task.address:x}": task for task in found}
            first = not self._tasks
            self._tasks = fresh
            self._grid.show(rows(found, tree=self._tree))
            if note:
                self.dashboard.say(note, bad=True)
            if first:
                self.on_grid_moved()
            await asyncio.sleep(AGAIN_S)

    def on_grid_moved(self) -> None:
        """Another task is under the cursor: its stack."""
        task = self._tasks.get(self._grid.cursor_key)
        if task is not None:
            start(self, partial(self._show_stack, task), "stack", exclusive=True)

    async def _show_stack(self, task: Task) -> None:
        await asyncio.sleep(0.05)  # a cursor that runs over the list asks for one stack
        self._stack.show(
            [
                Piece(f"{task.comm} ({task.pid})", Role.TITLE),
                *map(Piece, await self._frames(task)),
            ]
        )

    async def _frames(self, task: Task) -> list[str]:
        try:
            return await self.fetch(lambda: self.client.kernels.stack(self.vnode, task))
        except Exception as error:
            return [str(error)]

    def action_tree(self) -> None:
        """As a tree, or as a list."""
        self._tree = not self._tree
        self._grid.order = ""
        self._grid.show(rows(list(self._tasks.values()), tree=self._tree))
