# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual memory of a kernel through its page tables, with a software TLB.

A translation costs up to five reads of physical memory, so mappings are kept by
page: 2 MiB for large ones, 4 KiB for small ones.  In shared memory page tables
change under us: there a translation is never older than TLB_AGE_NS, and
invalidate() drops all at each stop event.  Memory outside the vnode's RAM is
never touched: PhysicalMemory refuses it.
"""

from collections.abc import Callable
from time import monotonic_ns

from debugger.errors import AddressError
from introspect.errors import MemoryFault
from introspect.memory import PhysicalMemory
from introspect.paging import PageTables, canonical

TLB_AGE_NS = 10_000_000
"""Small against what a human or a script sees, large against a burst of packets."""
_SMALL = 12
_LARGE = 21
_TLB_ENTRIES = 65536


class AddressSpace:
    """Reads of physical memory and of virtual memory under one page-table root.

    `check` is for memory that others write: called each TLB_AGE_NS of reading, it
    raises when what was attached to is no longer there.  None: memory stands still.
    """

    def __init__(self, tables: PageTables, check: Callable[[], None] | None) -> None:
        self.memory: PhysicalMemory = tables.memory
        self._check = check
        self._tables = tables
        self._large: dict[int, int] = {}
        self._small: dict[int, int] = {}
        self._expires = 0

    def invalidate(self) -> None:
        """Forget all translations."""
        self._large.clear()
        self._small.clear()

    def read_physical(self, address: int, size: int) -> bytes:
        """`size` bytes of RAM; AddressError when one of them is not the vnode's."""
        try:
            return self.memory.read(address, size)
        except MemoryFault:
            raise AddressError(address, size, "not RAM of this vnode") from None

    def read(self, address: int, size: int) -> bytes:
        """Virtual memory, possibly less than `size` bytes; AddressError when not even one."""
        if self._check is not None:
            now = monotonic_ns()
            if now > self._expires:
                self._check()
                self.invalidate()
                self._expires = now + TLB_AGE_NS
        physical, left = self.translate(address)
        if size <= left:
            try:
                return self.memory.read(physical, size)
            except MemoryFault:
                pass  # the page reaches out of the RAM: go on piece by piece
        return self._read_pieces(address, size)

    def _read_pieces(self, address: int, size: int) -> bytes:
        pieces: list[bytes] = []
        at, end = address, min(address + size, 1 << 64)
        while at < end:
            try:
                pieces.append(self._piece(at, end - at))
            except (AddressError, MemoryFault):
                break
            at += len(pieces[-1])
        if not pieces:
            raise AddressError(address, size, "not RAM of this vnode")
        return b"".join(pieces)

    def _piece(self, at: int, size: int) -> bytes:
        """What one page maps from `at` on; less when a large page leaves the RAM."""
        physical, left = self.translate(at)
        try:
            return self.memory.read(physical, min(left, size))
        except MemoryFault:
            return self.memory.read(physical, min(0x1000 - (at & 0xFFF), size))

    def translate(self, address: int) -> tuple[int, int]:
        """Physical address, and the bytes up to the end of its page; AddressError."""
        base = self._large.get(address >> _LARGE)
        if base is not None:
            offset = address & 0x1FFFFF
            return base + offset, 0x200000 - offset
        base = self._small.get(address >> _SMALL)
        offset = address & 0xFFF
        if base is not None:
            return base + offset, 0x1000 - offset
        if canonical(address, self._tables.la57) != address:
            raise AddressError(address, 1, "not a canonical address")
        try:
            leaf = self._tables.walk(address)
        except MemoryFault:
            raise AddressError(address, 1, "not mapped") from None
        if len(self._small) > _TLB_ENTRIES or len(self._large) > _TLB_ENTRIES:
            self.invalidate()
        physical = leaf.pa + address - leaf.va
        if leaf.size < 1 << _LARGE:
            self._small[address >> _SMALL] = physical - offset
            return physical, 0x1000 - offset
        offset = address & 0x1FFFFF
        self._large[address >> _LARGE] = physical - offset
        return physical, 0x200000 - offset
