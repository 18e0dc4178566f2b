# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol file for stock gdb, made from the kernel itself: no debuginfo is needed.

An ELF executable whose sections hold nothing but addresses (SHT_NOBITS), with
.symtab from kallsyms (sizes from the gaps, FUNC or OBJECT by section), the
build id, types from BTF (dwarf.py) and call frame information from ORC
(frames.py).  It is made for the addresses the kernel was linked at and loaded
with `add-symbol-file -o OFFSET`: KASLR moves a kernel at every start, and this
way one file serves them all.

The file is named by a digest of all that it is made from, not by the build id
the memory claims: a hostile vnode cannot put false names under another kernel's.

Limits: no line numbers, no functions' types; modules have files of their own
(modulefile.py).  What BTF or ORC a kernel lacks, or has in disorder, is left out.
"""

import logging
import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from debugger import elf
from debugger.elf import Section, SectionType
from debugger.errors import SymbolFileError
from introspect import cache
from introspect.errors import IntrospectError
from introspect.kallsyms import SymbolTable
from introspect.kernel import Kernel

_log = logging.getLogger(__name__)

PERCPU = ".data..percpu"
"""Linked at 0 and not moved by KASLR: load with `add-symbol-file -s .data..percpu 0`."""
PERCPU_MAX = 1 << 24
BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){8,32}")
FORMAT = 6
"""Part of the cache key: raise it when the file's content changes."""
_MAX_SOURCE = 64 << 20
_MAX_FILES = 16
_SOURCES = (
    ("__start_BTF", "__stop_BTF"),
    ("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
    ("__start_orc_unwind", "__stop_orc_unwind"),
)


class _Part(NamedTuple):
    """A section of the kernel: symbols from index `first` on, up to address `end`."""

    name: str
    flags: int
    start: int
    end: int
    first: int


_MARKS = (
    (".text", elf.ALLOC_EXEC, "_text"),
    (".data", elf.ALLOC_WRITE, "_etext"),
    (".init.text", elf.ALLOC_EXEC, "_sinittext"),
    (".init.data", elf.ALLOC_WRITE, "_einittext"),
)


def _parts(table: SymbolTable, values: "array[int]") -> list[_Part]:
    """The kernel's sections by address, the per-CPU one first."""
    end = _value(table, values, "_end")
    marks = [(name, flags, _value(table, values, mark)) for name, flags, mark in _MARKS]
    starts = [(at, name, flags) for name, flags, at in marks if at is not None]
    limits = [at for at, _, _ in starts[1:]] + [end or 0]
    if not starts or starts[0][1] != ".text" or any(map(int.__le__, limits, _first(starts))):
        raise SymbolFileError("the kernel's symbols lack _text and _end, or they are out of order")
    parts = [
        _Part(name, flags, at, limit, bisect_left(values, at, lo=table.absolute))
        for (at, name, flags), limit in zip(starts, limits, strict=True)
    ]
    if table.absolute:
        size = min(values[table.absolute - 1] + 4096, PERCPU_MAX)
        parts.insert(0, _Part(PERCPU, elf.ALLOC_WRITE, 0, size, 0))
    return parts


def _first(rows: "list[tuple[int, str, int]]") -> list[int]:
    return [row[0] for row in rows]


def _value(table: SymbolTable, values: "array[int]", name: str) -> int | None:
    """Where a symbol of the image lies."""
    return next((values[i] for i in table.indices(name) if i >= table.absolute), None)


def _values(table: SymbolTable, base: int) -> "array[int]":
    """Addresses of all symbols with the image at `base`."""
    absolute = table.absolute
    values = array("Q", table.offsets[:absolute])
    values.extend(array("Q", [base + offset for offset in table.offsets[absolute:]]))
    return values


def _symtab(table: SymbolTable, values: "array[int]", parts: list[_Part]) -> tuple[bytes, int]:
    """(.symtab, number of local symbols); packed as three columns of 64-bit words."""
    count = len(table)
    kinds = [elf.ABSOLUTE << 48 | elf.OBJECT << 32] * count
    for number, part in enumerate(parts, 1):
        last = bisect_left(values, part.end, lo=part.first)
        kind = elf.FUNC if part.flags == elf.ALLOC_EXEC else elf.OBJECT
        if part.name == PERCPU:
            last = table.absolute
        kinds[part.first : last] = [number << 48 | kind << 32] * (last - part.first)
    words = array("Q", map(int.__or__, kinds, table.starts))
    is_local = [97 <= letter <= 122 for letter in table.types]
    is_global = [not local for local in is_local]
    packed = array("Q", bytes(24 * (count + 1)))
    for number, column in enumerate((words, values, _sizes(values, table.absolute))):
        bind = 0 if number else elf.GLOBAL << 32
        last_ones = [word | bind for word in compress(column, is_global)]
        packed[number::3] = array("Q", [0, *compress(column, is_local), *last_ones])
    return packed.tobytes(), sum(is_local) + 1


def _sizes(values: "array[int]", absolute: int) -> "array[int]":
    """Bytes up to the next symbol elsewhere; 0 for the last, and for absolute ones."""
    sizes = array("Q", bytes(8 * len(values)))
    following = following_value = values[-1] if values else 0
    for index in range(len(values) - 1, absolute - 1, -1):
        value = values[index]
        if value != following_value:
            following, following_value = following_value, value
        sizes[index] = max(0, following - value)
    return sizes


def pack(
    table: SymbolTable,
    kaslr_offset: int,
    build_id: bytes = b"",
    debug: Mapping[str, bytes] | None = None,
) -> bytes:
    """The ELF file of a symbol table; addresses as linked.  SymbolFileError when it is none.

    debug  the .debug_* sections by name
    """
    base = table.base - kaslr_offset
    if not len(table) or base < 0 or base + max(table.offsets) >> 64:
        raise SymbolFileError("the kernel's symbol table is empty, or no kernel's")
    values = _values(table, base)
    parts = _parts(table, values)
    symtab, locals_ = _symtab(table, values, parts)
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id
    return elf.assemble(
        [
            *(
                Section(part.name, SectionType.NOBITS, part.flags, part.start,
                        size=part.end - part.start)
                for part in parts
            ),
            Section(".symtab", SectionType.SYMTAB, 0, 0, symtab, 0, len(parts) + 2, locals_, 8, 24),
            Section(".strtab", SectionType.STRTAB, data=elf.safe_names(table.names)),
            Section(".note.gnu.build-id", SectionType.NOTE, data=note, align=4),
            *(
                Section(name, SectionType.PROGBITS, data=data)
                for name, data in (debug or {}).items()
            ),
        ]
    )  # fmt: skip


def types(kernel: Kernel) -> dict[str, bytes]:
    """The sections that describe types and typed globals; C's own types without BTF."""
    from debugger import dwarf
    from debugger.globals import GLOBALS, plain_btf
    from introspect.btf import Btf, split_blob

    blob = _source(kernel, *_SOURCES[0])
    table = kernel.symbols.table

    def find(name: str) -> int | None:
        for index in table.indices(name):
            moved = kernel.kaslr_offset if index >= table.absolute else 0
            return table.address_at(index) - moved
        return None

    try:
        strings = split_blob(blob)[1]
        unit = dwarf.Unit(kernel.btf, strings)
        unit.variables(GLOBALS, find)
    except IntrospectError as error:
        _log.debug("no types: %s", error)
        strings = split_blob(plain_btf())[1]
        unit = dwarf.Unit(Btf(plain_btf()), strings)
        unit.variables(GLOBALS, find)
    return dwarf.sections(unit, strings)


def frames(kernel: Kernel) -> dict[str, bytes]:
    """The section that tells how to unwind; {} without ORC."""
    from debugger import frames

    try:
        orc = kernel.orc
        table = orc.tables[0]
        writer = frames.Writer()
        ips = frames.addresses(table.ips, table.ips_va - kernel.kaslr_offset)
        end = max(end for _, end in table.ranges) - kernel.kaslr_offset
        rows = frames.rows_of(orc.layout, table.entries)
        frames.amend(ips, rows, [at - kernel.kaslr_offset for at in orc.error_returns])
        writer.table(ips, rows, end)
        return {".debug_frame": writer.section()}
    except (IntrospectError, SymbolFileError, KeyError, struct.error) as error:
        _log.debug("no call frame information: %s", error)
        return {}


def _source(kernel: Kernel, start: str, stop: str) -> bytes:
    """What lies between two symbols; b"" when the kernel does not have them."""
    try:
        address = kernel.symbols.table.address
        first, end = address(start), address(stop)
        return kernel.read(first, end - first) if 0 < end - first <= _MAX_SOURCE else b""
    except IntrospectError:
        return b""


def build(kernel: Kernel, progress: Callable[[str], None] = lambda _line: None) -> Path:
    """The symbol file of a kernel, from the cache or made now; mode 0600.

    gdb.commands() load it.  `progress` gets a line when it is to be made.  SymbolFileError when
    the kernel's symbols make none or it cannot be written.
    """
    table = kernel.symbols.table
    parts = (b"%d" % FORMAT, table.names, table.types, table.offsets.tobytes(),
             b"%x" % (table.base - kernel.kaslr_offset),
             *(_source(kernel, *names) for names in _SOURCES))  # fmt: skip
    path = cache.directory() / f"{cache.key_of(parts)}.vmlinux"

    def make() -> bytes:
        progress("making symbols, types and unwind tables of this kernel, once for each build")
        known = BUILD_ID.fullmatch(kernel.build_id)
        build_id = bytes.fromhex(kernel.build_id) if known else b""
        debug = {**types(kernel), **frames(kernel)}
        return pack(table, kernel.kaslr_offset, build_id, debug)

    return elf.keep(path, make, _MAX_FILES)
