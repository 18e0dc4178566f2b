# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes cpio archives in the "newc" format, the kernel's initramfs format.

Source: Documentation/driver-api/early-userspace/buffer-format.rst.  Archives are reproducible (time
0, owner root) and may be concatenated, since each is padded to 512 bytes.  No hard links.
"""

from __future__ import annotations

import stat
from pathlib import PurePosixPath


class Archive:
    """Collects entries; missing parent directories are added with mode 0755."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._seen: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Adds a directory once; a second mention changes nothing."""
        name = _clean(path)
        if name and name not in self._seen:
            self._entry(name, stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a regular file."""
        self._entry(_clean(path), stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link at `path` that points to `target`."""
        self._entry(_clean(path), stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Adds a character device node; needs no right to make one here."""
        self._entry(_clean(path), stat.S_IFCHR | 0o600, b"", (major, minor))

    def finish(self) -> bytes:
        """The archive with its trailer, padded to a multiple of 512 bytes."""
        trailer = _record(0, "TRAILER!!!", 0, b"", (0, 0))
        body = bytes(self._out) + trailer
        return body + bytes(-len(body) % 512)

    def _entry(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        if not name:
            raise ValueError("an entry needs a name")
        if name in self._seen:
            raise ValueError(f"{name} is in the archive already")
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.directory(parent)
        self._seen.add(name)
        self._out += _record(len(self._seen), name, mode, data, device)


def _clean(path: str) -> str:
    parts = PurePosixPath(path).parts
    if ".." in parts:
        raise ValueError(f"{path} leaves the archive")
    return "/".join(part for part in parts if part != "/")


def _record(inode: int, name: str, mode: int, data: bytes, device: tuple[int, int]) -> bytes:
    if len(data) >= 1 << 32:
        raise ValueError(f"{name} is too long for cpio: {len(data)} bytes")
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0)
    header = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + raw
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)
