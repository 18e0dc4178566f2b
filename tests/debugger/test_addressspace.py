# SPDX-License-Identifier: GPL-2.0-or-later
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger import addressspace
from debugger.addressspace import AddressSpace
from debugger.errors import AddressError, TargetGone
from introspect.memory import BufferMemory
from introspect.paging import PageTables

RAM = 8 << 20
KERNEL = 0xFFFFFFFF80000000  # 2 MiB page -> 4 MiB
EDGE = KERNEL + (2 << 20)  # 2 MiB page -> the last MiB of RAM and one MiB beyond it
SMALL = KERNEL + (4 << 20)  # 4 KiB pages -> 0x100000, 0x103000, nothing
PRESENT, LARGE = 3, 0x83


def build() -> bytearray:
    ram = bytearray(RAM)
    for at in range(0x100000, RAM, 4096):
        ram[at : at + 8] = at.to_bytes(8, "little")

    def entry(table: int, index: int, value: int) -> None:
        struct.pack_into("<Q", ram, table + 8 * index, value)

    entry(0x1000, 511, 0x2000 | PRESENT)
    entry(0x2000, 510, 0x3000 | PRESENT)
    entry(0x3000, 0, (4 << 20) | LARGE)
    entry(0x3000, 1, (6 << 20) | LARGE)
    entry(0x3000, 2, 0x4000 | PRESENT)
    entry(0x4000, 0, 0x100000 | PRESENT)
    entry(0x4000, 1, 0x103000 | PRESENT)
    return ram


IMAGE = build()


def space(ram: bytearray, end: int = RAM, check: object = None) -> AddressSpace:
    memory = BufferMemory([(0, memoryview(ram)[:end])])
    return AddressSpace(PageTables(memory, 0x1000, la57=False), check)  # type: ignore[arg-type]


def test_large_and_small_pages() -> None:
    ram = build()
    s = space(ram)
    assert s.read(KERNEL + 0x1000, 8) == ram[0x401000:0x401008]
    assert s.read(SMALL, 8) == ram[0x100000:0x100008]
    assert s.read(SMALL + 0x1000, 8) == ram[0x103000:0x103008]
    assert s.read(SMALL + 0xFFC, 8) == ram[0x100FFC:0x101000] + ram[0x103000:0x103004]


@given(st.integers(0, (2 << 20) + 0x1FFF), st.integers(1, 3 << 20))
def test_reads_equal_byte_by_byte_translation(offset: int, size: int) -> None:
    s = space(IMAGE)
    start = KERNEL + (2 << 20) + offset
    mapped = IMAGE[6 << 20 : 8 << 20] + IMAGE[0x100000:0x101000] + IMAGE[0x103000:0x104000]
    assert s.read(start, size) == mapped[offset : offset + size]
    assert s.read(start, size) == mapped[offset : offset + size]  # now out of the TLB


@pytest.mark.parametrize(
    "address",
    [
        0,
        SMALL + 0x2000,
        KERNEL - 1,
        KERNEL + (1 << 30),
        0x0000FFFF80000000,
        0xFFFF7FFF80000000,
        (1 << 64) - 1,
    ],
)
def test_unmapped_and_non_canonical_addresses(address: int) -> None:
    with pytest.raises(AddressError) as error:
        space(build()).read(address, 8)
    assert error.value.address == address


def test_nothing_is_read_beyond_the_ram() -> None:
    ram = build()
    s = space(ram, end=7 << 20)
    assert s.read(EDGE + (1 << 20) - 16, 64) == ram[(7 << 20) - 16 : 7 << 20]
    assert len(s.read(EDGE + (1 << 20) - 0x2000, 2 << 20)) == 0x2000
    with pytest.raises(AddressError):
        s.read(EDGE + (1 << 20), 1)
    with pytest.raises(AddressError):
        s.read_physical((7 << 20) - 1, 2)


def test_shared_memory_is_translated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressspace, "TLB_AGE_NS", 0)
    ram = build()
    still, live = space(ram), space(ram, check=lambda: None)
    for s in (still, live):
        assert s.read(SMALL, 8) == ram[0x100000:0x100008]
    struct.pack_into("<Q", ram, 0x4000, 0x105000 | PRESENT)
    assert live.read(SMALL, 8) == ram[0x105000:0x105008]
    assert still.read(SMALL, 8) == ram[0x100000:0x100008]
    still.invalidate()
    assert still.read(SMALL, 8) == ram[0x105000:0x105008]


def test_a_target_that_is_gone_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressspace, "TLB_AGE_NS", 0)

    def check() -> None:
        raise TargetGone("restarted")

    with pytest.raises(TargetGone):
        space(build(), check=check).read(SMALL, 8)
