# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds kernels and their parts in physical memory by what they look like."""

from __future__ import annotations

from introspect import kallsyms
from introspect.errors import MemoryFault, NotFound
from introspect.kallsyms import Tables
from introspect.memory import PhysicalMemory
from introspect.paging import PageTables

GIB = 1 << 30
ALIGN = 2 << 20
MAX_IMAGE = 96 << 20

# The direct map lies between the guard hole and vmalloc (Documentation/arch/x86/x86_64/mm.rst),
# wherever CONFIG_RANDOMIZE_MEMORY puts it; kernel text and EFI are the last.
_HALF = {False: 0xFFFF_8880_0000_0000, True: 0xFF11_0000_0000_0000}
_END = 0xFFFF_FE00_0000_0000


def page_offset(tables: PageTables) -> int:
    """Virtual address of physical 0 in the direct map, from the page tables alone.

    The direct map is the lowest region of the kernel's half and starts at a multiple of 1 GiB
    (arch/x86/mm/kaslr.c), so its first mapping tells.  NotFound when nothing is mapped there.
    """
    for leaf in tables.leaves(_HALF[tables.la57], _END, limit=1 << 16):
        offset = leaf.va - leaf.pa
        if offset % GIB == 0 and offset >= _HALF[tables.la57]:
            return offset
    raise NotFound("the page tables hold no direct map")


def read_image(memory: PhysicalMemory, start: int, most: int = MAX_IMAGE) -> bytes:
    """Up to `most` bytes from `start`, as far as memory goes without a gap."""
    size = 0
    for base, length in memory.ranges:
        if base <= start + size < base + length:
            size = base + length - start
    try:
        return memory.read(start, min(size, most))
    except MemoryFault:
        return b""


def kallsyms_tables(memory: PhysicalMemory, text: int, text_va: int) -> Tables:
    """kallsyms of the image at physical `text`, as virtual addresses; NotFound without them."""
    found = kallsyms.find(read_image(memory, text), text_va)
    return found.moved(text_va)
