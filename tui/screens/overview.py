# SPDX-License-Identifier: GPL-2.0-or-later
"""All vnodes and the root, a row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from adeos.units import size
from tui import keys
from tui.look import LAYERS, Look, Piece, Role, Vnode, held_by, level, state
from tui.recorder import Recorder
from tui.screens.vnode_keys import VnodeKeys
from tui.text import since, sparkline
from tui.widgets.grid import Column, Grid, Row
from watchdog import observe
from watchdog.observe import slowest

if TYPE_CHECKING:
    from crashdump.incident import Incident

SPARK = 8
"""Points of a beat sparkline: seconds."""
COLUMNS = (
    Column("id", "ID", 3, right=True, rank=20),
    Column("name", "NAME", 10, rank=20),
    Column("state", "STATE", 13, rank=20),
    Column("reason", "REASON", 12, rank=11),
    Column("inc", "INC", 4, right=True, rank=10),
    Column("up", "UP", 6, right=True, rank=13),
    Column("beats", "BEATS/S", 12, rank=14),
    *(Column(layer, layer.upper(), SPARK, rank=8) for layer in LAYERS),
    Column("detector", "DETECTOR", 10, rank=12),
    Column("cpu", "CPU", 4, right=True, rank=9),
    Column("memory", "MEMORY", 12, right=True, rank=9),
    Column("restarts", "RST", 3, right=True, rank=7),
    Column("left", "LEFT", 4, right=True, rank=7),
    Column("incident", "INCIDENT", 12, rank=12, grows=True),
    Column("held", "HELD BY", 18, rank=6),
    Column("cpus", "CPUS", 6, rank=5),
)


class Overview(VnodeKeys):
    """The first screen."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("lists", "vnodes")

    def __init__(self) -> None:
        super().__init__()
        self._titles: dict[int, str] = {}

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, sorted_by="id", id="vnodes")

    @property
    def grid(self) -> Grid:
        return self.query_one("#vnodes", Grid)

    def show(self, look: Look) -> None:
        super().show(look)
        recorder = self.dashboard.recorder
        rows = [_root_row(look.root, look.late_ticks)] if look.root is not None else []
        rows += [vnode_row(vnode, recorder, self._titles) for vnode in look.vnodes]
        self.grid.show(rows)

    def show_incidents(self, incidents: Sequence[Incident]) -> None:
        self._titles = {one.id: one.title or one.message or one.reason for one in incidents}

    def chosen(self) -> list[int]:
        return [int(key) for key in self.grid.chosen]

    def action_open(self) -> None:
        """The vnode under the cursor."""
        if self.grid.cursor_key:
            self.dashboard.open_vnode(int(self.grid.cursor_key))

    def on_grid_opened(self, _event: Grid.Opened) -> None:
        self.action_open()

    def action_twins(self) -> None:
        """Two vnodes side by side: the marked ones, else this one and the next."""
        from tui.screens.twins import Twins

        marked = self.chosen()
        if len(marked) == 1:
            others = [v.row.id for v in self.dashboard.look.vnodes if v.row.id != marked[0]]
            later = [number for number in others if number > marked[0]] or others
            marked += later[:1]
        if len(marked) != 2 or 0 in marked:
            self.dashboard.say("mark two vnodes to compare them")
            return
        self.app.push_screen(Twins(*marked))


SORTS: dict[str, Callable[[Vnode], Any]] = {
    "id": lambda vnode: vnode.row.id,
    "name": lambda vnode: vnode.row.name,
    "state": lambda vnode: vnode.row.state,
    "reason": lambda vnode: vnode.row.reason,
    "inc": lambda vnode: vnode.row.incarnation,
    "up": lambda vnode: _number(vnode.row.uptime_s),
    "beats": lambda vnode: tuple(_number(slowest(vnode.row, layer)) for layer in LAYERS),
    "irq": lambda vnode: _number(slowest(vnode.row, "irq")),
    "sched": lambda vnode: _number(slowest(vnode.row, "sched")),
    "user": lambda vnode: _number(slowest(vnode.row, "user")),
    "detector": lambda vnode: level(vnode).text,
    "cpu": lambda vnode: _number(vnode.usage.cpu if vnode.usage is not None else None),
    "memory": lambda vnode: vnode.row.memory,
    "restarts": lambda vnode: vnode.row.restarts,
    "left": lambda vnode: _number(vnode.row.restarts_left),
    "incident": lambda vnode: vnode.row.last_incident,
    "held": lambda vnode: vnode.holder,
    "cpus": lambda vnode: vnode.row.cpus,
}
"""What each column orders vnodes by."""


def vnode_row(vnode: Vnode, recorder: Recorder, titles: dict[int, str]) -> Row:
    """A vnode as a row; its pieces are made when it is seen."""
    return Row(
        str(vnode.row.id),
        partial(vnode_pieces, vnode, recorder, titles),
        lambda column: SORTS[column](vnode),
    )


def vnode_pieces(vnode: Vnode, recorder: Recorder, titles: dict[int, str]) -> tuple[Piece, ...]:
    """A piece a column."""
    row = vnode.row
    last = row.last_incident
    incident = f"{last} {titles.get(last, '')}".strip() if last else "-"
    usage = vnode.usage
    share = usage.cpu if usage is not None else None
    used = f"{size(usage.used)}/{size(usage.total)}" if usage is not None else size(row.memory)
    return (
        Piece(str(row.id)),
        Piece(row.name, Role.TITLE),
        state(row),
        Piece(row.reason or "-", Role.PLAIN if row.reason else Role.DIM),
        Piece(str(row.incarnation)),
        Piece(since(row.uptime_s)),
        _rates(row),
        *(_beats(vnode, recorder, layer) for layer in range(len(LAYERS))),
        level(vnode),
        Piece(f"{share:.0%}" if share is not None else "-"),
        Piece(used),
        Piece(str(row.restarts), Role.BUSY if row.restarts else Role.DIM),
        _left(row),
        Piece(incident, Role.PLAIN if last else Role.DIM),
        Piece(held_by(vnode) or "-", Role.HELD if vnode.holder else Role.DIM),
        Piece(",".join(map(str, row.cpus)) or "-"),
    )


def _left(row: observe.Row) -> Piece:
    """Restarts before quarantine."""
    if row.restarts_left is None:
        return Piece("-", Role.DIM)
    return Piece(str(row.restarts_left), Role.PLAIN if row.restarts_left > 1 else Role.BAD)


def _rates(row: observe.Row) -> Piece:
    """Beats a second in each layer, of the slowest CPU."""
    if not row.beats:
        return Piece("-", Role.DIM)
    rates = [slowest(row, layer) for layer in LAYERS]
    role = Role.BAD if 0 in rates else Role.DIM if None in rates else Role.GOOD
    return Piece("/".join("?" if rate is None else f"{rate:.0f}" for rate in rates), role)


def _beats(vnode: Vnode, recorder: Recorder, layer: int) -> Piece:
    """A layer's last SPARK seconds."""
    history = recorder.rates(vnode.row.id, layer, SPARK)
    top = max((value for value in history if value is not None), default=0.0)
    return Piece(sparkline(history, top), Role.BAD if history[-1] == 0 else Role.GOOD)


def _root_row(row: observe.Row, late_ticks: int) -> Row:
    tick = row.beats[0]["tick"].rate_hz if row.beats else None
    late = f"{late_ticks} late"
    texts: dict[str, Piece] = {
        "id": Piece("0"),
        "name": Piece(row.name, Role.TITLE),
        "state": state(row),
        "reason": Piece(row.reason),
        "inc": Piece(str(row.incarnation)),
        "up": Piece(since(row.uptime_s)),
        "beats": Piece(f"tick {tick:.0f}" if tick is not None else "tick ?"),
        "detector": Piece(late, Role.BUSY) if late_ticks else Piece("-", Role.DIM),
        "incident": Piece(f"{row.incidents} in all" if row.incidents else "-", Role.DIM),
    }
    blank = Piece("-", Role.DIM)
    pieces = tuple(texts.get(column.key, blank) for column in COLUMNS)
    return Row("0", pieces, lambda column: SORTS[column](Vnode(row)))


def _number(value: float | None) -> float:
    return -1.0 if value is None else value
