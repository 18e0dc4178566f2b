# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoded symbol tables, kept on disk so that a kernel is decoded once.

A file is named by a digest of the undecoded tables, so what a hostile memory
claims to be (its build id) can never put false names under another kernel's.
The cache is best effort: a file that cannot be read or written is passed over.

Place: $VNODE_DEBUG_CACHE, else /var/cache/vnode-debug for root, else
$XDG_CACHE_HOME/vnode-debug.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path

from introspect.kallsyms import MAX_SYMBOLS, SymbolTable

_HEADER = struct.Struct("<8sIIII")  # magic, crc32 of the rest, symbols, absolute ones, name bytes
_MAGIC = b"VDSYMS1\n"
_MAX_NAMES = 256 << 20


def directory() -> Path:
    """Where the cache lies; it need not exist."""
    chosen = os.environ.get("VNODE_DEBUG_CACHE")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/vnode-debug")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "vnode-debug"


def key_of(parts: Iterable[bytes]) -> str:
    """The digest that names a table in the cache."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def pack(table: SymbolTable) -> bytes:
    """A table as the bytes of its cache file; its base is not part of it."""
    body = b"".join((table.offsets.tobytes(), table.starts.tobytes(), table.types, table.names))
    counts = (len(table), table.absolute, len(table.names))
    return _HEADER.pack(_MAGIC, zlib.crc32(body), *counts) + body


def unpack(data: bytes, base: int) -> SymbolTable | None:
    """The table of a cache file, or None when the file is not whole."""
    if len(data) < _HEADER.size:
        return None
    magic, crc, count, absolute, size = _HEADER.unpack_from(data)
    body = memoryview(data)[_HEADER.size :]
    fits = count <= MAX_SYMBOLS and size <= _MAX_NAMES and absolute <= count
    if magic != _MAGIC or not fits or len(body) != 13 * count + size or zlib.crc32(body) != crc:
        return None
    offsets, starts = array("Q"), array("I")
    offsets.frombytes(body[: 8 * count])
    starts.frombytes(body[8 * count : 12 * count])
    types = bytes(body[12 * count : 13 * count])
    return SymbolTable(base, absolute, offsets, types, bytes(body[13 * count :]), starts)


def load(key: str, base: int) -> SymbolTable | None:
    try:
        return unpack((directory() / f"{key}.syms").read_bytes(), base)
    except OSError:
        return None


def store(key: str, table: SymbolTable) -> None:
    """Writes atomically: a reader sees a whole file or none."""
    folder = directory()
    part = folder / f".{key}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pack(table))
        part.replace(folder / f"{key}.syms")
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
