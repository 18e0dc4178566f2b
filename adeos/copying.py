# SPDX-License-Identifier: GPL-2.0-or-later
"""Bulk copies and comparisons of mapped memory that let other threads run.

A slice assignment holds the interpreter's lock for as long as it copies, and a watch loop in
another thread would miss its ticks; ctypes releases the lock around memmove.
"""

import ctypes
from typing import Final

CHUNK: Final = 4 << 20
"""About a millisecond natively; also bounds how late a KeyboardInterrupt comes."""

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


def copy_in(view: memoryview, offset: int, data: bytes, start: int, size: int) -> None:
    """`size` bytes of `data` from `start` on to `offset` of the writable `view`.

    ValueError when they are not there or do not fit.
    """
    if start < 0 or size < 0 or start + size > len(data):
        raise ValueError(f"{size:#x} bytes at {start:#x} of {len(data):#x} bytes")
    if not size:
        return
    destination = _address(view, offset, size)
    # c_char_p gives the address of the bytes object's own storage, which `data` keeps alive.
    source = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    for at in range(0, size, CHUNK):
        ctypes.memmove(destination + at, source + start + at, min(CHUNK, size - at))


def fill(view: memoryview, offset: int, size: int, byte: int = 0) -> None:
    """`size` bytes of value `byte` to `offset` of the writable `view`."""
    if size:
        destination = _address(view, offset, size)
        for at in range(0, size, CHUNK):
            ctypes.memset(destination + at, byte, min(CHUNK, size - at))


def move(to: memoryview, offset: int, source: memoryview, start: int, size: int) -> None:
    """`size` bytes of `source` from `start` on to `offset` of `to`; both are writable."""
    if size:
        destination, origin = _address(to, offset, size), _address(source, start, size)
        for at in range(0, size, CHUNK):
            ctypes.memmove(destination + at, origin + at, min(CHUNK, size - at))


def same(one: memoryview, offset: int, other: memoryview, start: int, size: int) -> bool:
    """Whether `size` bytes at these places are equal; both are writable."""
    return not size or not _memcmp(_address(one, offset, size), _address(other, start, size), size)


def _address(view: memoryview, offset: int, size: int) -> int:
    if offset < 0 or offset + size > view.nbytes:
        raise ValueError(f"{size:#x} bytes at {offset:#x} do not fit into {view.nbytes:#x}")
    return ctypes.addressof(ctypes.c_char.from_buffer(view, offset))
