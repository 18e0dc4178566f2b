# SPDX-License-Identifier: GPL-2.0-or-later
"""What a number in a register or on a stack is: a symbol, a task, a slab object, a poison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from introspect.errors import IntrospectError, NotFound
from introspect.lists import walk

if TYPE_CHECKING:
    from crashdump.analysis.subject import Subject
    from introspect.kernel import Kernel

MAX_CACHES = 4096
PAGE_SHIFT = 12
MAX_STRUCT_PAGE = 256
FAR = 1 << 24  # bytes past a symbol of unknown size that no longer belong to it
# include/linux/poison.h (6.1)
POISONS = {
    0xDEAD000000000100: "LIST_POISON1: next of a deleted list entry",
    0xDEAD000000000122: "LIST_POISON2: prev of a deleted list entry",
    0xDEAD4EAD: "SPINLOCK_MAGIC",
}
FILLS = {
    0x6B: "freed by the allocator (POISON_FREE)",
    0x5A: "never written (POISON_INUSE)",
    0xA5: "end of a poisoned object (POISON_END)",
    0xCC: "freed init memory (POISON_FREE_INITMEM)",
    0xBB: "red zone, inactive (SLUB_RED_INACTIVE)",
}


class Values:
    """Names for values, with the slab caches looked up once."""

    def __init__(self, subject: Subject) -> None:
        self._kernel = subject.kernel
        self._subject = subject
        self._caches: dict[int, str] | None = None

    def describe(self, value: int) -> str:
        """A few words on `value`, "" when nothing is known about it."""
        if value in POISONS:
            return POISONS[value]
        low = value & 0xFF
        if low in FILLS and value == int.from_bytes(bytes([low]) * 8, "little"):
            return FILLS[low]
        if value < 1 << 16:
            return "" if value > 4095 else "NULL" if not value else str(value)
        if value >> 47 not in (0, (1 << 17) - 1) and not self._kernel.la57:
            return "not canonical"
        return self._task(value) or self._symbol(value) or self._slab(value)

    def _task(self, value: int) -> str:
        try:
            tasks = self._subject.tasks
        except IntrospectError:
            return ""
        for task in tasks:
            if task.address == value:
                return f"task {task.comm} ({task.pid})"
            if task.stack and task.stack <= value < task.stack + 0x4000:
                return f"stack of {task.comm} ({task.pid})"
        return ""

    def _symbol(self, value: int) -> str:
        try:
            symbol = self._kernel.symbols.find(value)
        except IntrospectError:
            return ""
        if value - symbol.address > (symbol.size or FAR):
            return ""
        return self._kernel.symbols.describe(value)

    def _slab(self, value: int) -> str:
        try:
            name = slab_cache(self._kernel, value, self.caches)
        except IntrospectError:
            return ""
        return f"object of slab {name}" if name else ""

    @property
    def caches(self) -> dict[int, str]:
        if self._caches is None:
            try:
                self._caches = dict(slab_caches(self._kernel))
            except IntrospectError:
                self._caches = {}
        return self._caches


def slab_caches(kernel: Kernel) -> list[tuple[int, str]]:
    """(address, name) of each struct kmem_cache."""
    kind = kernel.btf.struct("kmem_cache")
    link, name = kind.offset("list"), kind.offset("name")
    head = kernel.symbols.table.address("slab_caches")
    found = []
    for node in walk(kernel, head, MAX_CACHES):
        at = node - link
        found.append((at, kernel.string(kernel.u64(at + name), 64)))
    return found


def slab_cache(kernel: Kernel, va: int, caches: dict[int, str]) -> str:
    """The slab cache that owns the page at `va`, "" when none does.

    Believed when struct slab names a cache that is on the list: no page flag is asked.
    """
    if not kernel.page_offset <= va < kernel.page_offset + (1 << 46):
        return ""
    page, slab = kernel.btf.struct("page"), _slab_type(kernel)
    if not 32 <= page.size <= MAX_STRUCT_PAGE:
        return ""
    base = kernel.u64(kernel.symbols.table.address("vmemmap_base"))
    at = base + (va - kernel.page_offset >> PAGE_SHIFT) * page.size
    head = kernel.u64(at + page.offset("compound_head"))
    if head & 1:
        at = head - 1
    return caches.get(kernel.u64(at + slab), "")


def _slab_type(kernel: Kernel) -> int:
    try:
        return kernel.btf.struct("slab").offset("slab_cache")  # since 5.17 (d122019bf061)
    except NotFound:
        return kernel.btf.struct("page").offset("slab_cache")
