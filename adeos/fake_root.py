# SPDX-License-Identifier: GPL-2.0-or-later
"""What the root's own kernel says in a FakeMachine: its beats, its last word, its memory."""

from __future__ import annotations

from adeos import abi
from adeos.abi import Range
from adeos.errors import PlacementError
from adeos.fake_part import FakePart


class FakeRoot(FakePart):
    """Part of FakeMachine."""

    root_pa: int
    _memory: list[tuple[Range, memoryview]]

    def __init__(self) -> None:
        super().__init__()
        self.root_ram: tuple[Range, ...] = ()
        """What the successor is told of the root's own memory."""

    def successor(self, vnode: int) -> None:
        self._owned()
        if not 0 <= vnode < abi.VN_MAX_VNODES:
            raise PlacementError(f"vnode {vnode} cannot succeed")
        ram = self.root_ram
        self._write_last(self.last()._replace(successor=vnode, nranges=len(ram), range=ram))

    def last(self) -> abi.Last:
        """What the root's kernel says of itself."""
        last: abi.Last = abi.LAST.unpack(self.raw(self.root_pa + abi.VN_ROOT_LAST, abi.LAST.size))
        return last

    def _write_last(self, last: abi.Last) -> None:
        last = last._replace(magic=abi.VN_LAST_MAGIC, abi=abi.VN_ABI_VERSION)
        self.raw(self.root_pa + abi.VN_ROOT_LAST, abi.LAST.size)[:] = abi.LAST.pack(last)

    def root_beat(self) -> None:
        """A beat of the root's kernel."""
        last = self.last()
        self._write_last(last._replace(beat=last.beat + 1, beat_tsc=self.tsc()))

    def root_ends(self, state: abi.LastState, message: str = "") -> None:
        """The root's kernel panics, or halts in order."""
        last = self.last()._replace(state=state, tsc=self.tsc(), message=message)
        if state is abi.LastState.PANIC:
            last = last._replace(comm="bash", pid=42)
        self._write_last(last)

    def add_root_ram(self, base: int, data: memoryview) -> None:
        """Memory of the root that its successor sees once one is named."""
        self._memory.append((Range(base, len(data)), data))
        self.root_ram = (*self.root_ram, Range(base, len(data)))
