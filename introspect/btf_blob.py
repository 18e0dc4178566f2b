# SPDX-License-Identifier: GPL-2.0-or-later
"""A BTF blob as bytes: its two sections, and where each type starts.

Pure.  What the sizes in a blob claim is checked here, once, so that a type can be decoded without.
"""

from __future__ import annotations

import struct
from array import array
from enum import IntEnum

from introspect.errors import Corrupt

MAGIC = 0xEB9F
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
