# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.elfcore import PT_LOAD, PT_NOTE, parse_notes
from introspect.errors import BadImage, IntrospectError, MemoryFault
from introspect.lent import LentMemory
from introspect.memory import BufferMemory, PhysicalMemory, open_image, windows
from tests.introspect.elfwriter import elf_core, elf_note


def test_buffer_memory_reads_within_and_across_segments() -> None:
    memory = BufferMemory([(0x2000, b"b" * 16), (0x1FF0, b"a" * 16), (0x9000, b"c")])
    assert isinstance(memory, PhysicalMemory)
    assert memory.ranges == [(0x1FF0, 16), (0x2000, 16), (0x9000, 1)]
    assert memory.read(0x1FF8, 16) == b"a" * 8 + b"b" * 8
    assert memory.read(0x9000, 1) == b"c"
    for pa, size in ((0x1000, 1), (0x200F, 2), (0x9001, 1), (0, 1), (0x1FF0, 1 << 40), (-1, 1)):
        with pytest.raises(MemoryFault) as caught:
            memory.read(pa, size)
        assert (caught.value.address, caught.value.size) == (pa, size)


def test_overlapping_segments_are_refused() -> None:
    with pytest.raises(BadImage, match="overlap"):
        BufferMemory([(0, bytes(16)), (8, bytes(16))])


@given(st.integers(-10, 200), st.integers(-10, 200))
def test_reads_are_whole_or_fault(pa: int, size: int) -> None:
    data = bytes(range(100))
    memory = BufferMemory([(10, data[:50]), (60, data[50:])])
    try:
        got = memory.read(pa, size)
    except MemoryFault:
        assert size < 0 or pa < 10 or pa + size > 110
    else:
        assert got == data[pa - 10 : pa - 10 + size]


def test_holes_of_a_sparse_file_read_as_zeros_and_are_not_scanned(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 64 << 30)
        os.pwrite(file.fileno(), b"x" * 4096, 40 << 30)
    memory = open_image(path)
    assert memory.ranges == [(0, 64 << 30)]
    assert memory.read(12 << 30, 16) == bytes(16)
    assert [(start, bytes(view[:1])) for start, view in windows(memory)] == [(40 << 30, b"x")]


def test_elf_core_gives_memory_and_notes(tmp_path: Path) -> None:
    note = elf_note(b"VMCOREINFO", 0, b"OSRELEASE=1\0")
    path = tmp_path / "core"
    path.write_bytes(
        elf_core([(PT_NOTE, 0, note), (PT_LOAD, 0x5000, b"five"), (PT_LOAD, 0x1000, b"ones")])
    )
    memory = open_image(path)
    assert memory.ranges == [(0x1000, 4), (0x5000, 4)]
    assert memory.read(0x5000, 4) == b"five"
    assert memory.vmcoreinfo_raw == b"OSRELEASE=1"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "too few"),
        (b"hello", "too few"),
        (b"\x7fELF", "not a 64-bit"),
        (elf_core([])[:40] + bytes(24), "do not fit"),
        (elf_core([(PT_LOAD, 0, b"x")], claimed=10 << 30), "truncated"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=said) as caught:
        open_image(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_truncated_core_gives_what_is_there_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "core"
    whole = elf_core([(PT_LOAD, 0, b"a" * 100), (PT_LOAD, 4096, b"b" * 100), (PT_LOAD, 9999, b"c")])
    path.write_bytes(whole[:-51])
    with pytest.raises(BadImage, match="truncated"):
        open_image(path)
    memory = open_image(path, partial=True)
    assert memory.ranges == [(0, 100), (4096, 50)]
    assert memory.missing == 51  # type: ignore[attr-defined]
    with pytest.raises(MemoryFault):
        memory.read(4096, 51)
    path.write_bytes(whole)
    assert open_image(path, partial=True).missing == 0  # type: ignore[attr-defined]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        open_image(tmp_path / "none")


@given(st.binary(max_size=300), st.integers(0, 200), st.binary(max_size=8))
def test_mutated_cores_only_raise_our_errors(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, at: int, patch: bytes
) -> None:
    data = bytearray(elf_core([(PT_NOTE, 0, tail), (PT_LOAD, 4096, tail)]))
    data[at : at + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(data)
    try:
        memory = open_image(path)
        for start, size in memory.ranges:
            assert len(memory.read(start, size)) == size
    except IntrospectError:
        pass


@given(st.binary(max_size=200))
def test_notes_of_random_bytes_end(data: bytes) -> None:
    assert sum(1 for _ in parse_notes(data)) <= len(data)


def test_lent_memory_is_no_more_once_it_was_taken_back() -> None:
    lent = [True]
    memory = LentMemory([(0x1000, b"ab" * 2048), (0x3000, b"cd" * 2048)], lambda: lent[0])
    assert memory.read(0x1001, 3) == b"bab"
    assert memory.view(0x3000, 2) == b"cd"
    lent[0] = False
    with pytest.raises(MemoryFault):
        memory.read(0x1001, 3)
    assert memory.view(0x3000, 2) is None
