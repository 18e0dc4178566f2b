# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump in another format, believed only after it was read back.

    export(Path("vmcore"), Path("small.kdump"), Format.KDUMP, level=31)

makedumpfile writes ELF and kdump-compressed files and leaves out the pages its
dump level names; a raw image, file offset = physical address, is written here.
The result gets its name when the same kernel, log and tasks were found in it
and a sample of its pages equals the source's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adeos.text import printable
from crashdump import sparse
from crashdump.errors import CrashdumpError
from crashdump.files import sync_directory

if TYPE_CHECKING:
    from introspect.kernel import Kernel
    from introspect.memory import PhysicalMemory

PAGE = 4096
MAX_LEVEL = 31
RESERVE = 32 << 20
SAMPLE = 512  # pages compared
STEP = 16 << 20
MAX_RAW = 1 << 46  # bytes: the highest physical address a raw image may reach
TIMEOUT = 3600.0


class Format(StrEnum):
    ELF = "elf"
    """An ELF core file, filtered."""
    KDUMP = "kdump"
    """kdump-compressed (zlib), filtered: the smallest."""
    RAW = "raw"
    """Physical memory as it is, sparse; registers are not in it."""


class ExportFailed(CrashdumpError):
    """The file could not be written, or what was read back differs; nothing is left of it."""


class MissingTool(CrashdumpError):
    exit_code = 5


class Exported(NamedTuple):
    """What was written: sizes in bytes, `pages` compared with the source, `tasks` found in it."""

    path: Path
    format: Format
    size: int
    stored: int
    pages: int
    tasks: int
    seconds: float


def export(source: Path, out: Path, kind: Format, *, level: int = MAX_LEVEL) -> Exported:
    """Writes `source` as `out`, mode 0600, replacing what was there.

    :param level: makedumpfile's dump level, 0 to 31: which pages to leave out (not of RAW).
    :raises ExportFailed, MissingTool, DiskFull: nothing of the file is left.
    """
    began = time.monotonic()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if kind is Format.RAW:
            _write_raw(source, part)
        else:
            _makedumpfile(source, part, kind, level)
        part.chmod(0o600)
        pages, tasks = verify(source, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(out)
        sync_directory(out.absolute().parent)
    finally:
        part.unlink(missing_ok=True)
    stat = out.stat()
    seconds = time.monotonic() - began
    return Exported(out, kind, stat.st_size, stat.st_blocks * 512, pages, tasks, seconds)


def command(source: Path, out: Path, kind: Format, level: int) -> list[str]:
    """The makedumpfile command line.  zlib: what every reader knows, introspect among them."""
    flag = "-E" if kind is Format.ELF else "-c"
    return ["makedumpfile", flag, "-d", str(level), "-f", str(source), str(out)]


def _makedumpfile(source: Path, out: Path, kind: Format, level: int) -> None:
    if shutil.which("makedumpfile") is None:
        raise MissingTool("makedumpfile is not installed: apt-get install makedumpfile")
    if not 0 <= level <= MAX_LEVEL:
        raise ExportFailed(f"dump level {level} is not in 0..{MAX_LEVEL}")
    sparse.budget(out, RESERVE)  # room for anything at all?
    words = command(source.absolute(), out.absolute(), kind, level)
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ExportFailed(f"{source}: makedumpfile took over {TIMEOUT:.0f} s") from None
    if done.returncode:
        words_said = printable((done.stdout + b" " + done.stderr)[-2000:], keep="\n").split("\n")
        said = [line.strip() for line in words_said if line.strip() and "%" not in line]
        why = "; ".join(said[-2:])[:300]
        raise ExportFailed(f"{source}: makedumpfile failed ({done.returncode}): {why}")


def _write_raw(source: Path, out: Path) -> None:
    """Every present page at its physical address; what is absent or zero is a hole."""
    from introspect.errors import IntrospectError

    try:
        memory = _open(source)
        ranges = memory.ranges
        end = ranges[-1][0] + ranges[-1][1] if ranges else 0
        if not 0 < end <= MAX_RAW:
            raise ExportFailed(f"{source}: no memory in it, or at absurd addresses ({end:#x})")
        fd = os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            spend = sparse.budget(out, RESERVE)
            for pa, data in _pieces(memory):
                sparse.copy(fd, pa, data, spend)
            os.ftruncate(fd, end)
        finally:
            os.close(fd)
    except IntrospectError as problem:
        raise ExportFailed(f"{source}: {problem}") from None


def _pieces(memory: PhysicalMemory) -> Iterator[tuple[int, memoryview]]:
    """All memory that is worth reading, in pieces; of a filtered dump page by page."""
    from introspect.errors import MemoryFault
    from introspect.memory import BufferMemory

    extents = memory.extents() if isinstance(memory, BufferMemory) else memory.ranges
    for start, size in extents:
        for at in range(start, start + size, STEP):
            count = min(STEP, start + size - at)
            try:
                yield at, memoryview(memory.read(at, count))
            except MemoryFault:
                for page in range(at, at + count, PAGE):
                    try:
                        yield page, memoryview(memory.read(page, min(PAGE, at + count - page)))
                    except MemoryFault:
                        continue


def _open(path: Path) -> PhysicalMemory:
    from introspect.errors import IntrospectError
    from introspect.memory import open_image

    try:
        return open_image(path)
    except IntrospectError as problem:
        raise ExportFailed(str(problem)) from None


def verify(source: Path, result: Path) -> tuple[int, int]:
    """(pages compared, tasks found): the same kernel, log and tasks, and equal sampled pages.

    :raises ExportFailed: something differs.
    """
    from introspect.errors import IntrospectError
    from introspect.kernel import Kernel

    before, after = _open(source), _open(result)
    try:
        one, two = Kernel.find(before), Kernel.find(after)
        same = _summary(one) == _summary(two)
        count = len(_summary(two)[3])
    except IntrospectError as problem:
        raise ExportFailed(f"read back, the export has no such kernel: {problem}") from None
    if not same:
        raise ExportFailed("read back, the export's kernel, log or tasks differ from the dump's")
    return _compare(before, after), count


def _summary(kernel: Kernel) -> tuple[str, str, list[str], list[tuple[int, str]]]:
    log = [record.text for record in islice(kernel.log(), 100_000)]
    tasks = [(task.pid, task.comm) for task in islice(kernel.tasks(), 100_000)]
    return kernel.release, kernel.build_id, log[-200:], tasks


def _compare(before: PhysicalMemory, after: PhysicalMemory) -> int:
    """Pages of the source, spread over all of it, that are in the result and equal there."""
    from introspect.errors import MemoryFault

    total = sum(size for _, size in before.ranges) // PAGE
    step = max(total // SAMPLE, 1) * PAGE
    compared = 0
    for start, size in before.ranges:
        for pa in range(start, start + size - PAGE + 1, step):
            try:
                there = after.read(pa, PAGE)
            except MemoryFault:
                continue  # left out by the dump level
            if any(there) and there != before.read(pa, PAGE):
                raise ExportFailed(f"read back, the export differs at physical {pa:#x}")
            compared += 1
    return compared
