# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks an initrd before a kernel panics over it.

Limits: uncompressed cpio and gzip are checked to their end, of other compressions the magic only.
"""

import zlib
from typing import Final

from adeos.errors import ImageError

_ARCHIVES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"070701", "cpio"),
    (b"070702", "cpio"),
    (b"\x1f\x8b", "gzip"),
    (b"\x1f\x9e", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x89LZO\x00", "lzo"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
"""What init/initramfs.c and lib/decompress.c take."""


def check_initrd(data: bytes, name: str = "initrd") -> None:
    """ImageError unless `data` begins like something Linux takes as an initrd and is whole."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = next((kind for magic, kind in _ARCHIVES if data.startswith(magic)), None)
    if kind is None:
        raise ImageError(
            f"{name}: neither cpio nor a known compression", "make it with `find | cpio -o -H newc`"
        )
    if kind == "cpio":
        _check_cpio(data, name)
    elif kind == "gzip":
        _check_gzip(data, name)


def _check_cpio(data: bytes, name: str) -> None:
    """Walks one archive to its trailer; what follows it is another archive (or compressed)."""
    at = 0
    while True:
        head = data[at : at + 110]
        try:
            size, name_size = int(head[54:62], 16), int(head[94:102], 16)
        except ValueError:
            size, name_size = -1, -1
        if len(head) < 110 or size < 0 or name_size <= 0 or not head.startswith(b"07070"):
            raise ImageError(f"{name}: truncated or damaged cpio at byte {at}", "make it again")
        entry = data[at + 110 : at + 110 + name_size]
        if entry.rstrip(b"\0") == b"TRAILER!!!":
            return
        body = at + 110 + name_size + 3 & ~3
        at = body + size + 3 & ~3


def _check_gzip(data: bytes, name: str) -> None:
    """Decompresses it: its end carries a checksum, and a truncated one panics the kernel late."""
    while data:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            while data and not unpacker.eof:
                unpacker.decompress(data, 1 << 20)
                data = unpacker.unconsumed_tail
        except zlib.error as error:
            raise ImageError(f"{name}: damaged gzip ({error})", "make it again") from None
        if not unpacker.eof:
            raise ImageError(f"{name}: truncated gzip", "make it again")
        data = unpacker.unused_data.lstrip(b"\0")
        if not data.startswith(b"\x1f\x8b"):
            return
