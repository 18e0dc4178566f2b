# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes ELF cores for tests."""

from __future__ import annotations

import struct

from introspect.elfcore import EM_X86_64, ET_CORE


def elf_note(name: bytes, kind: int, data: bytes) -> bytes:
    """One note, padded."""
    head = struct.pack("<III", len(name) + 1, len(data), kind)
    name += b"\0" * (4 - len(name) % 4)
    return head + name + data + b"\0" * (-len(data) % 4)


def elf_core(segments: list[tuple[int, int, bytes]], *, claimed: int = 0) -> bytes:
    """An ELF core of (type, physical address, data); `claimed` is added to each file size."""
    at = 64 + 56 * len(segments)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", ET_CORE, EM_X86_64, 1, 0, 64, 0, 0,
        64, 56, len(segments), 0, 0, 0,
    )  # fmt: skip
    body = b""
    for kind, pa, data in segments:
        size = len(data) + claimed
        head += struct.pack("<IIQQQQQQ", kind, 0, at + len(body), 0, pa, size, size, 0)
        body += data
    return head + body
