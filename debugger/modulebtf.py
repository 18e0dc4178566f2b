# SPDX-License-Identifier: GPL-2.0-or-later
"""The BTF of a module made whole: a blob that needs no vmlinux beside it.

A module's types go on where vmlinux's end.  What they use of those is copied:
numbers, enums, pointers, arrays and structures without a name.  Structures with
a name are declared only: gdb finds them in the kernel's own symbol file.

Limits: of two structures of one name in vmlinux, gdb takes either.
"""

import struct
from collections.abc import Iterator, Sequence

from introspect.btf import MAGIC, Btf, Kind
from introspect.errors import Corrupt

_ROOTS = (Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.TYPEDEF)
_TARGET = frozenset(
    map(int, (Kind.PTR, Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG,
              Kind.FUNC_PROTO))
)  # fmt: skip
# Words of each member, by kind: where its name and its type are among them, -1 when nowhere
_MEMBERS = {
    Kind.STRUCT: (3, 0, 1), Kind.UNION: (3, 0, 1), Kind.ENUM: (2, 0, -1), Kind.ENUM64: (3, 0, -1),
    Kind.FUNC_PROTO: (2, 0, 1),
}  # fmt: skip


class _Copy:
    """The types copied so far: new ids by old ones, and the strings."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._ids: dict[int, int] = {0: 0}
        self._names: dict[str, int] = {"": 0}
        self._strings = [b"\0"]
        self._end = 1
        self._wanted: list[int] = []
        self._words: list[int] = []

    def _id(self, old: int) -> int:
        """The new id of a type, which is copied later when it has not been."""
        new = self._ids.get(old)
        if new is None:
            if not 0 < old < self._btf.end:
                raise Corrupt(f"BTF has no type {old}", f"ids end at {self._btf.end}")
            new = self._ids[old] = len(self._ids)
            self._wanted.append(old)
        return new

    def _name(self, offset: int) -> int:
        text = self._btf.string(offset)
        new = self._names.get(text)
        if new is None:
            new = self._names[text] = self._end
            self._strings.append(text.encode("ascii", "replace") + b"\0")
            self._end += len(self._strings[-1])
        return new

    def _copy(self, old: int) -> Iterator[int]:
        base = self._btf.base
        is_own = base is None or old >= self._btf.first
        words = self._btf.words_of(old) if is_own or base is None else base.words_of(old)
        kind, name = words[1] >> 24 & 31, self._name(words[0])
        yield name
        if not is_own and name and kind in (Kind.STRUCT, Kind.UNION):
            yield Kind.FWD << 24 | (kind == Kind.UNION) << 31
            yield 0
            return
        yield words[1]
        yield self._id(words[2]) if kind in _TARGET else words[2]
        yield from self._rest(kind, words)

    def _rest(self, kind: int, words: Sequence[int]) -> Iterator[int]:
        if kind == Kind.ARRAY:
            yield from (self._id(words[3]), self._id(words[4]), words[5])
        elif kind in _MEMBERS:
            size, name_at, type_at = _MEMBERS[Kind(kind)]
            for at in range(3, len(words), size):
                for index, word in enumerate(words[at : at + size]):
                    if index == name_at:
                        yield self._name(word)
                    else:
                        yield self._id(word) if index == type_at else word
        else:
            yield from words[3:]

    def blob(self, roots: Sequence[int]) -> bytes:
        for root in roots:
            self._id(root)
        at = 0
        while at < len(self._wanted):
            self._words.extend(self._copy(self._wanted[at]))
            at += 1
        types = struct.pack(f"<{len(self._words)}I", *self._words)
        strings = b"".join(self._strings)
        header = struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings))
        return header + types + strings


def whole(btf: Btf) -> bytes:
    """A blob of the types that a split Btf has of its own, and of what they use."""
    return _Copy(btf).blob([kind.id for kind in btf.of_kind(*_ROOTS)])
