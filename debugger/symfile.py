# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol file for stock gdb, made from the kernel's own kallsyms.

An ELF executable whose sections hold nothing but addresses (SHT_NOBITS), with
.symtab from kallsyms (sizes from the gaps, FUNC or OBJECT by section), the
build id, and DWARF for a few globals (dwarf.py).  It is made for the addresses
the kernel was linked at and loaded with `add-symbol-file -o OFFSET`: KASLR moves
a kernel at every start, and this way one file serves them all.  gdb takes the
same time either way.

The file is named by a digest of the symbols, not by the build id the memory
claims: a hostile vnode cannot put false names under another kernel's.

Limits: vmlinux's symbols only, no modules; types but for a few globals, line
numbers and call frame information are not there.
"""

import os
import re
import struct
import tempfile
from array import array
from bisect import bisect_left
from contextlib import suppress
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from debugger import dwarf
from debugger.errors import SymbolFileError
from introspect import cache
from introspect.kallsyms import SymbolTable
from introspect.kernel import Kernel

PERCPU = ".data..percpu"
"""Linked at 0 and not moved by KASLR: load with `add-symbol-file -s .data..percpu 0`."""
PERCPU_MAX = 1 << 24
BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){8,32}")
FORMAT = 1
"""Part of the cache key: raise it when the file's content changes."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_PROGBITS, _SYMTAB, _STRTAB, _NOTE, _NOBITS = 1, 2, 3, 7, 8
_ALLOC_WRITE, _ALLOC_EXEC = 3, 6
_ABS = 0xFFF1
_GLOBAL = 1 << 4
_OBJECT, _FUNC = 1, 2
# Bytes that could steer a terminal when gdb prints the name become '?'.
_SAFE = bytes(b if b == 0 or 0x21 <= b <= 0x7E else 0x3F for b in range(256))


class _Section(NamedTuple):
    """A section header and its content; NOBITS sections only have a size."""

    name: str
    kind: int
    flags: int = 0
    address: int = 0
    data: bytes = b""
    size: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entry: int = 0


class _Part(NamedTuple):
    """A section of the kernel: symbols from index `first` on, up to address `end`."""

    name: str
    flags: int
    start: int
    end: int
    first: int


_MARKS = (
    (".text", _ALLOC_EXEC, "_text"),
    (".data", _ALLOC_WRITE, "_etext"),
    (".init.text", _ALLOC_EXEC, "_sinittext"),
    (".init.data", _ALLOC_WRITE, "_einittext"),
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
        parts.insert(0, _Part(PERCPU, _ALLOC_WRITE, 0, size, 0))
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
    kinds = [_ABS << 48 | _OBJECT << 32] * count
    for number, part in enumerate(parts, 1):
        last = bisect_left(values, part.end, lo=part.first)
        kind = _FUNC if part.flags == _ALLOC_EXEC else _OBJECT
        if part.name == PERCPU:
            last = table.absolute
        kinds[part.first : last] = [number << 48 | kind << 32] * (last - part.first)
    words = array("Q", map(int.__or__, kinds, table.starts))
    is_local = [97 <= letter <= 122 for letter in table.types]
    is_global = [not local for local in is_local]
    packed = array("Q", bytes(24 * (count + 1)))
    for number, column in enumerate((words, values, _sizes(values, table.absolute))):
        bind = 0 if number else _GLOBAL << 32
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


def pack(table: SymbolTable, kaslr_offset: int, build_id: bytes = b"") -> bytes:
    """The ELF file of a symbol table; addresses as linked.  SymbolFileError when it is none."""
    base = table.base - kaslr_offset
    if not len(table) or base < 0 or base + max(table.offsets) >> 64:
        raise SymbolFileError("the kernel's symbol table is empty, or no kernel's")
    values = _values(table, base)
    parts = _parts(table, values)
    symtab, locals_ = _symtab(table, values, parts)
    globals_ = dwarf.sections(lambda name: _value(table, values, name))
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id
    return _assemble(
        [
            *(
                _Section(part.name, _NOBITS, part.flags, part.start, size=part.end - part.start)
                for part in parts
            ),
            _Section(".symtab", _SYMTAB, 0, 0, symtab, 0, len(parts) + 2, locals_, 8, 24),
            _Section(".strtab", _STRTAB, data=table.names.translate(_SAFE)),
            _Section(".note.gnu.build-id", _NOTE, data=note, align=4),
            *(_Section(name, _PROGBITS, data=data) for name, data in globals_.items()),
        ]
    )


def _assemble(sections: list[_Section]) -> bytes:
    """An ET_EXEC for x86-64 of the sections, .shstrtab added."""
    names = bytearray(b"\0")
    parts: list[bytes] = []
    headers = [bytes(_SHDR.size)]
    at = _EHDR.size

    def add(section: _Section) -> None:
        nonlocal at
        padding = -at % 8
        parts.append(b"\0" * padding + section.data)
        headers.append(
            _SHDR.pack(
                names.index(section.name.encode() + b"\0"),
                section.kind,
                section.flags,
                section.address,
                at + padding,
                section.size or len(section.data),
                section.link,
                section.info,
                section.align,
                section.entry,
            )
        )
        at += padding + len(section.data)

    for section in sections:
        names += section.name.encode() + b"\0"
    names += b".shstrtab\0"
    for section in sections:
        add(section)
    add(_Section(".shstrtab", _STRTAB, data=bytes(names)))
    padding = -at % 8
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = _EHDR.pack(
        ident,
        2,
        62,
        1,
        0,
        0,
        at + padding,
        0,
        _EHDR.size,
        0,
        0,
        _SHDR.size,
        len(headers),
        len(headers) - 1,
    )
    return b"".join([header, *parts, b"\0" * padding, *headers])


def build(kernel: Kernel) -> Path:
    """The symbol file of a kernel, from the cache or made now; mode 0600.

    gdb.commands() load it.  SymbolFileError when the kernel's symbols make none or
    it cannot be written.
    """
    table = kernel.symbols.table
    parts = (b"%d" % FORMAT, table.names, table.types, table.offsets.tobytes(),
             b"%x" % (table.base - kernel.kaslr_offset))  # fmt: skip
    path = cache.directory() / f"{cache.key_of(parts)}.vmlinux"
    with suppress(OSError):
        if path.stat().st_size:
            return path
    known = BUILD_ID.fullmatch(kernel.build_id)
    build_id = bytes.fromhex(kernel.build_id) if known else b""
    _write(path, pack(table, kernel.kaslr_offset, build_id))
    return path


def _write(path: Path, data: bytes) -> None:
    """Atomically: a reader sees a whole file or none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SymbolFileError(f"cannot write {path}: {error.strerror or error}") from None
