# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect import locate, vmcoreinfo
from introspect.errors import Corrupt, IntrospectError, MemoryFault, NotFound
from introspect.memory import BufferMemory
from introspect.paging import LARGE, PRESENT, Leaf, PageTables, canonical

VA = 0xFFFF_8880_4020_3000


def tables(*, la57: bool, stop: int = 12) -> bytearray:
    """Tables at 0x1000 (root) upwards that map VA to 0x40203000 with a page of 1 << stop bytes."""
    memory = bytearray(0x8000)
    at = 0x1000
    for shift in (48, 39, 30, 21, 12) if la57 else (39, 30, 21, 12):
        slot = at + ((VA >> shift) & 511) * 8
        if shift == stop:
            flags = PRESENT | (LARGE if shift > 12 else 0)
            struct.pack_into("<Q", memory, slot, 0x4020_3000 & -(1 << shift) | flags | 1 << 63)
            break
        struct.pack_into("<Q", memory, slot, at + 0x1000 | PRESENT)
        at += 0x1000
    return memory


@pytest.mark.parametrize("la57", [False, True])
@pytest.mark.parametrize("stop", [12, 21, 30])
def test_walks_every_depth_and_page_size(la57: bool, stop: int) -> None:
    walker = PageTables(BufferMemory([(0, tables(la57=la57, stop=stop))]), 0x1000, la57=la57)
    size = 1 << stop
    leaf = walker.walk(VA + 5)
    assert leaf == Leaf(VA & -size, 0x4020_3000 & -size, size)
    assert list(walker.leaves(0, 1 << 64)) == [leaf]
    with pytest.raises(MemoryFault, match="not mapped") as caught:
        walker.walk(0x1000)
    assert caught.value.virtual
    assert locate.page_offset(walker) == 0xFFFF_8880_0000_0000 if not la57 else True


def test_a_missing_table_is_named() -> None:
    memory = tables(la57=False)[:0x2000]
    walker = PageTables(BufferMemory([(0, memory)]), 0x1000, la57=False)
    with pytest.raises(MemoryFault, match="page table at 0x2008 is not in memory"):
        walker.walk(VA)
    assert list(walker.leaves(0, 1 << 64)) == []


def test_canonical_addresses() -> None:
    assert canonical(1 << 47, False) == 0xFFFF_8000_0000_0000
    assert canonical(1 << 47, True) == 1 << 47
    assert canonical(1 << 56, True) == 0xFF00_0000_0000_0000


def test_tables_that_point_at_themselves_end() -> None:
    page = struct.pack("<512Q", *([0x1000 | PRESENT] * 512))
    walker = PageTables(BufferMemory([(0x1000, page)]), 0x1000, la57=True)
    assert len(list(walker.leaves(0, 1 << 64, limit=5000))) <= 5000
    # one entry each in the upper levels: the tables themselves are bounded too
    reads = []

    class Counted(BufferMemory):
        def read(self, pa: int, size: int) -> bytes:
            reads.append(pa)
            return super().read(pa, size)

    sparse = struct.pack("<512Q", *([0x1000 | PRESENT] * 2 + [0] * 510))
    list(PageTables(Counted([(0x1000, sparse)]), 0x1000, la57=True).leaves(0, 1 << 64, limit=320))
    assert len(reads) <= 320 // 16
    with pytest.raises(NotFound):
        locate.page_offset(PageTables(BufferMemory([(0, bytes(8192))]), 0x1000, la57=False))


@given(st.binary(min_size=64, max_size=64), st.integers(0, (1 << 64) - 1), st.booleans())
def test_random_tables_walk_or_fault(page: bytes, va: int, la57: bool) -> None:
    walker = PageTables(BufferMemory([(0, page * 256)]), 0, la57=la57)
    try:
        leaf = walker.walk(va)
        assert leaf.va <= va < leaf.va + leaf.size
    except MemoryFault:
        pass
    for leaf in walker.leaves(0, 1 << 64, limit=2000):
        assert leaf.size in (1 << 12, 1 << 21, 1 << 30)


TEXT = b"OSRELEASE=6.1\nSYMBOL(swapper_pg_dir)=ffffffff82410000\nNUMBER(phys_base)=-4096\n"


def test_vmcoreinfo_is_found_at_page_starts_and_in_notes() -> None:
    memory = bytearray(0x10000)
    memory[0x3000 : 0x3000 + len(TEXT)] = TEXT
    note = struct.pack("<III", 11, len(TEXT), 0) + b"VMCOREINFO\0\0" + TEXT
    memory[0x5000 : 0x5000 + len(note)] = note
    memory[0x7100 : 0x7100 + len(TEXT)] = TEXT  # not at a page's start
    memory[0x9000:0x9010] = b"OSRELEASE=fake\n\0"
    found = list(vmcoreinfo.find_notes(BufferMemory([(0x40000000, bytes(memory))])))
    assert [f.pa for f in found] == [0x40003000]  # the note holds the same text
    fields = found[0].fields
    assert fields.number("phys_base") == -4096
    assert fields.symbol("swapper_pg_dir") == 0xFFFF_FFFF_8241_0000
    with pytest.raises(NotFound, match=r"no SYMBOL\(prb\)"):
        fields.symbol("prb")


@given(st.binary(max_size=300))
def test_random_vmcoreinfo(data: bytes) -> None:
    try:
        info = vmcoreinfo.parse(b"OSRELEASE=" + data)
        assert all(key and "=" not in key for key in info)
    except Corrupt:
        pass
    try:
        vmcoreinfo.note_at(BufferMemory([(0, data + b"\0")]), 0)
    except IntrospectError:
        pass
