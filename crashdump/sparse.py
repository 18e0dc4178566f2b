# SPDX-License-Identifier: GPL-2.0-or-later
"""Copying memory into a file and leaving holes where it is zero.

How zeros are found decides the speed: a 64 KiB piece is copied and compared
with zeros by memcmp; only a piece that has other bytes is looked at page by
page.  The writes come straight from the memory's own mapping and release the
GIL, so a thread may do this beside an event loop.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashdump.files import disk_full, write_at

PAGE = 4096
CHUNK = 64 << 10
BATCH = 1 << 20  # longest single write
_ZERO_CHUNK = bytes(CHUNK)
_ZERO_PAGE = bytes(PAGE)


@dataclass(slots=True)
class Budget:
    """How many bytes may be written to ``path``; whatever is left of it.

    :ivar room: bytes free on the disk less the reserve, when the copy began.
    """

    path: Path
    room: int
    spent: int = 0

    def spend(self, size: int) -> None:
        """:raises DiskFull: before anything too much is written."""
        self.spent += size
        if self.spent > self.room:
            raise disk_full(self.path)


def budget(path: Path, reserve: int, need: int = 0) -> Budget:
    """What may be written beside ``path``, leaving ``reserve`` bytes of the disk free.

    :raises DiskFull: not even ``need`` bytes may be written.
    """
    stat = os.statvfs(path.parent)
    room = stat.f_bavail * stat.f_frsize - reserve
    if room < need:
        raise disk_full(path)
    return Budget(path, room)


def nonzero_runs(view: memoryview) -> Iterator[tuple[int, int]]:
    """(start, end) of the runs of pages of ``view`` that are not all zero.

    Runs are split at BATCH bytes.  ``view`` has format "B"; a rest behind the
    last whole page counts as a page.
    """
    start = -1  # of the open run
    for at in range(0, len(view), CHUNK):
        chunk = view[at : at + CHUNK].tobytes()
        if chunk == _ZERO_CHUNK:
            if start >= 0:
                yield start, at
                start = -1
            continue
        for page in range(0, len(chunk), PAGE):
            zero = chunk.startswith(_ZERO_PAGE, page) if page + PAGE <= len(chunk) else False
            if zero:
                if start >= 0:
                    yield start, at + page
                    start = -1
            elif start < 0:
                start = at + page
        if start >= 0 and at + len(chunk) - start >= BATCH:
            yield start, at + len(chunk)
            start = -1
    if start >= 0:
        yield start, len(view)


def copy(fd: int, offset: int, view: memoryview, spend: Budget) -> None:
    """Writes the non-zero pages of ``view`` into ``fd``, from file ``offset`` on.

    The file must have holes or zeros there; its size is not changed by zero
    pages.

    :raises DiskFull: see :class:`Budget`.
    """
    for start, end in nonzero_runs(view):
        spend.spend(end - start)
        write_at(fd, offset + start, view[start:end], spend.path)
