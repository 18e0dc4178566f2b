# SPDX-License-Identifier: GPL-2.0-or-later
"""Synthetic kernels: a few pages of memory with VMCOREINFO and page tables that agree."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crashdump.facts import START_KERNEL_MAP, Segment
from crashdump.notes import CpuState
from crashdump.store import IncidentStore

PAGE = 4096


@dataclass
class SyntheticKernel:
    """4 MiB of memory at `base`: tables, a note, an image of 4 pages, two vmalloc pages."""

    base: int = 0x20000000
    page_offset: int = 0xFFFF8E2400000000
    text: int = 0xFFFFFFFF9AC00000
    vmalloc: int = 0xFFFFD3A300000000
    size: int = 4 << 20
    memory: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.memory = bytearray(self.size)
        self._next = self.base + 0x100000
        self.root = self.base + 0x80000
        self.note_pa = self.base + 0x40000
        self.image_pa = self.base + 0x200000
        self.phys_base = self.image_pa - (self.text - START_KERNEL_MAP)
        for page in range(4):
            self.map(self.text + page * PAGE, self.image_pa + page * PAGE)
            self.poke(self.image_pa + page * PAGE, b"text page %d" % page)
        for page in range(0, self.size, 2 << 20):
            self.map(self.page_offset + self.base + page, self.base + page, large=True)
        self.map(self.vmalloc, self.base + 0x300000)
        self.map(self.vmalloc + PAGE, self.base + 0x310000)
        self.info = (
            "OSRELEASE=6.1.0-test\nPAGESIZE=4096\n"
            f"SYMBOL(swapper_pg_dir)={self.root - self.phys_base + START_KERNEL_MAP:x}\n"
            f"SYMBOL(_stext)={self.text:x}\nNUMBER(phys_base)={self.phys_base}\n"
            "NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=19c00000\n"
        ).encode()
        head = struct.pack("<III", 11, len(self.info), 0) + b"VMCOREINFO\0\0"
        self.poke(self.note_pa, head + self.info)

    def poke(self, pa: int, data: bytes) -> None:
        self.memory[pa - self.base : pa - self.base + len(data)] = data

    def map(self, va: int, pa: int, *, large: bool = False) -> None:
        table = self.root
        for shift in (39, 30, 21, 12):
            at = table + ((va >> shift) & 511) * 8
            if shift == (21 if large else 12):
                self.poke(at, struct.pack("<Q", pa | (0x80 if large else 0) | 3))
                return
            offset = at - self.base
            (entry,) = struct.unpack_from("<Q", self.memory, offset)
            if not entry:
                entry, self._next = self._next | 3, self._next + PAGE
                self.poke(at, struct.pack("<Q", entry))
            table = entry & ~0xFFF

    @property
    def segments(self) -> list[Segment]:
        return [Segment(self.base, memoryview(self.memory))]


@pytest.fixture
def synthetic_kernel() -> SyntheticKernel:
    return SyntheticKernel()


@pytest.fixture
def incident_store(tmp_path: Path) -> Iterator[IncidentStore]:
    with IncidentStore(tmp_path / "state") as store:
        yield store


@pytest.fixture
def two_cpus() -> list[CpuState]:
    return [
        CpuState(cpu, tuple(range(cpu * 100, cpu * 100 + 27)), True, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        for cpu in (0, 1)
    ]
