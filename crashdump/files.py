# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing files that are whole or not there, and saying so when the disk is full."""

import errno
import os
from pathlib import Path

from crashdump.errors import DiskFull


def disk_full(path: Path, what: str = "a dump") -> DiskFull:
    return DiskFull(
        f"{path}: no space left on the disk for {what}; delete old incidents or enlarge it"
    )


def write_at(fd: int, offset: int, data: bytes | memoryview, path: Path) -> None:
    """All of ``data`` at ``offset``.

    :raises DiskFull: the disk or the quota is full; ``path`` is for the message.
    """
    rest = memoryview(data)
    try:
        while len(rest):
            done = os.pwrite(fd, rest, offset)
            offset += done
            rest = rest[done:]
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(path) from problem
        raise


def sync_directory(path: Path) -> None:
    """Makes renames and new files in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Puts ``data`` under ``path``, mode 0600: all of it, or what was there before stays.

    One writer at a time: a killed one's ``.NAME.part`` is overwritten by the next.

    :param sync: wait until it is on the disk, its name too.
    :raises DiskFull: the disk or the quota is full.
    """
    part = path.with_name(f".{path.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_at(fd, 0, data, path)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)
