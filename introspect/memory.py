# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory, whatever it is: buffers, a raw RAM file, an ELF vmcore.

All are lists of segments over buffers (bytes, memoryview, mmap); nothing is
copied before it is read.  Holes of sparse files are never touched by a scan.

Limits: a file that shrinks while it is mapped ends the process with SIGBUS,
as with every mapping reader.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from introspect.errors import BadImage, MemoryFault

PAGE = 4096
WINDOW = 32 << 20
MAX_READ = 1 << 30

Buffer = bytes | bytearray | memoryview | mmap.mmap


@runtime_checkable
class PhysicalMemory(Protocol):
    """What the rest of introspect needs of a memory."""

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, size) in bytes, sorted, not overlapping."""
        ...

    def read(self, pa: int, size: int) -> bytes:
        """The bytes at physical address `pa`; MemoryFault when any is absent."""
        ...


class BufferMemory:
    """Memory made of (physical address, buffer) segments.

    The buffers may be live memory: they are read anew at each call.
    Overlapping segments are a BadImage.
    """

    def __init__(self, segments: Sequence[tuple[int, Buffer]]) -> None:
        parts = sorted(
            ((pa, memoryview(buffer).cast("B")) for pa, buffer in segments if len(buffer)),
            key=lambda part: part[0],
        )
        self._starts = [pa for pa, _ in parts]
        self._views = [view for _, view in parts]
        self._ends = [pa + len(view) for pa, view in parts]
        for end, start in zip(self._ends, self._starts[1:], strict=False):
            if end > start:
                raise BadImage(f"memory segments overlap at physical address {start:#x}")
        if parts and parts[0][0] < 0:
            raise BadImage(f"negative physical address {parts[0][0]:#x}")

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        return [(s, e - s) for s, e in zip(self._starts, self._ends, strict=True)]

    def extents(self) -> Iterator[tuple[int, int]]:
        """(start, size) of what is worth scanning: the ranges without known holes."""
        yield from self.ranges

    def read(self, pa: int, size: int) -> bytes:
        index = bisect_right(self._starts, pa) - 1
        if index >= 0 and size >= 0 and pa + size <= self._ends[index]:
            at = pa - self._starts[index]
            return self._views[index][at : at + size].tobytes()
        return self._read_across(pa, size, index)

    def _read_across(self, pa: int, size: int, index: int) -> bytes:
        if index < 0 or not 0 <= size <= MAX_READ:
            raise MemoryFault(pa, size)
        parts: list[bytes] = []
        at, left = pa, size
        while left:
            if index >= len(self._starts) or not self._starts[index] <= at < self._ends[index]:
                raise MemoryFault(pa, size)
            count = min(left, self._ends[index] - at)
            offset = at - self._starts[index]
            parts.append(self._views[index][offset : offset + count].tobytes())
            at, left, index = at + count, left - count, index + 1
        return b"".join(parts)

    def view(self, pa: int, size: int) -> memoryview | None:
        """The bytes without a copy, or None when they span segments or are absent."""
        index = bisect_right(self._starts, pa) - 1
        if index < 0 or pa + size > self._ends[index]:
            return None
        at = pa - self._starts[index]
        return self._views[index][at : at + size]

    def release(self, pa: int, size: int) -> None:
        """Tells that a scan is done with these bytes; files give their pages back."""


class FileMemory(BufferMemory):
    """Segments of a mapped file: [(physical address, file offset, size)].

    Holes of the file read as zeros and are left out of `extents`.
    """

    def __init__(self, path: Path, segments: Sequence[tuple[int, int, int]]) -> None:
        self.path = path
        self._map, size = map_file(path)
        for pa, offset, length in segments:
            if pa < 0 or offset < 0 or length < 0 or offset + length > size:
                raise BadImage(
                    f"{path}: a segment of {length} bytes at file offset {offset} does not fit "
                    f"in the file's {size} bytes: truncated?"
                )
        view = memoryview(self._map)
        super().__init__([(pa, view[offset : offset + length]) for pa, offset, length in segments])
        self._offsets = {pa: offset for pa, offset, length in segments if length}

    def extents(self) -> Iterator[tuple[int, int]]:
        with self.path.open("rb") as file:
            for start, size in self.ranges:
                offset = self._offsets[start]
                for at, length in data_extents(file.fileno(), offset, size):
                    yield start + at - offset, length

    def release(self, pa: int, size: int) -> None:
        index = bisect_right(self._starts, pa) - 1
        if index < 0:
            return
        at = self._offsets[self._starts[index]] + pa - self._starts[index]
        first = (at + PAGE - 1) & -PAGE
        length = (min(at + size, len(self._map)) & -PAGE) - first
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, first, length)


def open_regular(path: Path) -> BinaryIO:
    """Opens a file that a user names; a FIFO or a device is an OSError instead of a wait."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(fd, "rb")


def map_file(path: Path) -> tuple[mmap.mmap, int]:
    """A read-only mapping of the whole file and its size; BadImage when it cannot be."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise BadImage(f"{path}: the file is empty")
            return mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ), size
    except (OSError, ValueError) as error:
        raise BadImage(f"{path}: cannot be mapped: {error}") from None


def data_extents(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the data within a part of a file, by SEEK_DATA; all of it if unknown."""
    at, end = offset, offset + size
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only holes from here on
                yield at, end - at
            return
        if data < end:
            yield data, min(hole, end) - data
        at = max(hole, at + 1)


def windows(memory: PhysicalMemory) -> Iterator[tuple[int, memoryview]]:
    """(physical address, view) over all data, in windows of at most 32 MiB.

    Each window starts at a page; the tail below a page of a range is kept.
    """
    extents = memory.extents() if isinstance(memory, BufferMemory) else memory.ranges
    for start, size in extents:
        at, end = (start + PAGE - 1) & -PAGE, start + size
        while at < end:
            count = min(WINDOW, end - at)
            view = memory.view(at, count) if isinstance(memory, BufferMemory) else None
            yield at, view if view is not None else memoryview(memory.read(at, count))
            if isinstance(memory, BufferMemory):
                memory.release(at, count)
            at += count


def open_image(
    path: str | Path,
    *,
    segments: Sequence[tuple[int, int, int]] | None = None,
    base: int = 0,
    partial: bool = False,
) -> PhysicalMemory:
    """Opens a memory image, by content: an ELF vmcore, a kdump-compressed one, or raw RAM.

    A raw file starts at physical address `base`, or is laid out by `segments`:
    (physical address, file offset, size).  BadImage says what is wrong with a file.  A truncated
    dump is one, but with `partial` what is there is opened, and `missing` tells how much is not.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            head = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BadImage(f"{path}: {error.strerror or error}") from None
    if segments is not None:
        return FileMemory(path, segments)
    if head.startswith(b"\x7fELF"):
        from introspect.elfcore import open_elf

        return open_elf(path, partial=partial)
    if head.startswith((b"KDUMP   ", b"makedumpfile")):
        from introspect.kdump import open_kdump

        return open_kdump(path, partial=partial)
    if size < PAGE:
        raise BadImage(f"{path}: {size} bytes are too few for a memory image")
    return FileMemory(path, [(base, 0, size)])
