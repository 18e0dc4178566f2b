# SPDX-License-Identifier: GPL-2.0-or-later
"""The CPUs of a vnode: registers, code around the instruction pointer, stack.

Registers are those of the crash, else the last sample or the answer to an NMI (its key asks anew).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from tui import keys
from tui.look import Piece, Role
from tui.panes.pane import Pane
from tui.widgets.grid import Column, Grid, Row
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from tui.kernels import Cpu

COLUMNS = (
    Column("cpu", "CPU", 4, right=True, rank=9),
    Column("state", "STATE", 28, rank=8),
    Column("at", "AT", 40, rank=7, grows=True),
)
SHOWN = (
    "ip", "sp", "flags", "ax", "bx", "cx", "dx", "si", "di", "bp", "r8", "r9", "r10", "r11", "r12",
    "r13", "r14", "r15", "cs", "ss",
)  # fmt: skip
ACROSS = 3


def detail(cpu: Cpu) -> Iterator[Piece]:
    """Registers, code and stack of a CPU, as lines."""
    known = [(name, cpu.registers[name]) for name in SHOWN if name in cpu.registers]
    for start in range(0, len(known), ACROSS):
        row = known[start : start + ACROSS]
        yield Piece("  ".join(f"{name:>5} {value:016x}" for name, value in row))
    if not known:
        yield Piece("no registers are known", Role.DIM)
    yield Piece("code", Role.TITLE)
    yield from (Piece(t, Role.HELD if t.startswith("=>") else Role.PLAIN) for t in cpu.code)
    yield Piece("stack", Role.TITLE)
    yield from map(Piece, cpu.stack)


class CpusPane(Pane):
    """The CPUs above, the one under the cursor below."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("lists")
    DEFAULT_CSS = """
    CpusPane > Grid { height: auto; max-height: 10; min-height: 4; }
    CpusPane > Lines { border-top: solid $panel; }
    """

    def compose(self) -> ComposeResult:
        yield Grid(COLUMNS)
        yield Lines()

    def on_mount(self) -> None:
        self._grid, self._detail = self.query_one(Grid), self.query_one(Lines)
        self._cpus: dict[str, Cpu] = {}

    async def read(self) -> None:
        found = await self.fetch(lambda: self.client.kernels.cpus(self.vnode))
        self._cpus = {str(one.cpu): one for one in found}
        self._grid.styles.height = len(found) + 1
        self._grid.show([_row(one) for one in found])
        self.on_grid_moved()

    def on_grid_moved(self) -> None:
        """Another CPU is under the cursor."""
        cpu = self._cpus.get(self._grid.cursor_key)
        self._detail.show(list(detail(cpu)) if cpu is not None else [])


def _row(cpu: Cpu) -> Row:
    at = cpu.stack[0] if cpu.registers and cpu.stack else "-"
    pieces = (Piece(str(cpu.cpu)), Piece(cpu.state), Piece(at))
    return Row(str(cpu.cpu), pieces, {"cpu": cpu.cpu, "state": cpu.state, "at": at})
