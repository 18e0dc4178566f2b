# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF vmcores: kdump's, QEMU's dump-guest-memory, makedumpfile -E's, ours.

PT_LOAD segments give physical memory; PT_NOTE gives VMCOREINFO and the
registers of each CPU.  The headers are bounded before they are believed.
Source: elf(5), fs/proc/vmcore.c and QEMU's dump/dump.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from introspect.errors import BadImage
from introspect.memory import Buffer, FileMemory, map_file

EM_X86_64, ET_CORE = 62, 4
PT_LOAD, PT_NOTE, PN_XNUM = 1, 4, 0xFFFF
NT_PRSTATUS, NT_GNU_BUILD_ID = 1, 3
PRSTATUS_REGISTERS, USER_REGS_SIZE = 112, 216
MAX_HEADERS, MAX_NOTES = 1 << 20, 64 << 20
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")


class Segment(NamedTuple):
    """A program header: sizes and offsets in bytes."""

    type: int
    offset: int
    va: int
    pa: int
    file_size: int
    memory_size: int


class Note(NamedTuple):
    name: bytes
    type: int
    data: bytes


class ElfMemory(FileMemory):
    """The physical memory of a vmcore, and what its notes tell.

    missing  bytes that its headers promise and the file does not hold
    """

    def __init__(
        self,
        path: Path,
        segments: Sequence[tuple[int, int, int]],
        notes: Sequence[Note],
        missing: int = 0,
    ) -> None:
        super().__init__(path, segments)
        self.notes = notes
        self.missing = missing

    @property
    def vmcoreinfo_raw(self) -> bytes | None:
        """The text of the VMCOREINFO note; QEMU's vmcores have it only with fw_cfg's vmcoreinfo."""
        for note in self.notes:
            if note.name == b"VMCOREINFO":
                return note.data.split(b"\0", 1)[0]
        return None

    @property
    def registers(self) -> list[bytes]:
        """struct user_regs_struct of each CPU, 216 bytes, in the order of the notes."""
        return prstatus_registers(self.notes)


def prstatus_registers(notes: Sequence[Note]) -> list[bytes]:
    """The registers of each PRSTATUS note."""
    start, end = PRSTATUS_REGISTERS, PRSTATUS_REGISTERS + USER_REGS_SIZE
    return [
        note.data[start:end]
        for note in notes
        if note.name == b"CORE" and note.type == NT_PRSTATUS and len(note.data) >= end
    ]


def open_elf(path: Path, *, partial: bool = False) -> ElfMemory:
    """Opens a vmcore; BadImage says why a file is none, or that it is truncated (not `partial`)."""
    mapped, size = map_file(path)
    missing = 0
    segments = list(program_headers(mapped, str(path)))
    notes: list[Note] = []
    loads = []
    for segment in segments:
        if segment.type == PT_LOAD and segment.file_size:
            there = min(max(size - segment.offset, 0), segment.file_size)
            if there < segment.file_size and not partial:
                raise BadImage(_truncated(path, segment, size))
            missing += segment.file_size - there
            loads.append((segment.pa, segment.offset, there))
        elif segment.type == PT_NOTE:
            end = segment.offset + min(segment.file_size, MAX_NOTES)
            notes += parse_notes(bytes(mapped[segment.offset : end]))
    return ElfMemory(path, _without_overlaps(loads), notes, missing)


def _truncated(path: Path, segment: Segment, size: int) -> str:
    return (
        f"{path}: segment of {segment.file_size} bytes at file offset {segment.offset} is past "
        f"the end of the file ({size} bytes): the vmcore is truncated"
    )


def _without_overlaps(loads: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Drops what an earlier segment covers: kdump repeats the kernel text at its own address."""
    out: list[tuple[int, int, int]] = []
    end = -1
    for pa, offset, size in sorted(loads, key=lambda load: (load[0], -load[2])):
        skip = max(0, end - pa)
        if skip < size:
            out.append((pa + skip, offset + skip, size - skip))
            end = pa + size
    return out


def program_headers(data: Buffer, what: str) -> Iterator[Segment]:
    """The program headers of an x86-64 ELF core; BadImage when it is something else."""
    if len(data) < _EHDR.size or data[:6] != b"\x7fELF\x02\x01":
        raise BadImage(f"{what}: not a 64-bit little-endian ELF file")
    fields = _EHDR.unpack_from(data)
    kind, machine, phoff, shoff, phentsize, phnum = (fields[i] for i in (1, 2, 5, 6, 9, 10))
    if kind != ET_CORE or machine != EM_X86_64:
        raise BadImage(f"{what}: an ELF file, but not an x86-64 core dump")
    if phnum == PN_XNUM:  # the true number is in section header 0, sh_info
        if shoff + 64 > len(data):
            raise BadImage(f"{what}: its section header lies past the end of the file")
        phnum = struct.unpack_from("<I", data, shoff + 44)[0]
    if phentsize != _PHDR.size or phnum > MAX_HEADERS or phoff + phnum * _PHDR.size > len(data):
        raise BadImage(f"{what}: {phnum} program headers at {phoff} do not fit: truncated?")
    for index in range(phnum):
        kind, _, offset, va, pa, file_size, memory_size, _ = _PHDR.unpack_from(
            data, phoff + index * _PHDR.size
        )
        yield Segment(kind, offset, va, pa, file_size, memory_size)


def parse_notes(data: bytes) -> Iterator[Note]:
    """The notes of a PT_NOTE segment; stops at the first that does not fit."""
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, data_size, kind = _NOTE.unpack_from(data, at)
        start = at + _NOTE.size + (name_size + 3 & -4)
        if start + data_size > len(data):
            return
        name = data[at + _NOTE.size : at + _NOTE.size + name_size].rstrip(b"\0")
        if name_size:
            yield Note(name, kind, data[start : start + data_size])
        at = start + (data_size + 3 & -4)


def build_id(notes: bytes) -> str:
    """The GNU build id of a note section, hex; "" when it has none."""
    for note in parse_notes(notes):
        if note.name == b"GNU" and note.type == NT_GNU_BUILD_ID:
            return note.data.hex()
    return ""
