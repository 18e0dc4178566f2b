# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing an ELF vmcore that crash, drgn, gdb and makedumpfile open.

    write(Path("vmcore"), [Segment(0x40000000, view)], cpus, facts)

The file: headers and notes in the first mebibyte, then each segment once, at
an offset that depends on the segments alone.  So the memory can be copied
first, in a hurry, and the headers made later (:class:`Part`).  All program
headers (kernel image, direct map, vmalloc) point into those same bytes.  Zero
pages are holes.  Under its final name a file is complete; before, it is
``NAME.part`` beside it.  Not compressed, not filtered: makedumpfile does that.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from crashdump import elf, notes, sparse
from crashdump.elf import PT_LOAD, ProgramHeader
from crashdump.facts import KernelFacts, Run, Segment, ordered
from crashdump.files import sync_directory, write_at
from crashdump.notes import CpuState

HEADER_SPACE = 1 << 20
RESERVE = 32 << 20  # bytes of the disk a dump leaves to others


class Summary(NamedTuple):
    """What was written; ``size`` and ``stored`` (without the holes) in bytes."""

    path: Path
    size: int
    stored: int
    seconds: float
    loads: int
    remark: str


def offsets(segments: Sequence[Segment]) -> list[int]:
    """File offset of each segment's first byte, in the order given."""
    found, at = [], HEADER_SPACE
    for segment in segments:
        found.append(at)
        at += len(segment.data)
    return found


def program_headers(
    segments: Sequence[Segment], facts: KernelFacts, limit: int = elf.MAX_PHDRS
) -> list[ProgramHeader]:
    """The PT_LOADs, at most ``limit``: kernel image first (crash takes phys_base
    from it), the direct map of each segment last (makedumpfile takes
    page_offset from the last one below the kernel image).

    Without a known direct map a segment's address is 0: physical only.
    """
    starts = offsets(segments)

    def load(run: Run) -> ProgramHeader:
        for (pa, data), offset in zip(segments, starts, strict=True):
            if pa <= run.pa and run.pa + run.size <= pa + len(data):
                return ProgramHeader(PT_LOAD, offset + run.pa - pa, run.va, run.pa, run.size)
        raise ValueError(f"run at {run.pa:#x} lies in no segment")

    base = facts.page_offset
    direct = [Run(0 if base is None else base + pa, pa, len(data)) for pa, data in segments]
    room = max(0, limit - len(direct))
    image = facts.image[:room]
    others = facts.others[: room - len(image)]
    return [load(run) for run in (*image, *others, *direct)]


def headers(
    segments: Sequence[Segment], cpus: Sequence[CpuState | None], facts: KernelFacts
) -> bytes:
    """All that precedes the memory, at most HEADER_SPACE bytes."""
    note = elf.pack_notes(notes.compose(facts.vmcoreinfo, cpus))
    room = (HEADER_SPACE - elf.EHDR.size - len(note)) // elf.PHDR.size - 1
    return elf.pack_headers(program_headers(segments, facts, min(room, elf.MAX_PHDRS - 1)), note)


class Part:
    """A vmcore being written, under ``NAME.part``.

    ``with Part(out) as part: part.copy(...); part.seal(...)``: leaving without a
    seal removes the file.  To copy now and seal in another process: with
    ``keep=True`` a complete copy stays, and ``resume=True`` takes it up again
    (it is then the only copy there is, and stays whatever happens).
    """

    def __init__(self, out: Path, *, keep: bool = False, resume: bool = False) -> None:
        self.out = out
        self.path = part_path(out)
        self._keep = keep
        self._resumed = resume
        fresh = 0 if resume else os.O_CREAT | os.O_TRUNC
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | fresh, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._fd)
        if not self._resumed and (kind is not None or not self._keep):
            self.path.unlink(missing_ok=True)  # after a seal there is none

    def copy(self, segments: Sequence[Segment], *, reserve: int = RESERVE) -> int:
        """Writes the memory; returns the bytes stored.  Not yet on the disk for sure.

        :raises DiskFull: nothing of the file is left.
        """
        segments = ordered(segments)
        total = sum(len(one.data) for one in segments)
        spend = sparse.budget(self.path, reserve, HEADER_SPACE)
        for segment, offset in zip(segments, offsets(segments), strict=True):
            sparse.copy(self._fd, offset, segment.data, spend)
        os.ftruncate(self._fd, HEADER_SPACE + total)
        return spend.spent

    def seal(self, head: bytes) -> int:
        """Writes the headers, makes it durable and gives it its final name; the size."""
        write_at(self._fd, 0, head, self.path)
        os.fsync(self._fd)
        size = os.fstat(self._fd).st_size
        self.path.rename(self.out)
        sync_directory(self.out.parent)
        return size


def part_path(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def write(
    out: Path,
    segments: Sequence[Segment],
    cpus: Sequence[CpuState | None],
    facts: KernelFacts,
    *,
    reserve: int = RESERVE,
) -> Summary:
    """A vmcore of ``segments`` at ``out``, mode 0600, replacing what was there.

    :param cpus: registers by CPU number, None where unknown.
    :raises DiskFull, BadSegment: no file is left behind.
    """
    began = time.monotonic()
    segments = ordered(segments)
    with Part(out) as part:
        stored = part.copy(segments, reserve=reserve)
        head = headers(segments, cpus, facts)
        size = part.seal(head)
    return Summary(
        out, size, stored + len(head), time.monotonic() - began, count(head), facts.remark
    )


def count(head: bytes) -> int:
    """Number of PT_LOADs in ``head``."""
    return int.from_bytes(head[56:58], "little") - 1
