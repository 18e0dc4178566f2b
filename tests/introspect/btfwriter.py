# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes BTF blobs for tests."""

from __future__ import annotations

import struct

from introspect.btf import MAGIC, Kind


class BtfWriter:
    """Types get ids in the order they are added, from `first`."""

    def __init__(self, first: int = 1, string_base: int = 0) -> None:
        self.next = first
        self.string_base = string_base
        self.types = b""
        self.strings = b"" if string_base else b"\0"

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = self.string_base + len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, kind: Kind, name: str = "", *, target: int = 0, size: int = 0,
            count: int = 0, flag: bool = False, extra: bytes = b"") -> int:  # fmt: skip
        info = count | kind << 24 | flag << 31
        self.types += struct.pack("<III", self.name(name), info, target or size) + extra
        self.next += 1
        return self.next - 1

    def int(self, name: str, size: int, encoding: int = 0) -> int:
        extra = struct.pack("<I", encoding << 24 | size * 8)
        return self.add(Kind.INT, name, size=size, extra=extra)

    def pointer(self, target: int) -> int:
        return self.add(Kind.PTR, target=target)

    def array(self, element: int, length: int) -> int:
        return self.add(Kind.ARRAY, extra=struct.pack("<III", element, element, length))

    def struct(
        self, name: str, size: int, members: list[tuple[str, int, int]], *,
        kind: Kind = Kind.STRUCT, bits: dict[str, int] | None = None,
    ) -> int:  # fmt: skip
        """Members are (name, type, bit offset)."""
        extra = b""
        for member, target, offset in members:
            packed = offset | (bits.get(member, 0) << 24 if bits is not None else 0)
            extra += struct.pack("<III", self.name(member), target, packed)
        return self.add(
            kind, name, size=size, count=len(members), flag=bits is not None, extra=extra
        )

    def blob(self) -> bytes:
        header = struct.pack(
            "<HBBIIIII", MAGIC, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + self.types + self.strings
