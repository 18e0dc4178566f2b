# SPDX-License-Identifier: GPL-2.0-or-later
"""x86-64 page tables: four or five levels, pages of 4 KiB, 2 MiB and 1 GiB.

Source: Intel SDM volume 3, chapter 5 "Paging" (4-level and 5-level paging).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from introspect.errors import MemoryFault
from introspect.memory import PhysicalMemory

PRESENT = 1
TABLE_COST = 16
LARGE = 1 << 7
ADDRESS = 0x000F_FFFF_FFFF_F000
LEVELS = (39, 30, 21, 12)
LEVELS_LA57 = (48, *LEVELS)

_TABLE = struct.Struct("<512Q")


class Leaf(NamedTuple):
    """One mapping: `size` bytes from virtual `va` lie at physical `pa`."""

    va: int
    pa: int
    size: int


def canonical(va: int, la57: bool) -> int:
    """`va` with bit 47 (56 with LA57) copied upwards, as 64 bits."""
    bits = 57 if la57 else 48
    va &= (1 << bits) - 1
    return va | (-1 << bits) & (1 << 64) - 1 if va >> (bits - 1) else va


class PageTables:
    """One set of page tables, at physical `root`.

    `encryption` is the AMD memory-encryption bit (NUMBER(sme_mask)), removed from entries.
    """

    def __init__(
        self, memory: PhysicalMemory, root: int, *, la57: bool, encryption: int = 0
    ) -> None:
        self.memory = memory
        self.root = root & ADDRESS
        self.la57 = la57
        self._mask = ADDRESS & ~encryption
        self._levels = LEVELS_LA57 if la57 else LEVELS

    def walk(self, va: int) -> Leaf:
        """The mapping that holds `va`; MemoryFault when there is none."""
        table, mask = self.root, self._mask
        try:
            for shift in self._levels:
                at = table + ((va >> shift) & 511) * 8
                entry = int.from_bytes(self.memory.read(at, 8), "little")
                if not entry & PRESENT:
                    break
                table = entry & mask
                if shift == 12 or (entry & LARGE and shift in (21, 30)):
                    size = 1 << shift
                    return Leaf(va & -size, table & -size, size)
        except MemoryFault as fault:
            why = f"its page table at {fault.address:#x} is not in memory"
            raise MemoryFault(va, 1, virtual=True, why=why) from None
        raise MemoryFault(va, 1, virtual=True)

    def leaves(self, start: int, end: int, limit: int = 1 << 20) -> Iterator[Leaf]:
        """The mappings in [start, end), ascending; at most `limit` table entries are looked at.

        A table costs TABLE_COST of them: tables that point at one another end soon.
        Tables that are not in memory are passed over.
        """
        budget = [limit]
        yield from self._leaves(self.root, 0, start, end, 0, budget)

    def _leaves(
        self, table: int, depth: int, start: int, end: int, base: int, budget: list[int]
    ) -> Iterator[Leaf]:
        shift = self._levels[depth]
        budget[0] -= TABLE_COST
        if budget[0] < 0:
            return
        try:
            entries = _TABLE.unpack(self.memory.read(table, 4096))
        except MemoryFault:
            return
        for index, entry in enumerate(entries):
            if not entry & PRESENT:
                continue
            va = canonical(base | index << shift, self.la57)
            if va >= end or va + (1 << shift) <= start:
                continue
            budget[0] -= 1
            if budget[0] < 0:
                return
            pa = entry & self._mask
            if shift == 12 or (entry & LARGE and shift in (21, 30)):
                yield Leaf(va, pa & -(1 << shift), 1 << shift)
            elif depth + 1 < len(self._levels):
                yield from self._leaves(pa, depth + 1, start, end, base | index << shift, budget)
