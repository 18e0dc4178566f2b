# SPDX-License-Identifier: GPL-2.0-or-later
"""DWARF types for gdb out of a kernel's BTF, and the globals whose type is known.

One compile unit, DWARF 4.  Each BTF type is a DIE whose size follows from its
kind and its number of members alone: so the places of all are known in a first
pass, and references are plain sums.  Names are BTF's own strings, taken over as
.debug_str.  The compile unit claims no code, so gdb reads it when a type is
first asked for, not before.

Checked, since a vnode's memory is not trusted and gdb trusts a symbol file:
references, names, and that no type contains or names itself without end.

Source: DWARF 4, sections 3 to 5 and 7.5; Documentation/bpf/btf.rst (6.12).
Limits: no functions, no line numbers, no scopes.
"""

import struct
from collections.abc import Callable, Mapping, Sequence

from debugger import abbreviations, elf
from debugger.abbreviations import CODES
from introspect.btf import BOOL, SIGNED, Btf, Kind
from introspect.errors import Corrupt, NotFound

_C99 = 0x0C
_OP_ADDR = 3
_ENC_BOOLEAN, _ENC_FLOAT, _ENC_SIGNED, _ENC_CHAR, _ENC_UNSIGNED, _ENC_UCHAR = 2, 4, 5, 6, 7, 8
_HEADER = struct.Struct("<IHIB")
_HEADER_SIZE = _HEADER.size
_NAMED_REF = struct.Struct("<BII")  # code, name, type: also code, name, size
_REF = struct.Struct("<BI")
_WIDE = struct.Struct("<BQ")
_BASE = struct.Struct("<BIBB")
_MEMBER = struct.Struct("<BIIIB")
_BARE_MEMBER = struct.Struct("<BIQB")
_ENUMERATOR = struct.Struct("<BIQ")

# Bytes of a type's DIE with its children, by BTF kind: fixed ones, and those of each member
_FIXED = {
    Kind.INT: _BASE.size, Kind.FLOAT: _BASE.size, Kind.PTR: _REF.size,
    Kind.ARRAY: 2 * _REF.size + 1, Kind.STRUCT: _NAMED_REF.size + 1,
    Kind.UNION: _NAMED_REF.size + 1, Kind.ENUM: _NAMED_REF.size + 1,
    Kind.ENUM64: _NAMED_REF.size + 1, Kind.FWD: _REF.size, Kind.TYPEDEF: _NAMED_REF.size,
    Kind.VOLATILE: _REF.size, Kind.CONST: _REF.size, Kind.RESTRICT: _REF.size,
    Kind.FUNC_PROTO: _REF.size + 1,
}  # fmt: skip
_EACH = {
    Kind.STRUCT: _MEMBER.size, Kind.UNION: _MEMBER.size, Kind.ENUM: _ENUMERATOR.size,
    Kind.ENUM64: _ENUMERATOR.size, Kind.FUNC_PROTO: _REF.size,
}  # fmt: skip
_SPELLED = {"unsigned long": "long unsigned int", "bool": "_Bool"}
"""What gcc calls types in debug information."""

Find = Callable[[str], int | None]


class Unit:
    """The compile unit of a vmlinux Btf; Corrupt when BTF contradicts itself.

    `strings` is BTF's own string section, which becomes .debug_str.
    """

    def __init__(self, btf: Btf, strings: bytes) -> None:
        self._btf = btf
        self._limit = len(strings)
        self._types = [btf.words_of(number) for number in range(1, len(btf) + 1)]
        self._parts: list[bytes] = []
        self._size = _HEADER_SIZE
        self._extra: dict[str, int] = {}
        self._put(bytes((CODES["unit"],)), b"vnode-debug\0", bytes((_C99,)), b"vmlinux\0")
        self._void = self._put(bytes((CODES["void"],)), b"void\0")
        self._places = self._lay_out()
        check_nesting(self._types)
        self._emit()

    def _put(self, *fields: bytes) -> int:
        at = self._size
        data = b"".join(fields)
        self._parts.append(data)
        self._size += len(data)
        return at

    def _lay_out(self) -> list[int]:
        """Where each type's DIE is, by id; void's where a type has none."""
        places, at = [self._void], self._size
        fixed = [_FIXED.get(Kind(n), 0) if n <= Kind.ENUM64 else 0 for n in range(32)]
        each = [_EACH.get(Kind(n), 0) if n <= Kind.ENUM64 else 0 for n in range(32)]
        for words in self._types:
            kind = words[1] >> 24 & 31
            size = fixed[kind] + each[kind] * (words[1] & 0xFFFF)
            places.append(at if size else self._void)
            at += size
        for number, words in enumerate(self._types, 1):
            if words[1] >> 24 & 31 == Kind.TYPE_TAG:  # stands for what it tags
                places[number] = places[self._untagged(words[2])]
        return places

    def _untagged(self, number: int) -> int:
        for _ in range(16):
            if not 0 < number <= len(self._types):
                break
            words = self._types[number - 1]
            if words[1] >> 24 & 31 != Kind.TYPE_TAG:
                return number
            number = words[2]
        return 0

    def _emit(self) -> None:
        table = {
            Kind.INT: self._int, Kind.FLOAT: self._float, Kind.ARRAY: self._array,
            Kind.STRUCT: self._struct, Kind.UNION: self._struct, Kind.ENUM: self._enum,
            Kind.ENUM64: self._enum, Kind.FWD: self._forward, Kind.TYPEDEF: self._typedef,
            Kind.FUNC_PROTO: self._prototype, Kind.PTR: _wrapper("pointer", self._places),
            Kind.CONST: _wrapper("const", self._places),
            Kind.VOLATILE: _wrapper("volatile", self._places),
            Kind.RESTRICT: _wrapper("restrict", self._places),
        }  # fmt: skip
        writers = [table.get(Kind(n)) if n <= Kind.ENUM64 else None for n in range(32)]
        number = 0
        try:
            for number, words in enumerate(self._types, 1):
                writer = writers[words[1] >> 24 & 31]
                if writer is not None:
                    if words[0] >= self._limit:
                        raise Corrupt("a BTF name lies outside of its strings", f"type {number}")
                    self._put(writer(words))
        except (IndexError, struct.error):
            raise Corrupt("BTF refers to types it does not have", f"type {number}") from None

    def _int(self, words: Sequence[int]) -> bytes:
        name = self._btf.string(words[0])
        encoding = words[3] >> 24
        if encoding & BOOL:
            known = _ENC_BOOLEAN
        elif words[2] == 1 and name.endswith("char"):
            known = _ENC_CHAR if name == "char" or encoding & SIGNED else _ENC_UCHAR
        else:
            known = _ENC_SIGNED if encoding & SIGNED else _ENC_UNSIGNED
        return _BASE.pack(CODES["base"], words[0], known, words[2])

    def _float(self, words: Sequence[int]) -> bytes:
        return _BASE.pack(CODES["base"], words[0], _ENC_FLOAT, words[2])

    def _array(self, words: Sequence[int]) -> bytes:
        # BTF does not tell [] from [0]; gdb 18 gives no offsets when [] is not the last member
        element = _REF.pack(CODES["array"], self._places[words[3]])
        return element + _REF.pack(CODES["bound"], words[5]) + b"\0"

    def _head(self, what: str, words: Sequence[int], size: int) -> bytes:
        if words[0]:
            return _NAMED_REF.pack(CODES[what], words[0], size)
        return _WIDE.pack(CODES[f"anonymous {what}"], size)

    def _struct(self, words: Sequence[int]) -> bytes:
        is_struct, packed = words[1] >> 24 & 31 == Kind.STRUCT, words[1] >> 31
        parts = [self._head("struct" if is_struct else "union", words, words[2])]
        if max(words[3::3], default=0) >= self._limit:
            raise IndexError
        places, member, bare = self._places, CODES["member"], CODES["anonymous member"]
        for at in range(3, len(words), 3):
            name, number, place = words[at], words[at + 1], words[at + 2]
            bits = 0
            if packed:
                place, bits = place & 0xFFFFFF, place >> 24
            else:
                place, bits = self._old_bitfield(number, place)
            if bits:
                row = _MEMBER.pack(CODES["bitfield"], name, places[number], place, bits)
            elif name:
                row = _MEMBER.pack(member, name, places[number], place >> 3, 0)
            else:
                row = _BARE_MEMBER.pack(bare, places[number], place >> 3, 0)
            parts.append(row)
        parts.append(b"\0")
        return b"".join(parts)

    def _old_bitfield(self, number: int, place: int) -> tuple[int, int]:
        """(bit offset, bits) before pahole 1.12: the INT has the bits; 0 bits for other members."""
        if not number:
            return place, 0
        words = self._types[number - 1]
        if words[1] >> 24 & 31 != Kind.INT:
            return place, 0
        extra, width = words[3] >> 16 & 0xFF, words[3] & 0xFF
        return (place, 0) if width == 8 * words[2] else (place + extra, width)

    def _enum(self, words: Sequence[int]) -> bytes:
        parts = [self._head("enum", words, words[2])]
        wide, signed = words[1] >> 24 & 31 == Kind.ENUM64, words[1] >> 31
        code, step = CODES["enumerator"], 3 if wide else 2
        if max(words[3::step], default=0) >= self._limit:
            raise IndexError
        for at in range(3, len(words), step):
            value = words[at + 1]
            if wide:
                value |= words[at + 2] << 32
            elif value >> 31 and (signed or not self._btf.has_enum64):
                value += (1 << 64) - (1 << 32)
            parts.append(_ENUMERATOR.pack(code, words[at], value))
        parts.append(b"\0")
        return b"".join(parts)

    def _forward(self, words: Sequence[int]) -> bytes:
        what = "union declared" if words[1] >> 31 else "struct declared"
        return _REF.pack(CODES[what], words[0])

    def _typedef(self, words: Sequence[int]) -> bytes:
        return _NAMED_REF.pack(CODES["typedef"], words[0], self._places[words[2]])

    def _prototype(self, words: Sequence[int]) -> bytes:
        parts = [_REF.pack(CODES["prototype"], self._places[words[2]])]
        for at in range(3, len(words), 2):
            number = words[at + 1]
            code = CODES["parameter" if number else "ellipsis"]
            parts.append(_REF.pack(code, self._places[number] if number else 0))
        parts.append(b"\0")
        return b"".join(parts)

    # Variables

    def _place(self, spelling: str) -> int:
        """Where the DIE of a type is, made when it is none of BTF's; NotFound."""
        at = self._extra.get(spelling)
        if at is None:
            at = self._extra[spelling] = self._derive(spelling)
        return at

    def _derive(self, spelling: str) -> int:
        for suffix, what in ((" []", "array"), (" *", "pointer")):
            if spelling.endswith(suffix):
                inner = self._place(spelling.removesuffix(suffix))
                end = _REF.pack(CODES["flexible"], 0) + b"\0" if what == "array" else b""
                return self._put(_REF.pack(CODES[what], inner) + end)
        if spelling.startswith("const "):
            inner = self._place(spelling.removeprefix("const "))
            return self._put(_REF.pack(CODES["const"], inner))
        try:
            return self._places[self._btf.find(spelling).id]
        except NotFound:
            return self._places[self._btf.find(_SPELLED[spelling]).id]

    def variable(self, name: str, kind: str | int, address: int) -> None:
        """A global of a type given as C spells it or by BTF id; passed over when unknown."""
        try:
            place = self._places[kind] if isinstance(kind, int) else self._place(kind)
        except (NotFound, KeyError):
            return
        location = struct.pack("<BBQ", 9, _OP_ADDR, address)
        text = name.encode("ascii", "replace") + b"\0"
        self._put(_REF.pack(CODES["variable"], 0)[:1], text, struct.pack("<I", place), location)

    def variables(self, known: Mapping[str, str], find: Find) -> None:
        """The globals of `known` and those in BTF (per-CPU ones) for which `find` has a place."""
        rows: dict[str, str | int] = {}
        for kind in self._btf.of_kind(Kind.VAR):
            rows[kind.name] = kind.target.id
        rows |= known
        for name, spelled in rows.items():
            address = find(name)
            if address is not None:
                self.variable(name, spelled, address)

    def section(self) -> bytes:
        """.debug_info"""
        size = self._size + 1
        header = _HEADER.pack(size - 4, 4, 0, 8)
        return b"".join([header, *self._parts, b"\0"])


def sections(unit: Unit, strings: bytes) -> dict[str, bytes]:
    """The sections of a file by name; `strings` is what the unit was made with."""
    return {
        ".debug_abbrev": abbreviations.section(),
        ".debug_info": unit.section(),
        ".debug_str": elf.safe_names(strings, spaces=True),
    }


def _wrapper(what: str, places: list[int]) -> Callable[[Sequence[int]], bytes]:
    code, pack = CODES[what], _REF.pack
    return lambda words: pack(code, places[words[2]])


_PLAIN = frozenset(
    map(int, (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG))
)
MAX_NESTING = 64


def check_nesting(types: Sequence[Sequence[int]]) -> None:
    """Corrupt when a type names or contains itself, or is built of more than MAX_NESTING others.

    gdb follows such chains without a bound.  Pointers and prototypes end the question what a
    type contains, structures the question how it is written.
    """
    for by_name in (True, False):
        edges = _edges(types, by_name=by_name)
        depth = [1] * (len(types) + 1)
        for number in edges:
            depth[number] = 0
        try:
            for root in edges:
                if not depth[root]:
                    _descend(root, edges, depth)
        except IndexError:
            raise Corrupt("BTF refers to types it does not have", "types") from None


def _edges(types: Sequence[Sequence[int]], *, by_name: bool) -> dict[int, Sequence[int]]:
    """The types each type is written with, or that its size depends on; those that have any."""
    edges: dict[int, Sequence[int]] = {}
    for number, words in enumerate(types, 1):
        kind = words[1] >> 24 & 31
        if kind in _PLAIN or (by_name and kind == Kind.PTR):
            edges[number] = (words[2],)
        elif kind == Kind.ARRAY:
            edges[number] = (words[3],)
        elif by_name and kind == Kind.FUNC_PROTO:
            edges[number] = (words[2], *words[4::2])
        elif not by_name and kind in (Kind.STRUCT, Kind.UNION):
            edges[number] = words[4::3]
    return edges


def _descend(root: int, edges: Mapping[int, Sequence[int]], depth: list[int]) -> None:
    """Sets the depth of all below `root`, depth first; -1 marks those being looked into."""
    stack = [(root, iter(edges[root]))]
    depth[root] = -1
    while stack:
        number, rest = stack[-1]
        for inner in rest:
            known = depth[inner]
            if known < 0:
                raise Corrupt("a BTF type is made of itself", f"type {inner}")
            if not known:
                depth[inner] = -1
                stack.append((inner, iter(edges[inner])))
                break
        else:
            stack.pop()
            depth[number] = 1 + max(map(depth.__getitem__, edges[number]), default=0)
            if depth[number] > MAX_NESTING:
                raise Corrupt("a BTF type is nested too deeply", f"type {number}")
