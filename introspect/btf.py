# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF: the types a kernel carries in its own image.

A blob is indexed once (15 ms for the 95,000 types of Debian's 6.1); types are
decoded when asked for.  A module's blob is split: its ids and string offsets
go on where vmlinux's end.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h (6.12).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property

from introspect.btf_blob import MAGIC, Kind, index_types, split_blob
from introspect.btf_type import BOOL, CHAR, SIGNED, Type
from introspect.errors import Corrupt, NotFound

__all__ = [
    "BOOL", "CHAR", "MAGIC", "SIGNED", "Btf", "Kind", "Type", "split_blob",
]  # fmt: skip

MAX_NAME = 512
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
