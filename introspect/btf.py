# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF: the types a kernel carries in its own image.

A blob is indexed once (15 ms for the 95,000 types of Debian's 6.1); types are
decoded when asked for.  A module's blob is split: its ids and string offsets
go on where vmlinux's end.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h (6.12).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from introspect.errors import Corrupt, NotFound

MAGIC = 0xEB9F
MAX_DEPTH = 64
MAX_NESTING = 16
MAX_NAME = 512
POINTER_SIZE = 8
_HEADER = struct.Struct("<HBBIIIII")


class Kind(IntEnum):
    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Words that follow the three of struct btf_type: fixed ones, and those of each of vlen members
_FIXED = [0] * 32
_EACH = [0] * 32
for _kind, _words in ((Kind.INT, 1), (Kind.ARRAY, 3), (Kind.VAR, 1), (Kind.DECL_TAG, 1)):
    _FIXED[_kind] = _words
for _kind, _words in (
    (Kind.STRUCT, 3),
    (Kind.UNION, 3),
    (Kind.ENUM, 2),
    (Kind.FUNC_PROTO, 2),
    (Kind.DATASEC, 3),
    (Kind.ENUM64, 3),
):
    _EACH[_kind] = _words
_LOOKED_UP = frozenset(
    (
        Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.TYPEDEF, Kind.FLOAT, Kind.ENUM64,
        Kind.DATASEC, Kind.VAR,
    )
)  # fmt: skip
TRANSPARENT = frozenset((Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG))
_KEYWORDS = {
    "struct": (Kind.STRUCT,),
    "union": (Kind.UNION,),
    "enum": (Kind.ENUM, Kind.ENUM64),
}
# What gcc calls integers in debug information; clang keeps C's names
_GCC_NAMES = {
    "short": "short int",
    "unsigned short": "short unsigned int",
    "unsigned": "unsigned int",
    "long": "long int",
    "unsigned long": "long unsigned int",
    "long long": "long long int",
    "unsigned long long": "long long unsigned int",
}
_PLAIN = (Kind.TYPEDEF, Kind.INT, Kind.FLOAT)
_PREFIX = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}
SIGNED, CHAR, BOOL = 1, 2, 4  # BTF_INT_* encodings


class Member(NamedTuple):
    """A member of a struct or union; bit_size is 0 unless it is a bitfield."""

    name: str
    type: Type
    bit_offset: int
    bit_size: int


class Place(NamedTuple):
    """Where a path leads: bits from the start of the outermost type."""

    bit_offset: int
    bit_size: int
    type: Type

    @property
    def offset(self) -> int:
        """Bytes; of the first byte that a bitfield touches."""
        return self.bit_offset // 8


class Type:
    """One BTF type.  Two of the same Btf with the same id are the same object."""

    __slots__ = ("__dict__", "btf", "id", "kind")

    def __init__(self, btf: Btf, type_id: int, kind: Kind) -> None:
        self.btf = btf
        self.id = type_id
        self.kind = kind

    def __repr__(self) -> str:
        return f"<Type {self.id} {self.spelling}>"

    @cached_property
    def _words(self) -> Sequence[int]:
        """struct btf_type and what follows it, as 32-bit words."""
        return self.btf.words_of(self.id)

    @cached_property
    def name(self) -> str:
        return self.btf.string(self._words[0]) if self.id else "void"

    @property
    def _count(self) -> int:
        return self._words[1] & 0xFFFF

    @property
    def _flag(self) -> bool:
        return bool(self._words[1] >> 31)

    @cached_property
    def target(self) -> Type:
        """What a pointer, qualifier, typedef, function, variable or tag refers to."""
        return self.btf.type(self._words[2] if self.id else 0)

    @cached_property
    def element(self) -> Type:
        """An array's element type."""
        return self.btf.type(self._words[3])

    @property
    def length(self) -> int:
        """An array's number of elements."""
        return self._words[5]

    @cached_property
    def size(self) -> int:
        """Bytes that a value takes; 0 for void, functions and forward declarations."""
        plain = self.strip()
        if plain.kind is Kind.PTR:
            return POINTER_SIZE
        if plain.kind is Kind.ARRAY:
            size, depth = 1, 0
            while plain.kind is Kind.ARRAY and depth < MAX_DEPTH:
                size, plain, depth = size * plain.length, plain.element.strip(), depth + 1
            return size * plain.size if plain.kind is not Kind.ARRAY else 0
        if plain.kind is Kind.VAR:
            return plain.target.size
        if plain.kind in (Kind.VOID, Kind.FUNC, Kind.FUNC_PROTO, Kind.FWD, Kind.DECL_TAG):
            return 0
        return plain._words[2]

    def strip(self) -> Type:
        """The type without typedefs and qualifiers; Corrupt when they go round in circles."""
        at = self
        for _ in range(MAX_DEPTH):
            if at.kind not in TRANSPARENT:
                return at
            at = at.target
        raise Corrupt("BTF typedefs do not end", f"type {self.id}")

    @cached_property
    def members(self) -> Sequence[Member]:
        """A struct's or union's members, anonymous ones with an empty name."""
        if self.kind not in (Kind.STRUCT, Kind.UNION):
            return ()
        words, out, packed = self._words, [], self._flag
        for at in range(3, 3 + 3 * self._count, 3):
            offset = words[at + 2]
            bits = offset >> 24 if packed else 0
            offset = offset & 0xFFFFFF if packed else offset
            kind = self.btf.type(words[at + 1])
            if not packed and kind.kind is Kind.INT:  # pahole before 1.12: the INT has the bits
                extra, width = kind._words[3] >> 16 & 0xFF, kind._words[3] & 0xFF
                if width != kind.size * 8:
                    offset, bits = offset + extra, width
            out.append(Member(self.btf.string(words[at]), kind, offset, bits))
        return out

    @cached_property
    def _index(self) -> dict[str, Member]:
        return self._collect(0)

    def _collect(self, depth: int) -> dict[str, Member]:
        """Members by name, those of anonymous members included."""
        found: dict[str, Member] = {}
        for member in self.members:
            if member.name:
                found.setdefault(member.name, member)
            elif depth < MAX_NESTING:
                inner = member.type.strip()._collect(depth + 1)
                for name, (_, kind, offset, bits) in inner.items():
                    found.setdefault(name, Member(name, kind, member.bit_offset + offset, bits))
        return found

    def has(self, name: str) -> bool:
        """Whether it has a member `name`, anonymous ones looked through."""
        return name in self.strip()._index

    def member(self, path: str) -> Place:
        """Where "a.b[3].c" lies; NotFound names the part that is missing.

        Pointers are not followed.
        """
        at, offset, bits = self, 0, 0
        for part in path.replace("[", ".[").split("."):
            plain = at.strip()
            if part.startswith("["):
                index = int(part[1:-1]) if part[1:-1].isdigit() else -1
                if plain.kind is not Kind.ARRAY or index < 0:
                    raise NotFound(f"{at.spelling} is no array that {part} could index")
                at, bits = plain.element, 0
                offset += index * at.size * 8
                continue
            found = plain._index.get(part)
            if found is None:
                raise NotFound(f"{at.spelling} has no member {part!r}")
            at, offset, bits = found.type, offset + found.bit_offset, found.bit_size
        return Place(offset, bits, at)

    def offset(self, path: str) -> int:
        """Bytes from the start to member `path`."""
        return self.member(path).offset

    @cached_property
    def enumerators(self) -> Sequence[tuple[str, int]]:
        """(name, value) of an enum."""
        words, signed, out = self._words, self._flag, []
        if self.kind is Kind.ENUM:
            for at in range(3, 3 + 2 * self._count, 2):
                value = words[at + 1]
                # kind_flag says "signed" since pahole 1.24; before, all were taken as signed
                negative = value >> 31 and (signed or not self.btf.has_enum64)
                out.append((self.btf.string(words[at]), value - (1 << 32) if negative else value))
        elif self.kind is Kind.ENUM64:
            for at in range(3, 3 + 3 * self._count, 3):
                value = words[at + 1] | words[at + 2] << 32
                out.append(
                    (
                        self.btf.string(words[at]),
                        value - (1 << 64) if signed and value >> 63 else value,
                    )
                )
        return out

    @property
    def encoding(self) -> int:
        """BTF_INT_* bits of an INT: SIGNED, CHAR, BOOL."""
        return self._words[3] >> 24 & 0xF if self.kind is Kind.INT else 0

    @property
    def signed(self) -> bool:
        if self.kind in (Kind.ENUM, Kind.ENUM64):
            return self._flag or any(value < 0 for _, value in self.enumerators)
        return bool(self.encoding & SIGNED)

    @cached_property
    def parameters(self) -> Sequence[tuple[str, Type]]:
        """(name, type) of a function prototype; a last void one means "..."."""
        if self.kind is not Kind.FUNC_PROTO:
            return ()
        words = self._words
        return [
            (self.btf.string(words[at]), self.btf.type(words[at + 1]))
            for at in range(3, 3 + 2 * self._count, 2)
        ]

    @cached_property
    def variables(self) -> Sequence[tuple[Type, int, int]]:
        """(variable, offset, size) of a data section."""
        if self.kind is not Kind.DATASEC:
            return ()
        words = self._words
        return [
            (self.btf.type(words[at]), words[at + 1], words[at + 2])
            for at in range(3, 3 + 3 * self._count, 3)
        ]

    @cached_property
    def spelling(self) -> str:
        """The type as C writes it: "struct list_head *", "char [16]"."""
        return self.declare("").strip()

    def declare(self, name: str, depth: int = 0) -> str:
        """A C declaration of `name` with this type."""
        if depth > MAX_DEPTH:
            return f"... {name}"
        kind = self.kind
        if kind is Kind.PTR:
            inner = f"*{name}"
            if self.target.kind in (Kind.ARRAY, Kind.FUNC_PROTO):
                inner = f"({inner})"
            return self.target.declare(inner, depth + 1)
        if kind is Kind.ARRAY:
            spaced = f"{name}[{self.length}]" if name else f"[{self.length}]"
            return self.element.declare(spaced, depth + 1)
        if kind is Kind.FUNC_PROTO:
            listed = ", ".join(p.declare(n, depth + 1).strip() for n, p in self.parameters)
            return self.target.declare(f"{name}({listed or 'void'})", depth + 1)
        if kind in (Kind.CONST, Kind.VOLATILE, Kind.RESTRICT):
            word = kind.name.lower()
            if self.target.kind is Kind.PTR:
                return self.target.declare(f" {word} {name}".rstrip(), depth + 1)
            return f"{word} {self.target.declare(name, depth + 1)}"
        if kind in (Kind.TYPE_TAG, Kind.FUNC, Kind.VAR):
            return self.target.declare(name or self.name, depth + 1)
        prefix = _PREFIX.get(kind, "")
        if kind is Kind.FWD:
            prefix = "union " if self._flag else "struct "
        return f"{prefix}{self.name or '<anonymous>'} {name}".rstrip()


class Btf:
    """The types of one blob; `base` is vmlinux's Btf for that of a module.

    Corrupt when the header or the types contradict their sizes.
    """

    def __init__(self, blob: bytes | memoryview, base: Btf | None = None) -> None:
        self.base = base
        self.first: int = base.end if base else 1
        self._string_base: int = base.string_end if base else 0
        types, self._strings = split_blob(bytes(blob))
        self._words = array("I")
        self._words.frombytes(types)
        self._starts, self._by_name = index_types(self._words)
        self.end: int = self.first + len(self._starts)
        self.string_end: int = self._string_base + len(self._strings)
        self._types: dict[int, Type] = {}
        self._found: dict[str, Type] = {}

    @cached_property
    def has_enum64(self) -> bool:
        return any(key & 31 == Kind.ENUM64 for key in self._by_name)

    def __len__(self) -> int:
        """The number of types of this blob alone."""
        return len(self._starts)

    def type(self, type_id: int) -> Type:
        """The type with this id; Corrupt when there is none."""
        found = self._types.get(type_id)
        if found is None:
            found = self._types[type_id] = self._make(type_id)
        return found

    def _make(self, type_id: int) -> Type:
        if type_id == 0:
            return Type(self, 0, Kind.VOID)
        if self.base and type_id < self.first:
            return self.base.type(type_id)
        if not self.first <= type_id < self.end:
            raise Corrupt(f"BTF has no type {type_id}", f"ids end at {self.end}")
        start = self._starts[type_id - self.first]
        return Type(self, type_id, Kind(self._words[start + 1] >> 24 & 31))

    def words_of(self, type_id: int) -> Sequence[int]:
        """The words of a type of this blob; index_types has checked that they are all there."""
        if type_id == 0:
            return (0, 0, 0, 0, 0, 0)
        index = type_id - self.first
        last = index + 1 == len(self._starts)
        return self._words[
            self._starts[index] : len(self._words) if last else self._starts[index + 1]
        ]

    def string(self, offset: int) -> str:
        """The name at a string offset; "" at 0.  Corrupt past the end."""
        if offset < self._string_base and self.base:
            return self.base.string(offset)
        at = offset - self._string_base
        end = self._strings.find(b"\0", at, at + MAX_NAME) if at < len(self._strings) else -1
        if end < 0:
            raise Corrupt("a BTF name has no end", offset)
        return self._strings[at:end].decode("ascii", "replace")

    def _ids(self, name: str, kinds: Sequence[Kind]) -> int | None:
        """The id of the first type of one of these kinds called `name`."""
        plain = name.encode("ascii", "replace")
        key = b"\0" + plain + b"\0"
        # a module's first string has no NUL before it
        places = [self._string_base] if plain and self._strings.startswith(key[1:]) else []
        at = self._strings.find(key) if plain else -1
        places += [self._string_base + at + 1] if at >= 0 else []
        if self.base:
            shared = self.base._strings.find(key)
            places += [shared + 1] if shared >= 0 else []
        for place in places:
            for kind in kinds:
                found = self._by_name.get(place << 5 | kind)
                if found is not None:
                    return self.first + found
        return None

    def find(self, spelling: str) -> Type:
        """A type by its C name: "struct task_struct", "unsigned long", "char *"; else NotFound."""
        found = self._found.get(spelling)
        if found is None:
            found = self._found[spelling] = self._find(spelling)
        return found

    def _find(self, spelling: str) -> Type:
        if spelling.endswith("*"):
            return self._pointer_to(self.find(spelling[:-1].rstrip()))
        keyword, _, name = spelling.partition(" ")
        kinds: Sequence[Kind] = _KEYWORDS.get(keyword, _PLAIN)
        if kinds is _PLAIN:
            name = spelling
        for known_as in (name, _GCC_NAMES.get(name)):
            found = self._ids(known_as, kinds) if known_as else None
            if found is not None:
                return self.type(found)
        if self.base:
            return self.base.find(spelling)
        raise NotFound(f"no type {spelling!r} in this kernel's BTF")

    def _pointer_to(self, target: Type) -> Type:
        for kind in self.of_kind(Kind.PTR):
            if kind.target is target:
                return kind
        if self.base:
            return self.base._pointer_to(target)
        raise NotFound(f"this kernel's BTF has no {target.spelling} *")

    def struct(self, name: str) -> Type:
        """struct `name`."""
        return self.find(f"struct {name}")

    def variable(self, name: str) -> Type | None:
        """The type of a global variable: per-CPU ones only, unless pahole encoded all."""
        found = self._ids(name, (Kind.VAR,))
        if found is not None:
            return self.type(found).target
        return self.base.variable(name) if self.base else None

    def of_kind(self, *kinds: Kind) -> Iterator[Type]:
        """This blob's types of these kinds, in the order of their ids."""
        for index, start in enumerate(self._starts):
            if self._words[start + 1] >> 24 & 31 in kinds:
                yield self.type(self.first + index)

    @cached_property
    def _enumerators(self) -> dict[str, tuple[Type, int]]:
        return {
            name: (kind, value)
            for kind in self.of_kind(Kind.ENUM, Kind.ENUM64)
            for name, value in kind.enumerators
        }

    def enumerator(self, name: str) -> tuple[Type, int]:
        """(enum, value) of an enumerator of any enum; NotFound when there is none."""
        found = self._enumerators.get(name)
        if found is None and self.base:
            return self.base.enumerator(name)
        if found is None:
            raise NotFound(f"no enumerator {name!r} in this kernel's BTF")
        return found

    def function(self, name: str) -> Type:
        """The prototype of function `name`; NotFound when BTF does not have it."""
        for kind in self.of_kind(Kind.FUNC):
            if kind.name == name:
                return kind.target
        if self.base:
            return self.base.function(name)
        raise NotFound(f"no function {name!r} in this kernel's BTF")


def split_blob(blob: bytes) -> tuple[bytes, bytes]:
    """(type section, string section) of a BTF blob; Corrupt when they do not fit."""
    if len(blob) < _HEADER.size:
        raise Corrupt("BTF is shorter than its header", f"{len(blob)} bytes")
    magic, version, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(
        blob
    )
    if magic != MAGIC or version != 1:
        raise Corrupt(f"no BTF: magic {magic:#06x}, version {version}", "header")
    types_end, strings_end = header + type_at + type_size, header + string_at + string_size
    if header < _HEADER.size or max(types_end, strings_end) > len(blob) or type_size % 4:
        raise Corrupt("BTF sections do not fit", f"{types_end}, {strings_end} of {len(blob)} bytes")
    strings = blob[header + string_at : strings_end]
    return blob[header + type_at : types_end], strings


def index_types(words: array[int]) -> tuple[array[int], dict[int, int]]:
    """(first word of each type, index of the first type by name offset << 5 | kind)."""
    starts = array("I")
    by_name: dict[int, int] = {}
    append, wanted, fixed, each = starts.append, _LOOKED_UP, _FIXED, _EACH
    at, end, index = 0, len(words), 0
    try:
        while at < end:
            info = words[at + 1]
            kind = info >> 24 & 31
            append(at)
            if kind in wanted:
                by_name.setdefault(words[at] << 5 | kind, index)
            at += 3 + fixed[kind] + each[kind] * (info & 0xFFFF)
            index += 1
            if kind > 19 or not kind:
                raise Corrupt(f"BTF has a type of unknown kind {kind}", f"type {index}")
    except IndexError:
        raise Corrupt("the last BTF type is cut off", f"type {index}") from None
    if at != end:
        raise Corrupt("the last BTF type is cut off", f"type {index}")
    return starts, by_name
