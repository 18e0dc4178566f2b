# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for addresses and addresses for names: vmlinux first, then modules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from introspect import cache, kallsyms
from introspect.errors import NotFound
from introspect.kallsyms import Reader, SymbolTable, Tables

MASK = (1 << 64) - 1


class Symbol(NamedTuple):
    """A symbol: `type` as nm(1) prints it, `module` is "" for vmlinux, `size` 0 if not known."""

    name: str
    address: int
    type: str
    module: str
    size: int


class ModuleTable(NamedTuple):
    """A module's symbols by address, and the [start, end) ranges of its memory."""

    name: str
    ranges: Sequence[tuple[int, int]]
    symbols: Sequence[Symbol]


class Symbols:
    """All symbols of one kernel.

    `modules` is called once, when a name or address is not vmlinux's.
    """

    def __init__(
        self, table: SymbolTable, modules: Callable[[], Sequence[ModuleTable]] | None = None
    ) -> None:
        self.table = table
        self._source = modules
        self._modules: Sequence[ModuleTable] | None = None
        self._start = table.address_at(table.absolute) if len(table) > table.absolute else 0
        self._end = table.address_at(len(table) - 1) if self._start else 0

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, name: str) -> bool:
        return any(True for _ in self.table.indices(name))

    @property
    def modules(self) -> Sequence[ModuleTable]:
        if self._modules is None:
            self._modules = self._source() if self._source else ()
        return self._modules

    def address(self, name: str) -> int:
        """The address of `name`; NotFound when there is none.  "name [module]" is understood."""
        found = self.addresses(name)
        if not found:
            raise NotFound(f"no symbol {name!r} in this kernel")
        return found[0]

    def addresses(self, name: str) -> list[int]:
        """Every address that `name` has: static functions may share one."""
        plain, _, wanted = name.partition(" [")
        wanted = wanted.removesuffix("]")
        found = [] if wanted else [self.table.address_at(i) for i in self.table.indices(plain)]
        if not found:
            found = [
                symbol.address
                for module in self.modules
                if wanted in ("", module.name)
                for symbol in module.symbols
                if symbol.name == plain
            ]
        return found

    def find(self, address: int) -> Symbol:
        """The symbol that holds `address`; NotFound when it is in no symbol."""
        if self._start <= address <= self._end:
            index = self.table.index_of(address)
            start = self.table.address_at(index)
            end = self.table.next_address(index)
            size = end - start if end is not None else 0
            return Symbol(self.table.name_at(index), start, self.table.type_at(index), "", size)
        for module in self.modules:
            if any(start <= address < end for start, end in module.ranges):
                return _in_module(module, address)
        raise NotFound(f"no symbol at {address:#x}")

    def lookup(self, address: int) -> tuple[str, int]:
        """(name, offset) of the symbol that holds `address`; NotFound when it is in none."""
        symbol = self.find(address)
        return symbol.name, address - symbol.address

    def describe(self, address: int) -> str:
        """As the kernel prints %pS: "schedule+0x5a/0xd0", "loop_init+0x1/0x8 [loop]"."""
        try:
            symbol = self.find(address)
        except NotFound:
            return f"{address & MASK:#x}"
        size = f"/{symbol.size:#x}" if symbol.size else ""
        module = f" [{symbol.module}]" if symbol.module else ""
        return f"{symbol.name}+{address - symbol.address:#x}{size}{module}"

    def items(self) -> Iterator[tuple[str, int]]:
        """(name, address) of every vmlinux symbol, in address order."""
        table = self.table
        names = table.names[1:-1].decode("ascii", "replace").split("\0")
        for index, name in enumerate(names):
            yield name, table.address_at(index)

    def entries(self) -> Iterator[Symbol]:
        """Every symbol, vmlinux's first and then each module's; sizes of vmlinux's are 0."""
        for index, (name, address) in enumerate(self.items()):
            yield Symbol(name, address, self.table.type_at(index), "", 0)
        for module in self.modules:
            yield from module.symbols


def _in_module(module: ModuleTable, address: int) -> Symbol:
    at = bisect_right(module.symbols, address, key=lambda symbol: symbol.address) - 1
    if at < 0:
        raise NotFound(f"no symbol at {address:#x} in module {module.name}")
    while at and module.symbols[at - 1].address == module.symbols[at].address:
        at -= 1
    return module.symbols[at]


def load(read: Reader, tables: Tables) -> SymbolTable:
    """The symbols of kallsyms `tables`: from the cache, or decoded and then cached."""
    count, names, token_table, token_index = kallsyms.read_tables(read, tables)
    raw = read(tables.offsets, 4 * count)
    key = cache.key_of((names, token_table, token_index, raw))
    table = cache.load(key, kallsyms.base_of(read, tables))
    if table is None or len(table) != count:
        table = kallsyms.decode(read, tables)
        cache.store(key, table)
    return table
