# SPDX-License-Identifier: GPL-2.0-or-later
"""Two vnodes side by side: image, command line, modules, sysctls, slab, log; only what differs."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from tui import keys
from tui.look import Piece, Role
from tui.off_loop import off_loop, one_line, start
from tui.screens.board import Board
from tui.twins import Difference, differences
from tui.widgets.grid import Column, Grid, Row


class Twins(Board):
    """A sick vnode against a healthy one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("lists"),
        Binding("f5", "reread", "read anew"),
    ]

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = left, right
        self._remark = "being read"

    def body(self) -> ComposeResult:
        yield Grid(
            (
                Column("section", "WHAT", 12, rank=9),
                Column("left", self._titled(self.left), 24, rank=8, grows=True),
                Column("right", self._titled(self.right), 24, rank=8, grows=True),
            )
        )

    def _titled(self, number: int) -> str:
        vnode = self.dashboard.look.vnode(number)
        return f"{number} {vnode.row.name}" if vnode is not None else str(number)

    def on_mount(self) -> None:
        self.action_reread()

    def action_reread(self) -> None:
        """Read both anew."""
        start(self, self._read, "twins", exclusive=True)

    async def _read(self) -> None:
        kernels = self.dashboard.client.kernels
        try:
            left = await off_loop(lambda: kernels.facts(self.left))
            right = await off_loop(lambda: kernels.facts(self.right))
        except Exception as error:  # a vnode can make any reader stumble; the screen stays
            self._remark = one_line(error)
            self.dashboard.say(self._remark, bad=True)
        else:
            found = differences(left, right)
            self.query_one(Grid).show([_row(at, one) for at, one in enumerate(found)])
            self._remark = f"{len(found)} differences"
        self.show(self.dashboard.look)

    def title_line(self) -> str:
        return f"twins {self._titled(self.left)} and {self._titled(self.right)}: {self._remark}"


def _row(at: int, one: Difference) -> Row:
    missing = Piece("-", Role.DIM)
    pieces = (
        Piece(one.section, Role.TITLE),
        Piece(one.left, Role.BUSY) if one.left else missing,
        Piece(one.right, Role.HELD) if one.right else missing,
    )
    return Row(str(at), pieces, one._asdict())
