# SPDX-License-Identifier: GPL-2.0-or-later
"""Packs and unpacks C structs that are written down as annotated NamedTuples.

    class Pair(NamedTuple):
        kind: Annotated[Kind, "I"]            an IntEnum
        name: Annotated[str, "8s"]            NUL-terminated, decoded as printable text
        word: Annotated[tuple[int, ...], "4Q"]
        part: Annotated[tuple[Range, ...], (Range, 2)]

Limits: little endian, naturally aligned, no padding.  Aligned words are read
and written in one piece on x86-64: there the struct module copies little-endian integers by memcpy.
"""

import enum
import struct
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from adeos.text import c_string


class Member(NamedTuple):
    """Where a member lies in its struct, bytes; `items` values as the struct module counts them."""

    offset: int
    size: int
    kind: type
    format: str
    items: int
    element: "Layout[Any] | None"
    """The struct that an array is of, and how many values one such struct has."""
    step: int = 1
    plain: bool = False
    """One number, packed as it is."""


T = TypeVar("T", bound=tuple[Any, ...])


class Layout(Generic[T]):
    """Packs and unpacks one C struct.

    `unpack` raises ValueError when an enum member holds a value that the enum lacks; `pack` pads
    strings and arrays with zeros and raises ValueError when one is too long.
    """

    def __init__(self, c_name: str, cls: type[T]) -> None:
        self.c_name = c_name
        self.members: dict[str, Member] = {}
        self._make: Callable[..., T] = cls
        offset = 0
        for name, annotation in cls.__annotations__.items():
            member = _member(annotation, offset)
            self.members[name] = member
            offset += member.size
        self.format = "".join(member.format for member in self.members.values())
        self._struct = struct.Struct("<" + self.format)
        self.size = self._struct.size
        self._words: dict[str, struct.Struct] = {}  # filled on use: import stays cheap

    def unpack(self, buffer: bytes | bytearray | memoryview, offset: int = 0) -> T:
        """The struct at `offset` of `buffer`."""
        flat = self._struct.unpack_from(buffer, offset)
        return self._build(flat)

    def _build(self, flat: tuple[Any, ...]) -> T:
        values = []
        at = 0
        for name, member in self.members.items():
            values.append(_decode(self.c_name, name, member, flat[at : at + member.items]))
            at += member.items
        return self._make(*values)

    def pack(self, value: T) -> bytes:
        """The bytes of `value`."""
        return self._struct.pack(*self._flat(value))

    def _flat(self, value: T) -> list[Any]:
        flat: list[Any] = []
        for (name, member), item in zip(self.members.items(), value, strict=True):
            if member.plain:
                flat.append(item)
            else:
                flat.extend(_encode(self.c_name, name, member, item))
        return flat

    def get(self, buffer: bytes | bytearray | memoryview, base: int, name: str) -> Any:
        """One member of the struct at `base`; an aligned word is read in one piece."""
        member = self.members[name]
        flat = self._word(name).unpack_from(buffer, base + member.offset)
        return _decode(self.c_name, name, member, flat)

    def put(self, buffer: bytearray | memoryview, base: int, name: str, value: Any) -> None:
        """Writes one member of the struct at `base`; an aligned word in one piece."""
        member = self.members[name]
        flat = _encode(self.c_name, name, member, value)
        self._word(name).pack_into(buffer, base + member.offset, *flat)

    def _word(self, name: str) -> struct.Struct:
        word = self._words.get(name)
        if word is None:
            word = self._words[name] = struct.Struct("<" + self.members[name].format)
        return word


def _member(annotation: Any, offset: int) -> Member:
    """From Annotated[type, format] or Annotated[tuple[Element, ...], (Element, count)]."""
    kind, spec = annotation.__origin__, annotation.__metadata__[0]
    kind = getattr(kind, "__origin__", kind)
    if isinstance(spec, tuple):
        element: Layout[Any] = Layout(spec[0].__name__, spec[0])
        step = sum(member.items for member in element.members.values())
        size, format_ = element.size * spec[1], element.format * spec[1]
        return Member(offset, size, kind, format_, spec[1] * step, element, step)
    items = int(spec[:-1] or 1) if kind is tuple else 1
    plain = kind is int or issubclass(kind, enum.Enum)
    return Member(offset, struct.calcsize("<" + spec), kind, spec, items, None, plain=plain)


def _decode(struct_name: str, name: str, member: Member, flat: tuple[Any, ...]) -> Any:
    if member.element is not None:
        return tuple(
            member.element._build(flat[at : at + member.step])
            for at in range(0, member.items, member.step)
        )
    if member.kind is tuple:
        return flat
    if member.kind is str:
        return c_string(flat[0])
    if member.kind is int or member.kind is bytes:
        return flat[0]
    try:
        return member.kind(flat[0])
    except ValueError:
        raise ValueError(f"{struct_name}.{name} is {flat[0]:#x}") from None


def _encode(struct_name: str, name: str, member: Member, value: Any) -> list[Any]:
    if member.element is not None:
        flat: list[Any] = [word for item in value for word in member.element._flat(item)]
    elif member.kind is tuple:
        flat = list(value)
    else:
        data = value.encode() if member.kind is str else value
        limit = member.size - (member.kind is str)  # text keeps its closing NUL
        if isinstance(data, bytes) and len(data) > limit:
            raise ValueError(f"{struct_name}.{name}: {len(data)} bytes, at most {limit} fit")
        return [data]
    if len(flat) > member.items:
        raise ValueError(f"{struct_name}.{name}: {len(flat)} values, at most {member.items} fit")
    return flat + [0] * (member.items - len(flat))
