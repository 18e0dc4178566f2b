# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol file for each loaded module: its symbols, its types, and call frames from its ORC.

The parts of a module's memory become sections, the first of them .text, each
linked at an address of its own; gdb is told where they are with
`add-symbol-file FILE TEXT -s .memN ADDRESS`.  A file is named by a digest of its
content, which does not depend on where the module was loaded, and so serves
every start of the same kernel build.

A file of its own ends backtraces at user mode: no other file's frames can reach
down there, since they move with KASLR.

Limits: a module without BTF (mostly one built elsewhere) has no types; one that is loaded later
is not there until the next attach.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from debugger import elf
from debugger.elf import Section, SectionType
from debugger.errors import SymbolFileError
from introspect import cache
from introspect.btf import Btf, split_blob
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.modules import read_btf
from introspect.orc import Layout, Table
from introspect.symbols import ModuleTable, Symbol

FORMAT = 2
_SPACING = 1 << 32  # between the link addresses of the sections: a module is smaller
_MAX_MODULES = 512
_MAX_FILES = 2048
_SYMBOL = struct.Struct("<IBBHQQ")
_PAGE = 4096
_NAME = re.compile(r"[^A-Za-z0-9_-]")
USER = "user"


def section_name(number: int) -> str:
    return f".mem{number}" if number else ".text"


def parts(module: ModuleTable) -> list[tuple[int, int]]:
    """[start, end) of the code, then of all else.

    Until 6.3 a range holds code and data, which pages keep apart: gdb takes what lies in a
    section of code for code.
    """
    (start, end), *others = module.ranges
    code = [s.address + _size(s) for s in module.symbols if s.type in "tT"]
    last = max((at for at in code if start < at <= end), default=end)
    split = start + -(-(last - start) // _PAGE) * _PAGE
    return [(start, split), (split, end), *others] if split < end else [(start, end), *others]


def pack(
    module: ModuleTable,
    layout: Layout | None = None,
    rules: Table | None = None,
    debug: Mapping[str, bytes] | None = None,
) -> bytes:
    """The ELF file of a module; `rules` is its ORC table, `debug` its sections of types."""
    sections = [
        Section(
            section_name(number), SectionType.NOBITS,
            elf.ALLOC_WRITE if number else elf.ALLOC_EXEC, number * _SPACING,
            size=min(end - start, _SPACING),
        )
        for number, (start, end) in enumerate(parts(module))
    ]  # fmt: skip
    symtab, strings = _symtab(module)
    sections += [
        Section(".symtab", SectionType.SYMTAB, 0, 0, symtab, 0, len(sections) + 2, 1, 8, 24),
        Section(".strtab", SectionType.STRTAB, data=elf.safe_names(strings)),
    ]
    with suppress(SymbolFileError, struct.error, IndexError):
        if layout is not None and rules is not None:
            data = _frames(module, layout, rules)
            sections.append(Section(".debug_frame", SectionType.PROGBITS, data=data))
    for name, data in (debug or {}).items():
        sections.append(Section(name, SectionType.PROGBITS, data=data))
    return elf.assemble(sections)


def types(btf: Btf) -> dict[str, bytes]:
    """The sections that describe a module's own types; Corrupt when BTF contradicts itself."""
    from debugger import dwarf, modulebtf

    blob = modulebtf.whole(btf)
    made = Btf(blob)
    made.has_enum64 = btf.has_enum64 or bool(btf.base and btf.base.has_enum64)
    return dwarf.sections(dwarf.Unit(made, split_blob(blob)[1]), split_blob(blob)[1])


def _linked(places: Sequence[tuple[int, int]], address: int) -> tuple[int, int] | None:
    """(section number, link address); None outside of the module's memory."""
    for number, (start, end) in enumerate(places):
        if start <= address < end:
            return number, number * _SPACING + address - start
    return None


def _symtab(module: ModuleTable) -> tuple[bytes, bytes]:
    places = parts(module)
    rows, names, at = [bytes(_SYMBOL.size)], [b"\0"], 1
    for symbol in module.symbols:
        place = _linked(places, symbol.address)
        if place is None:
            continue
        number, value = place
        name = symbol.name.encode("ascii", "replace").replace(b"\0", b"?") + b"\0"
        # all global: gdb prefers none, and sh_info stays 1
        info = elf.GLOBAL | (elf.FUNC if symbol.type in "tT" else elf.OBJECT)
        rows.append(_SYMBOL.pack(at, info, 0, number + 1, value, _size(symbol)))
        names.append(name)
        at += len(name)
    return b"".join(rows), b"".join(names)


def _size(symbol: Symbol) -> int:
    return min(symbol.size, _SPACING)


def _frames(module: ModuleTable, layout: Layout, rules: Table) -> bytes:
    """Of the first part: other code is that of __init."""
    from debugger import frames

    start, end = parts(module)[0]
    found = frames.addresses(rules.ips, rules.ips_va)
    rows = frames.rows_of(layout, rules.entries)
    inside = [(ip - start, row) for ip, row in zip(found, rows, strict=True) if start <= ip < end]
    writer = frames.Writer()
    if inside:
        writer.table([ip for ip, _ in inside], [row for _, row in inside], end - start)
    return writer.section()


def _store(name: str, data: bytes) -> Path:
    key = cache.key_of((b"%d" % FORMAT, data))
    path = cache.directory() / f"{_NAME.sub('_', name)[:60]}-{key[:16]}.ko"
    return elf.keep(path, data, _MAX_FILES)


def build(kernel: Kernel) -> list[tuple[Path, Sequence[int]]]:
    """The symbol file of each module and where its sections lie, in their order.

    Modules that cannot be read are left out.
    """
    found: list[tuple[Path, Sequence[int]]] = []
    rules, described = list(_rules(kernel)), _types(kernel)
    for module in kernel.symbols.modules[:_MAX_MODULES]:
        starts = [start for start, _ in parts(module)]
        table = next((t for t in rules if t.covers(starts[0])), None)
        layout = kernel.orc.layout if table else None
        data = pack(module, layout, table, described.get(starts[0]))
        found.append((_store(module.name, data), starts))
    return found


def _types(kernel: Kernel) -> dict[int, dict[str, bytes]]:
    """The types of each module that has some, by its first address."""
    found = {}
    with suppress(IntrospectError):
        for module in islice(kernel.modules(), _MAX_MODULES):
            with suppress(IntrospectError):  # without BTF, or with what is none
                found[module.base] = types(read_btf(kernel, module))
    return found


def _rules(kernel: Kernel) -> Iterator[Table]:
    with suppress(IntrospectError):
        yield from kernel.orc.tables[1:]


def user_frames() -> Path:
    """The file that ends backtraces at user mode; loaded unmoved."""
    from debugger import frames

    writer = frames.Writer()
    writer.user()
    # gdb wants a section and a symbol: at 0, where no process has memory
    symbol = _SYMBOL.pack(1, elf.GLOBAL | elf.FUNC, 0, 1, 0, 1)
    data = elf.assemble(
        [
            Section(".text", SectionType.NOBITS, elf.ALLOC_EXEC, 0, size=1),
            Section(".symtab", SectionType.SYMTAB, 0, 0, bytes(24) + symbol, 0, 3, 1, 8, 24),
            Section(".strtab", SectionType.STRTAB, data=b"\0user_mode\0"),
            Section(".debug_frame", SectionType.PROGBITS, data=writer.section()),
        ]
    )
    return _store(USER, data)
