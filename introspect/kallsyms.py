# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own symbol table: scripts/kallsyms.c output in .rodata.

`find` locates the tables by content, `decode` turns them into a SymbolTable.
Layouts that are told apart by what is there, never by version:

* 4.6:  offsets, relative_base, num_syms, names, markers, token_table, token_index
* 6.2 (60443c88f3a8): seqs_of_names between markers and token_table
* 6.4 (404bad70fcf7): offsets and relative_base after token_index
* 6.15 (01157ddc58dc): no absolute per-CPU symbols; all offsets from the base
* 7.2 (6.12 not yet): offsets relative to their own place, no relative_base, aligned to four bytes

A name is a length (two bytes when bit 7 is set, 6.1: 73bbb94466fd) and as
many token numbers; the first expanded character is the symbol's type.

Limits: kernels before 4.6 or built without KALLSYMS_BASE_RELATIVE are not read.
"""

from __future__ import annotations

import itertools
import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from introspect.errors import Corrupt, NotFound
from introspect.memory import PAGE

MIN_SYMBOLS = 500
MAX_SYMBOLS = 2_000_000
MAX_NAME = 1024
TOKENS = 256
MAX_TOKEN_TABLE = 16384
# What precedes token_table: 6.2's seqs (3 bytes), markers and names (about 11 bytes) a symbol.
MAX_SPAN = 48 << 20
SCAN_STEP = 4 << 20
KERNEL_MAP = 0xFFFF_FFFF_8000_0000
TYPES = frozenset(bytes((t,)) for t in b"aAbBcCdDgGiInNpPrRsStTuUvVwW-?")
_DIGITS = b"".join(b"%c\0" % c for c in b"0123456789")
# The last byte of num_syms that is not zero, the zeros up to the names, a name's length
_COUNT = re.compile(rb"[^\x00]\x00{5,6}(?=[^\x00])")

Reader = Callable[[int, int], bytes]


class Tables(NamedTuple):
    """Addresses of the tables, in whatever address space the reader reads.

    relative_base is None where offsets are relative to their own place; `offsets_va` is then
    the virtual address of the offsets.
    """

    names: int
    num_syms: int
    token_table: int
    token_index: int
    offsets: int
    relative_base: int | None
    offsets_va: int = 0

    def moved(self, by: int) -> Tables:
        """The same tables in an address space shifted `by` bytes; offsets_va stays."""
        base = None if self.relative_base is None else self.relative_base + by
        names, num_syms, table, index, offsets = (place + by for place in self[:5])
        return Tables(names, num_syms, table, index, offsets, base, self.offsets_va)


class SymbolTable:
    """Symbols in address order, compact: arrays and one blob of names.

    offsets  array of u64: addresses less `base`; the first `absolute` ones are addresses as such
    types    one letter a symbol, as nm(1) has them
    names    the names, each between NULs; starts[i] is where name i starts
    """

    def __init__(
        self,
        base: int,
        absolute: int,
        offsets: array[int],
        types: bytes,
        names: bytes,
        starts: array[int],
    ) -> None:
        self.base = base
        self.absolute = absolute
        self.offsets = offsets
        self.types = types
        self.names = names
        self.starts = starts

    def __len__(self) -> int:
        return len(self.offsets)

    def address_at(self, index: int) -> int:
        offset = self.offsets[index]
        return offset if index < self.absolute else (self.base + offset) & (1 << 64) - 1

    def name_at(self, index: int) -> str:
        start = self.starts[index]
        name = self.names[start : self.names.index(0, start)].decode("ascii", "replace")
        return name if name.isprintable() else ascii(name)  # hostile: no terminal escapes

    def type_at(self, index: int) -> str:
        return chr(self.types[index])

    def indices(self, name: str) -> Iterator[int]:
        """The indices of all symbols called `name`, in address order."""
        key = b"\0" + name.encode("ascii", "replace") + b"\0"
        at = self.names.find(key)
        while at >= 0 and name:
            yield bisect_left(self.starts, at + 1)
            at = self.names.find(key, at + 1)

    def address(self, name: str) -> int:
        """The address of the first symbol called `name`; NotFound when there is none."""
        for index in self.indices(name):
            return self.address_at(index)
        raise NotFound(f"no symbol {name!r} in this kernel")

    def index_of(self, address: int) -> int:
        """The symbol that `address` falls into, the first of its aliases; NotFound below all."""
        offset = address - self.base
        index = bisect_right(self.offsets, offset, lo=self.absolute) - 1 if offset >= 0 else -1
        if index < self.absolute:
            raise NotFound(f"no symbol at {address:#x}")
        return bisect_left(self.offsets, self.offsets[index], lo=self.absolute)

    def next_address(self, index: int) -> int | None:
        """The address of the next symbol that is not an alias: where symbol `index` ends."""
        after = bisect_right(self.offsets, self.offsets[index], lo=self.absolute)
        return self.address_at(after) if after < len(self) else None

    def rebased(self, base: int) -> SymbolTable:
        """The same symbols with the image elsewhere (KASLR)."""
        return SymbolTable(base, self.absolute, self.offsets, self.types, self.names, self.starts)


def expand_tokens(table: bytes, index: bytes) -> list[bytes]:
    """The 256 tokens; Corrupt unless the index agrees with the table."""
    if len(index) != 2 * TOKENS:
        raise Corrupt("kallsyms_token_index is short", f"{len(index)} bytes")
    tokens = []
    for start in struct.unpack(f"<{TOKENS}H", index):
        end = table.find(b"\0", start)
        if end < 0 or end - start > MAX_NAME:
            raise Corrupt("a kallsyms token has no end", start)
        tokens.append(table[start:end])
    return tokens


def split_names(blob: bytes, count: int) -> tuple[list[bytes], int]:
    """(`count` names still as tokens, bytes used); Corrupt when the blob ends before."""
    parts: list[bytes] = []
    append = parts.append
    at = 0
    try:
        for _ in range(count):
            length = blob[at]
            at += 1
            if length & 0x80:  # since 6.1; a length of one byte never reached 128 before
                length = length & 0x7F | blob[at] << 7
                at += 1
            append(blob[at : at + length])
            at += length
    except IndexError:
        raise Corrupt("kallsyms_names ends early", f"name {len(parts)} of {count}") from None
    if at > len(blob):
        raise Corrupt("kallsyms_names ends early", f"{at} of {len(blob)} bytes")
    return parts, at


def expand_names(parts: list[bytes], tokens: list[bytes]) -> tuple[bytes, bytes, array[int]]:
    """(types, names blob, starts) of names given as tokens."""
    get, join = tokens.__getitem__, b"".join
    expanded = [join(map(get, part)) for part in parts]
    types = join([name[:1] or b"?" for name in expanded])
    starts = array("I", bytes(4 * len(expanded)))
    at = 1
    for index, name in enumerate(expanded):
        starts[index] = at
        at += len(name) or 1  # the type letter's place takes the NUL
    blob = b"\0" + join([name[1:] + b"\0" for name in expanded])
    return types, blob, starts


def base_of(read: Reader, tables: Tables) -> int:
    """The address that the decoded offsets count from."""
    if tables.relative_base is None:
        return tables.offsets_va - (1 << 31)  # so that no offset is negative
    return int.from_bytes(read(tables.relative_base, 8), "little")


def resolve_offsets(raw: bytes, *, place_relative: bool) -> tuple[int, list[int]]:
    """(number of absolute symbols, offsets from base_of()) of kallsyms_offsets.

    kernel/kallsyms.c, kallsyms_sym_address(), each of its three forms in turn.
    """
    signed = struct.unpack(f"<{len(raw) // 4}i", raw)
    if place_relative:
        return 0, [(1 << 31) + 4 * i + s for i, s in enumerate(signed)]
    if min(signed, default=0) >= 0:
        return 0, list(signed)
    # KALLSYMS_ABSOLUTE_PERCPU: an address when positive, else base - 1 - offset
    absolute = next(i for i, s in enumerate(signed) if s < 0)
    return absolute, [s if s >= 0 else -1 - s for s in signed]


def decode(read: Reader, tables: Tables) -> SymbolTable:
    """The symbols; Corrupt or MemoryFault when the tables are not what they claim."""
    count, raw_names, token_table, token_index = read_tables(read, tables)
    tokens = expand_tokens(token_table, token_index)
    parts, _ = split_names(raw_names, count)
    types, blob, starts = expand_names(parts, tokens)
    raw = read(tables.offsets, 4 * count)
    absolute, offsets = resolve_offsets(raw, place_relative=tables.relative_base is None)
    if any(map(int.__gt__, offsets[absolute:], offsets[absolute + 1 :])) or min(offsets) < 0:
        raise Corrupt("kallsyms addresses are not in order", tables.offsets)
    base = base_of(read, tables)
    return SymbolTable(base, absolute, array("Q", offsets), types, blob, starts)


def read_tables(read: Reader, tables: Tables) -> tuple[int, bytes, bytes, bytes]:
    """(number of symbols, names, token table, token index), the sizes checked."""
    count = int.from_bytes(read(tables.num_syms, 4), "little")
    if not MIN_SYMBOLS <= count <= MAX_SYMBOLS:
        raise Corrupt(f"kallsyms_num_syms is {count}", tables.num_syms)
    span = tables.token_table - tables.names
    if not count < span <= MAX_SPAN:
        raise Corrupt(f"kallsyms_names would take {span} bytes", tables.names)
    size = tables.token_index - tables.token_table
    if not TOKENS < size <= MAX_TOKEN_TABLE:
        raise Corrupt(f"kallsyms_token_table would take {size} bytes", tables.token_table)
    table = read(tables.token_table, size)
    return count, read(tables.names, span), table, read(tables.token_index, 2 * TOKENS)


def find(image: bytes | memoryview, base_va: int | None = None) -> Tables:
    """Tables within a kernel image, as offsets into it; NotFound when there are none.

    base_va  virtual address of the image's first byte, needed only for kernels whose offsets
             are place-relative
    """
    data = bytes(image)
    at = data.find(_DIGITS)
    while at >= 0:
        tokens = _token_tables(data, at)
        if tokens:
            tables = _around(data, *tokens, base_va)
            if tables:
                return tables
        at = data.find(_DIGITS, at + 1)
    raise NotFound("no kallsyms tables: not a kernel image, or one built without kallsyms")


def _token_tables(data: bytes, digits: int) -> tuple[int, int] | None:
    """(token_table, token_index) around the tokens '0'..'9', which are numbers 48 to 57."""
    start = digits
    for _ in range(ord("0")):
        previous = data.rfind(b"\0", max(0, start - MAX_NAME), start - 1)
        if previous < 0:
            return None
        start = previous + 1
    starts, at = [], start
    for _ in range(TOKENS):
        starts.append(at - start)
        end = data.find(b"\0", at, at + MAX_NAME)
        if end < 0 or at - start > 0xFFFF:
            return None
        at = end + 1
    index = struct.pack(f"<{TOKENS}H", *starts)
    # the table's padding differs by kernel: 8 bytes mostly
    where = data.find(index, at, at + 64 + len(index))
    return (start, where) if where >= 0 else None


def _around(data: bytes, table: int, index: int, base_va: int | None) -> Tables | None:
    """The tables that belong to a token table, verified."""
    for at in itertools.chain(_by_markers(data, table), _by_count(data, table)):
        for names in (at + 8, at + 4):  # 7.2 aligns to four bytes
            tables = _verify(data, at, names, table, index, base_va)
            if tables:
                return tables
    return None


def _by_markers(data: bytes, table: int) -> Iterator[int]:
    """Places of num_syms, from kallsyms_markers where it ends just before the token table.

    Markers ascend from zero, one for each 256 names, so they tell how many names there are and,
    to within 256 of them, where those start.
    """
    end = table
    while end > table - 8 and data[end - 4 : end] == bytes(4):  # alignment
        end -= 4
    first, previous, last = end, MAX_SPAN, 0
    while first >= 4 and previous:
        value = int.from_bytes(data[first - 4 : first], "little")
        if value >= previous:
            return
        last = last or value
        first, previous = first - 4, value
    markers = (end - first) // 4
    low, high = (markers - 1) * TOKENS, markers * TOKENS
    start = max(0, (first - last - TOKENS * MAX_NAME) & -4)
    for at in range((first - last) & -4, start, -4):
        if low < int.from_bytes(data[at : at + 4], "little") <= high:
            yield at


def _by_count(data: bytes, table: int) -> Iterator[int]:
    """Places before the token table that look like num_syms, nearest first (6.2 and 6.3)."""
    low, high = max(0, table - MAX_SPAN), table
    while high > low:
        start = max(low, high - SCAN_STEP)
        for match in reversed(list(_COUNT.finditer(data, start, min(high + 8, table)))):
            yield match.start() - 1
            yield match.start() - 2
        high = start


def _verify(
    data: bytes, num_syms: int, names: int, table: int, index: int, base_va: int | None
) -> Tables | None:
    gap = names - num_syms - 4
    if num_syms < 0 or num_syms % 4 or data[num_syms + 4 : names] != bytes(gap):
        return None
    count = int.from_bytes(data[num_syms : num_syms + 4], "little")
    if not MIN_SYMBOLS <= count <= MAX_SYMBOLS or not count < table - names:
        return None
    tokens = expand_tokens(data[table:index], data[index : index + 2 * TOKENS])
    try:
        parts, used = split_names(data[names : names + 16384], 256)
    except Corrupt:
        return None
    if not all(part and tokens[part[0]][:1] in TYPES for part in parts):
        return None
    # kallsyms_markers: the place of every 256th name
    marker = data.find(struct.pack("<II", 0, used), names, table)
    if marker < 0:
        return None
    return _offsets(data, count, names, num_syms, table, index, base_va)


def _offsets(
    data: bytes,
    count: int,
    names: int,
    num_syms: int,
    table: int,
    index: int,
    base_va: int | None,
) -> Tables | None:
    """kallsyms_offsets in each place it has had."""
    span = (4 * count + 7) & -8
    before = num_syms - 8
    if _is_base(data, before) and before - span >= 0:
        return Tables(names, num_syms, table, index, before - span, before)
    after = (index + 2 * TOKENS + 7) & -8
    if _is_base(data, after + span):
        return Tables(names, num_syms, table, index, after, after + span)
    after = (index + 2 * TOKENS + 3) & -4
    if base_va is not None and after + 4 * count <= len(data):
        return Tables(names, num_syms, table, index, after, None, base_va + after)
    return None


def _is_base(data: bytes, at: int) -> bool:
    """kallsyms_relative_base: the image's start, or that of the per-CPU area (0) since 6.15."""
    value = int.from_bytes(data[at : at + 8], "little") if at >= 0 else 0
    return value >= KERNEL_MAP and value % PAGE == 0


def from_symbols(symbol: Callable[[str], int]) -> Tables:
    """Tables at the addresses VMCOREINFO gives (since 6.0, f09bddbd8661); NotFound without them."""
    try:
        base: int | None = symbol("kallsyms_relative_base")
    except NotFound:
        base = None  # place-relative offsets
    offsets = symbol("kallsyms_offsets")
    return Tables(
        symbol("kallsyms_names"),
        symbol("kallsyms_num_syms"),
        symbol("kallsyms_token_table"),
        symbol("kallsyms_token_index"),
        offsets,
        base,
        offsets,
    )
