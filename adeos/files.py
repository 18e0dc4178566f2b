# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads files that a user names: what is no file of a sensible size is an error, not a wait."""

import errno
import os
import stat
from pathlib import Path

SIZE_MAX = 2 << 30


def read_regular(path: Path, limit: int = SIZE_MAX) -> bytes:
    """All of a regular file of at most `limit` bytes.

    OSError otherwise: a FIFO without a writer would be waited for, /dev/zero never ends.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with os.fdopen(fd, "rb") as file:
        # read(limit + 1) would have the memory for all of that at hand.
        data = file.read(found.st_size) + file.read() if found.st_size <= limit else b""
    if max(found.st_size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data
