# SPDX-License-Identifier: GPL-2.0-or-later
"""Composing the headers of an ELF64 core file: bytes out, no I/O.

Only what a vmcore needs: the file header, program headers and notes.
Source: System V ABI, AMD64 supplement; linux/include/uapi/linux/elf.h.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PT_LOAD = 1
PT_NOTE = 4
ET_CORE = 4
EM_X86_64 = 62

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
NHDR = struct.Struct("<III")

# makedumpfile (elf_info.c) reads the program headers right behind the file header
PHDR_OFFSET = EHDR.size
MAX_PHDRS = 0xFFFE  # e_phnum 0xffff means "look elsewhere" (PN_XNUM), which crash does not
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)


class ProgramHeader(NamedTuple):
    """One PT_LOAD or PT_NOTE; addresses and sizes in bytes.

    ``p_align`` stays 0: crash (netdump.c) takes a core for a netdump when its
    loads are aligned, and then does not look for KASLR.
    """

    kind: int
    offset: int
    vaddr: int
    paddr: int
    size: int
    flags: int = 7


class Note(NamedTuple):
    """One ELF note: ``name`` without its NUL."""

    name: bytes
    kind: int
    desc: bytes


def pack_note(note: Note) -> bytes:
    """``note`` as bytes, name and descriptor padded to 4 (as the kernel does)."""
    name = note.name + b"\0"
    return b"".join(
        (
            NHDR.pack(len(name), len(note.desc), note.kind),
            name + bytes(-len(name) % 4),
            note.desc + bytes(-len(note.desc) % 4),
        )
    )


def pack_notes(notes: Iterable[Note]) -> bytes:
    return b"".join(map(pack_note, notes))


def pack_headers(loads: Sequence[ProgramHeader], notes: bytes) -> bytes:
    """File header, program headers (PT_NOTE first) and the notes behind them.

    :raises ValueError: more program headers than ``e_phnum`` can tell.
    """
    count = 1 + len(loads)
    if count > MAX_PHDRS:
        raise ValueError(f"{count} program headers, an ELF core holds {MAX_PHDRS}")
    at = PHDR_OFFSET + count * PHDR.size
    ident = EHDR.pack(
        _IDENT, ET_CORE, EM_X86_64, 1, 0, PHDR_OFFSET, 0, 0, EHDR.size, PHDR.size, count, 0, 0, 0
    )
    note = ProgramHeader(PT_NOTE, at, 0, 0, len(notes), flags=0)
    return ident + b"".join(map(_pack_phdr, (note, *loads))) + notes


def _pack_phdr(head: ProgramHeader) -> bytes:
    return PHDR.pack(
        head.kind,
        head.flags,
        head.offset,
        head.vaddr,
        head.paddr,
        head.size,
        head.size,
        0,
    )
