# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds kernels and their parts in physical memory by what they look like.

Two ways, neither needs VMCOREINFO: the first instructions of startup_64 at
the 2 MiB boundaries where every x86-64 kernel starts, and, should those be
unknown, the page table that maps kernel text (level3_kernel_pgt).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from introspect import kallsyms
from introspect.errors import IntrospectError, MemoryFault, NotFound
from introspect.kallsyms import KERNEL_MAP, SymbolTable
from introspect.memory import PAGE, BufferMemory, PhysicalMemory, windows
from introspect.paging import ADDRESS, LARGE, PRESENT, PageTables
from introspect.symbols import load

GIB = 1 << 30
ALIGN = 2 << 20
MAX_IMAGE = 128 << 20
IMAGE_CHUNK = 16 << 20

# The direct map lies between the guard hole and vmalloc (Documentation/arch/x86/x86_64/mm.rst),
# wherever CONFIG_RANDOMIZE_MEMORY puts it; kernel text and EFI are the last.
_HALF = {False: 0xFFFF_8880_0000_0000, True: 0xFF11_0000_0000_0000}
_END = 0xFFFF_FE00_0000_0000

# arch/x86/kernel/head_64.S, startup_64; those without a version are of kernels not at hand
_STARTUP = re.compile(
    rb"\x48\x8d\x2d\xf9\xff\xff\xff"  # lea _text(%rip),%rbp
    rb"|\x48\x8d\x25....\x48\x8d\x3d"  # 6.1: lea the stack,%rsp; lea _text(%rip),%rdi
    rb"|\x48\x8d\x25....\x56"  # lea the stack,%rsp; push %rsi
    rb"|\x49\x89\xf7\x48\x8d\x25"  # mov %rsi,%r15; lea the stack,%rsp
    rb"|\x49\x89\xf7\x48\x8b\x25",
    re.DOTALL,
)
_STARTUP_BYTES = 16


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


class Anchor(NamedTuple):
    """Bytes that one kernel build has at `offset` from _text, and no other build has."""

    offset: int
    data: bytes


def kernel_texts(memory: PhysicalMemory, anchor: Anchor | None = None) -> Iterator[int]:
    """Physical addresses of _text: one cheap look at each 2 MiB boundary.

    With the `anchor` of a kernel image (KernelImage.anchor) only that build is found, as soon
    as it has been decompressed; without, every build whose _text starts with startup_64, which
    is true of 6.1, and no more of 6.12.
    """
    skip, size = (anchor.offset, len(anchor.data)) if anchor else (0, _STARTUP_BYTES)
    extents = memory.extents() if isinstance(memory, BufferMemory) else memory.ranges
    for start, length in extents:
        first = max(0, start - skip + ALIGN - 1 & -ALIGN)
        for at in range(first, start + length - skip - size + 1, ALIGN):
            found = memory.read(at + skip, size)
            if isinstance(memory, BufferMemory):
                memory.release(at + skip & -ALIGN, 2 * ALIGN)
            if found == anchor.data if anchor else _STARTUP.match(found):
                yield at


def kernel_text(memory: PhysicalMemory, anchor: Anchor | None = None) -> int:
    """Physical address of the first kernel's _text; NotFound when there is none (yet)."""
    for at in kernel_texts(memory, anchor):
        return at
    if anchor is None:
        for at in texts_by_page_table(memory):
            return at
    raise NotFound("no kernel text starts at any 2 MiB boundary of this memory")


def texts_by_page_table(memory: PhysicalMemory) -> Iterator[int]:
    """Physical addresses of _text, from each page that looks like level3_kernel_pgt.

    Its entries 0 to 509 are empty, 510 maps the kernel, 511 the fixmap.
    """
    seen = set()
    for _, view in windows(memory):
        usable = len(view) & -PAGE
        entry = view[:usable].cast("Q")[510 :: PAGE // 8].tobytes()
        for index in range(0, len(entry), 8):
            # table entries have the present, writable and accessed bits, and are not large
            if entry[index] & 0xA3 != 0x23:
                continue
            page = bytes(view[index * 512 : index * 512 + PAGE])
            if page.count(0, 0, 4080) == 4080 and page[4088] & 1:
                text = _first_large(memory, int.from_bytes(page[4080:4088], "little") & ADDRESS)
                if text is not None and text not in seen:
                    seen.add(text)
                    yield text
        del entry
        view.release()


def _first_large(memory: PhysicalMemory, table: int) -> int | None:
    """The physical address that the first 2 MiB mapping of a table leads to."""
    try:
        entries = struct.unpack("<512Q", memory.read(table, PAGE))
    except MemoryFault:
        return None
    for entry in entries:
        if entry & PRESENT and entry & LARGE:
            return int(entry) & ADDRESS & -ALIGN
    return None


def read_image(memory: PhysicalMemory, start: int, most: int = MAX_IMAGE) -> bytes:
    """Up to `most` bytes from `start`, as far as memory goes without a gap."""
    for base, length in memory.ranges:
        if base <= start < base + length:
            return memory.read(start, min(most, base + length - start))
    return b""


def find_tables(memory: PhysicalMemory, text: int, text_va: int) -> kallsyms.Tables:
    """kallsyms of the image at physical `text`, as virtual addresses; NotFound without them."""
    most = IMAGE_CHUNK * 2
    while True:
        try:
            return kallsyms.find(read_image(memory, text, most), text_va).moved(text_va)
        except NotFound:
            if most >= MAX_IMAGE:
                raise
            most *= 2


class Bare:
    """A kernel found without VMCOREINFO: its symbols, and how its addresses translate."""

    def __init__(self, memory: PhysicalMemory, text: int) -> None:
        assumed = KERNEL_MAP + (16 << 20)  # until the page tables tell
        tables = find_tables(memory, text, assumed)

        def read(va: int, size: int) -> bytes:
            return memory.read(va - assumed + text, size)

        table = load(read, tables)
        from_text = table.address("init_top_pgt") - table.address("_text")
        self.root_pgt = text + from_text
        self.la57, text_va = _mapped_at(memory, self.root_pgt, text)
        self.phys_base = text - text_va + KERNEL_MAP
        self.text_va = text_va
        self.symbols: SymbolTable = table.rebased(table.base + text_va - table.address("_text"))


def _mapped_at(memory: PhysicalMemory, root: int, text: int) -> tuple[bool, int]:
    """(la57, virtual address) at which page tables at `root` map physical `text`."""
    for la57 in (False, True):
        tables = PageTables(memory, root, la57=la57)
        try:
            for leaf in tables.leaves(KERNEL_MAP, KERNEL_MAP + GIB, limit=8192):
                if leaf.pa <= text < leaf.pa + leaf.size:
                    return la57, leaf.va + text - leaf.pa
        except IntrospectError:
            continue
    raise NotFound(f"the page tables at {root:#x} do not map the kernel at {text:#x}")
