# SPDX-License-Identifier: GPL-2.0-or-later
"""One BTF type: its members, enumerators and parameters, its size, and how C spells it.

Nothing is decoded before it is asked for.  Circles end: depths are bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from introspect.btf_blob import Kind
from introspect.errors import Corrupt, NotFound

if TYPE_CHECKING:
    from introspect.btf import Btf

MAX_DEPTH = 64
MAX_NESTING = 16
POINTER_SIZE = 8
TRANSPARENT = frozenset((Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG))
_SIZELESS = frozenset(
    (Kind.VOID, Kind.FUNC, Kind.FUNC_PROTO, Kind.FWD, Kind.DECL_TAG, Kind.VAR)
)  # of variables themselves there are none
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
        if plain.kind is Kind.VAR:
            plain = plain.target.strip()
        if plain.kind is Kind.PTR:
            return POINTER_SIZE
        if plain.kind is Kind.ARRAY:
            size, depth = 1, 0
            while plain.kind is Kind.ARRAY and depth < MAX_DEPTH:
                size, plain, depth = size * plain.length, plain.element.strip(), depth + 1
            return size * plain.size if plain.kind not in (Kind.ARRAY, Kind.VAR) else 0
        return 0 if plain.kind in _SIZELESS else plain._words[2]

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
        """Members by name, those of anonymous members included; once a type, however often met."""
        known: dict[str, Member] | None = self.__dict__.get("_index")
        if known is not None:
            return known
        if depth > MAX_NESTING:
            raise Corrupt("anonymous members do not end", f"BTF type {self.id}")
        found: dict[str, Member] = {}
        for member in self.members:
            if member.name:
                found.setdefault(member.name, member)
            else:
                inner = member.type.strip()._collect(depth + 1)
                for name, (_, kind, offset, bits) in inner.items():
                    found.setdefault(name, Member(name, kind, member.bit_offset + offset, bits))
        self.__dict__["_index"] = found
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
