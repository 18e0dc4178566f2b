# SPDX-License-Identifier: GPL-2.0-or-later
"""Loaded modules: the list, their memory, symbols, types and unwind tables.

Source: kernel/module/main.c and include/linux/module.h (6.1, 6.12).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from introspect.btf import Btf, Type
from introspect.errors import Corrupt, IntrospectError, MemoryFault, NotFound
from introspect.lists import walk
from introspect.symbols import ModuleTable, Symbol

if TYPE_CHECKING:
    from introspect.kernel import Kernel

MAX_MODULES = 4096
MAX_SYMBOLS = 1 << 17
MAX_STRINGS = 8 << 20
MAX_BTF = 32 << 20
STATE_UNFORMED = 3  # MODULE_STATE_UNFORMED: on the list, but nothing in it is valid yet
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym


class Module(NamedTuple):
    """A struct module: its address, and the [start, end) ranges of its memory, text first."""

    name: str
    address: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def base(self) -> int:
        return self.ranges[0][0]

    @property
    def size(self) -> int:
        """Bytes in all its ranges."""
        return sum(end - start for start, end in self.ranges)


def read_modules(kernel: Kernel) -> Iterator[Module]:
    """The modules, newest first; one that cannot be read is left out."""
    kind = kernel.btf.struct("module")
    offset = kind.offset("list")
    for node in walk(kernel, kernel.symbols.table.address("modules"), MAX_MODULES):
        address = node - offset
        try:
            if kernel.u32(address + kind.offset("state")) == STATE_UNFORMED:
                continue
            name = kernel.string(address + kind.offset("name"), kind.member("name").type.size)
            name = name if name.isprintable() else ascii(name)  # hostile: no terminal escapes
            ranges = tuple(_ranges(kernel, kind, address))
        except MemoryFault:
            continue
        if name and ranges:
            yield Module(name, address, ranges)


def _ranges(kernel: Kernel, kind: Type, address: int) -> Iterator[tuple[int, int]]:
    if kind.has("mem"):  # since 6.4 (ac3b43283923): one struct module_memory a purpose
        memory = kind.member("mem").type.strip()
        element = memory.element
        places = [
            (f"mem[{index}].", "base", "size")
            for index in range(min(memory.length, 16))
            if element.size
        ]
    else:
        places = [(f"{layout}.", "base", "size") for layout in ("core_layout", "init_layout")]
    for prefix, base, size in places:
        start = kernel.u64(address + kind.offset(prefix + base))
        length = kernel.u32(address + kind.offset(prefix + size))
        if start and length:
            yield start, start + length


def read_symbols(kernel: Kernel, module: Module) -> ModuleTable:
    """The module's symbols in address order, as /proc/kallsyms shows them.

    What cannot be read is left out: the table may be empty.
    """
    try:
        symbols = sorted(_symbols(kernel, module), key=lambda symbol: symbol.address)
    except (MemoryFault, Corrupt, NotFound):
        symbols = []
    return ModuleTable(module.name, module.ranges, symbols)


def _symbols(kernel: Kernel, module: Module) -> Iterator[Symbol]:
    kind = kernel.btf.struct("mod_kallsyms")
    at = kernel.u64(module.address + kernel.btf.struct("module").offset("kallsyms"))
    count = kernel.u32(at + kind.offset("num_symtab"))
    if count > MAX_SYMBOLS:
        raise Corrupt(f"module {module.name} claims {count} symbols", at)
    table = kernel.read(kernel.u64(at + kind.offset("symtab")), count * _SYMBOL.size)
    rows = list(_SYMBOL.iter_unpack(table))
    strings = _strings(kernel, kernel.u64(at + kind.offset("strtab")), rows)
    letters = b""
    if kind.has("typetab"):  # since 5.2 (1c7651f43777); before, st_info held the letter
        letters = kernel.read(kernel.u64(at + kind.offset("typetab")), count)
    for index, (name_at, info, _, section, value, size) in enumerate(rows):
        end = strings.find(b"\0", name_at)
        if not section or end <= name_at:  # undefined, or nameless
            continue
        letter = chr(letters[index] if letters else info)
        name = strings[name_at:end].decode("ascii", "replace")
        name = name if name.isprintable() else ascii(name)
        yield Symbol(name, value, letter, module.name, size)


def _strings(kernel: Kernel, va: int, rows: list[tuple[int, ...]]) -> bytes:
    """strtab as far as it is used; its size is not kept anywhere."""
    last = max((row[0] for row in rows), default=0)
    if last > MAX_STRINGS:
        raise Corrupt(f"a module symbol's name lies {last} bytes into strtab", va)
    raw = kernel.read(va, last) if last else b""
    return raw + kernel.string(va + last, 512).encode("ascii", "replace") + b"\0"


def read_btf(kernel: Kernel, module: Module) -> Btf:
    """The module's own types, on top of vmlinux's; NotFound when it has none."""
    # since 5.11 (36e68442d1af); not module.btf_data, which is freed once it has been copied
    try:
        kind, blob = kernel.btf.struct("btf_module"), kernel.btf.struct("btf")
        head = kernel.symbols.table.address("btf_modules")
    except NotFound:
        raise NotFound("this kernel keeps no BTF of modules") from None
    offset = kind.offset("list")
    for node in walk(kernel, head, MAX_MODULES):
        if kernel.u64(node - offset + kind.offset("module")) != module.address:
            continue
        at = kernel.u64(node - offset + kind.offset("btf"))
        size = kernel.u32(at + blob.offset("data_size"))
        start = kernel.u64(at + blob.offset("data"))
        if size > MAX_BTF:
            raise Corrupt(f"module {module.name} claims {size} bytes of BTF", start)
        return Btf(kernel.read(start, size), kernel.btf)
    raise NotFound(f"module {module.name} has no BTF")


def tables(kernel: Kernel) -> list[ModuleTable]:
    """The symbols of all modules; empty when the list cannot be read at all."""
    try:
        return [read_symbols(kernel, module) for module in kernel.modules()]
    except IntrospectError:
        return []
