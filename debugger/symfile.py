# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol file for stock gdb, made from the kernel's own kallsyms.

An ELF executable whose sections hold nothing but addresses (SHT_NOBITS), with
.symtab from kallsyms (sizes from the gaps, FUNC or OBJECT by section), the
build id, and DWARF for a few globals (dwarf.py).  It is made for the addresses
the kernel was linked at and loaded with `symbol-file -o OFFSET`: KASLR moves a
kernel at every start, and this way one file serves them all.  (gdb takes the
same time either way: bench/rsp_symfile.py.)

The file is named by a digest of the symbols, not by the build id the memory
claims: a hostile vnode cannot put false names under another kernel's.

Limits: vmlinux's symbols only, no modules; types but for a few globals, line
numbers and call frame information are not there.
"""

import os
import struct
import tempfile
from array import array
from bisect import bisect_left
from contextlib import suppress
from itertools import compress, pairwise
from pathlib import Path
from typing import NamedTuple

from debugger import dwarf
from debugger.errors import SymbolFileError
from introspect import cache
from introspect.kallsyms import SymbolTable
from introspect.kernel import Kernel

FORMAT = 1
"""Part of the cache key: raise it when the file's content changes."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_PROGBITS, _SYMTAB, _STRTAB, _NOTE, _NOBITS = 1, 2, 3, 7, 8
_ALLOC_WRITE, _ALLOC_EXEC, _ALLOC = 3, 6, 2
_ABS = 0xFFF1
_LOCAL, _GLOBAL = 0, 1 << 4
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


def _cuts(table: SymbolTable, base: int) -> list[tuple[str, int, int]]:
    """The kernel's sections: (name, flags, first address), by address, and an end mark."""

    def offset(name: str) -> int | None:
        for index in table.indices(name):
            if index >= table.absolute:
                return base + table.offsets[index]
        return None

    wanted = (
        (".text", _ALLOC_EXEC, "_text"),
        (".data", _ALLOC_WRITE, "_etext"),
        (".init.text", _ALLOC_EXEC, "_sinittext"),
        (".init.data", _ALLOC_WRITE, "_einittext"),
        ("", 0, "_end"),
    )
    cuts = [(name, flags, at) for name, flags, mark in wanted if (at := offset(mark)) is not None]
    ends = [at for _, _, at in cuts]
    if len(cuts) < 2 or cuts[0][0] != ".text" or cuts[-1][0] or ends != sorted(set(ends)):
        raise SymbolFileError("the kernel's symbols lack _text and _end, or they are out of order")
    return cuts


def _symbols(table: SymbolTable, base: int, cuts: list[tuple[str, int, int]]) -> tuple[bytes, int]:
    """(.symtab, number of local symbols); packed as three columns of 64-bit words."""
    count, absolute = len(table), table.absolute
    offsets = table.offsets
    values = array("Q", offsets[:absolute])
    values.extend(array("Q", [base + offset for offset in offsets[absolute:]]))
    # Where an address lies: absolute (per-CPU offsets and beyond the image) or in a section.
    kinds = [_ABS << 48 | _OBJECT << 32] * count
    marks = [bisect_left(values, at, lo=absolute) for _, _, at in cuts]
    for number, (_, flags, _) in enumerate(cuts[:-1]):
        first, last = marks[number], marks[number + 1]
        kind = _FUNC if flags == _ALLOC_EXEC else _OBJECT
        kinds[first:last] = [(number + 1) << 48 | kind << 32] * (last - first)
    words = array("Q", map(int.__or__, kinds, table.starts))
    sizes = _sizes(values, absolute)
    is_local = [97 <= letter <= 122 for letter in table.types]
    is_global = [not local for local in is_local]
    binding = _GLOBAL << 32
    columns = []
    for column in (words, values, sizes):
        mark = binding if column is words else 0
        globals_ = [value | mark for value in compress(column, is_global)]
        columns.append(array("Q", [0, *compress(column, is_local), *globals_]))
    packed = array("Q", bytes(24 * (count + 1)))
    for number, column in enumerate(columns):
        packed[number::3] = column
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
    if not len(table) or len(table.types) != len(table) or base < 0:
        raise SymbolFileError("the kernel's symbol table is empty")
    cuts = _cuts(table, base)
    symtab, locals_ = _symbols(table, base, cuts)
    names = table.names.translate(_SAFE)

    def find(name: str) -> tuple[int, int] | None:
        for index in table.indices(name):
            if index >= table.absolute:
                offset = table.offsets[index]
                end = table.next_address(index)
                return base + offset, (end or table.base + offset) - table.base - offset
        return None

    memory = [
        _Section(name, _NOBITS, flags, at, size=end - at, align=4096)
        for (name, flags, at), (_, _, end) in pairwise(cuts)
    ]
    strtab = len(memory) + 2
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id
    return _assemble(
        [
            *memory,
            _Section(".symtab", _SYMTAB, 0, 0, symtab, 0, strtab, locals_, 8, 24),
            _Section(".strtab", _STRTAB, data=names),
            _Section(".note.gnu.build-id", _NOTE, _ALLOC, data=note, align=4),
            *(_Section(key, _PROGBITS, data=data) for key, data in dwarf.sections(find).items()),
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
                names.index(section.name.encode() + b"\0"), section.kind, section.flags,
                section.address, at + padding, section.size or len(section.data), section.link,
                section.info, section.align, section.entry,
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
        ident, 2, 62, 1, 0, 0, at + padding, 0, _EHDR.size, 0, 0, _SHDR.size, len(headers),
        len(headers) - 1,
    )
    return b"".join([header, *parts, b"\0" * padding, *headers])


def build(kernel: Kernel) -> Path:
    """The symbol file of a kernel, from the cache or made now; mode 0600.

    Load it with `symbol-file -o kernel.kaslr_offset`.  SymbolFileError when the
    kernel's symbols make none or it cannot be written.
    """
    table = kernel.symbols.table
    parts = (b"%d" % FORMAT, table.names, table.types, table.offsets.tobytes(),
             b"%x" % (table.base - kernel.kaslr_offset))  # fmt: skip
    path = cache.directory() / f"{cache.key_of(parts)}.vmlinux"
    with suppress(OSError):
        if path.stat().st_size:
            return path
    build_id = bytes.fromhex(kernel.build_id) if kernel.build_id else b""
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
