# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vmcore must say about the kernel inside it, read from its memory.

In order: the VMCOREINFO note where the vnode's agent said it is; VMCOREINFO found
by ``introspect``; a kernel found by ``introspect`` without one; nothing.  In the
last case the dump is still written, as raw memory with physical addresses only,
and :attr:`KernelFacts.remark` says so.  No failure in here may cost a dump.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from adeos.text import printable
from crashdump.errors import BadSegment

if TYPE_CHECKING:
    from introspect.memory import BufferMemory
    from introspect.paging import PageTables
    from introspect.vmcoreinfo import VmcoreInfo

PAGE = 4096
START_KERNEL_MAP = 0xFFFFFFFF80000000  # arch/x86/include/asm/page_64_types.h
CPU_ENTRY_AREA_END = 0xFFFFFE8000000000  # Documentation/arch/x86/x86_64/mm.rst
# Behind the CPU entry area come the espfix stacks, one page mapped at
# thousands of addresses (arch/x86/kernel/espfix_64.c): of no use, left out.
DIRECT_MAP_LOW = {False: 0xFFFF888000000000, True: 0xFF11000000000000}  # by LA57
DIRECT_MAP_ALIGN = 1 << 30  # KASLR moves it in steps of 1 GiB, arch/x86/mm/kaslr.c
MAX_RUNS = 1 << 13
TEXT_MAX = 64 << 20  # of a kernel image, where no page table tells its end


class Segment(NamedTuple):
    """Physical memory from ``pa`` on; ``data`` is a view of bytes (format "B")."""

    pa: int
    data: memoryview


class Run(NamedTuple):
    """``size`` bytes at virtual ``va`` are those at physical ``pa``."""

    va: int
    pa: int
    size: int


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """One kernel, as the readers of a vmcore need it.

    :ivar vmcoreinfo: text of the VMCOREINFO note, empty when not found.
    :ivar page_offset: virtual address of physical 0 in the direct map.
    :ivar image: mapped runs of the kernel's image and modules.
    :ivar others: mapped runs of vmalloc (stacks), vmemmap and CPU entry areas.
    :ivar remark: what is missing and why, one line; empty when nothing is.
    """

    vmcoreinfo: bytes = b""
    release: str = ""
    phys_base: int | None = None
    page_offset: int | None = None
    image: tuple[Run, ...] = ()
    others: tuple[Run, ...] = ()
    remark: str = ""


def ordered(segments: Sequence[Segment]) -> list[Segment]:
    """``segments`` by address.

    :raises BadSegment: they overlap, or one is not made of whole pages.
    """
    found = sorted(segments, key=lambda one: one.pa)
    end = 0
    for pa, data in found:
        if pa < end or pa % PAGE or len(data) % PAGE or not len(data):
            raise BadSegment(
                f"memory segment {pa:#x}, {len(data)} bytes: overlaps another or is not made of"
                " whole pages; give each page once"
            )
        end = pa + len(data)
    return found


def find(segments: Sequence[Segment], note_pa: int = 0) -> KernelFacts:
    """The facts of the kernel in ``segments``; raises for nothing that is in there.

    :param note_pa: where the agent says the VMCOREINFO note is; 0 = it did not.
    """
    try:
        from introspect.memory import BufferMemory

        memory = BufferMemory([(one.pa, one.data) for one in segments])
        return _mapped(memory, *_located(memory, note_pa))
    except Exception as problem:  # whatever it is, the raw memory must be kept
        why = printable(f"{type(problem).__name__}: {problem}"[:200].encode())
        return KernelFacts(remark=f"no kernel found, memory written as it is ({why})")


def _located(memory: BufferMemory, note_pa: int) -> tuple[KernelFacts, int, bool, int]:
    """The kernel without its mappings, root table's physical address, LA57, encryption bit."""
    info = _vmcoreinfo(memory, note_pa)
    if info is None:
        from introspect.kernel import Kernel

        kernel = Kernel.find(memory)
        facts = KernelFacts(
            b"", kernel.release, kernel.phys_base, kernel.page_offset, remark="no VMCOREINFO"
        )
        return facts, kernel.root_pgt, kernel.la57, 0
    raw, fields = info
    phys_base = fields.number("phys_base")
    facts = KernelFacts(raw, printable(fields["OSRELEASE"][:64].encode()), phys_base)
    root = fields.symbol("swapper_pg_dir") - START_KERNEL_MAP + phys_base
    la57 = bool(_optional(fields, "pgtable_l5_enabled"))
    if root % PAGE:
        return replace(facts, remark="VMCOREINFO gives no page table"), -1, la57, 0
    return facts, root, la57, _optional(fields, "sme_mask")


def _vmcoreinfo(memory: BufferMemory, note_pa: int) -> tuple[bytes, VmcoreInfo] | None:
    from introspect import vmcoreinfo
    from introspect.errors import IntrospectError

    try:
        if note_pa:
            found = vmcoreinfo.note_at(memory, note_pa)
            if "NUMBER(phys_base)" in found.fields and "SYMBOL(swapper_pg_dir)" in found.fields:
                return found.raw, found.fields
    except IntrospectError:
        pass  # the agent's word was wrong: look for oneself
    for found in vmcoreinfo.find_notes(memory):
        if "SYMBOL(swapper_pg_dir)" in found.fields:
            return found.raw, found.fields
    return None


def _optional(fields: VmcoreInfo, name: str) -> int:
    return fields.number(name) if f"NUMBER({name})" in fields else 0


def _mapped(
    memory: BufferMemory, facts: KernelFacts, root: int, la57: bool, encryption: int
) -> KernelFacts:
    from introspect.paging import PageTables

    if memory.view(root, PAGE) is None:
        remark = facts.remark or "page tables outside the memory"
        return replace(facts, image=_image_by_formula(memory, facts), remark=remark)
    tables = PageTables(memory, root, la57=la57, encryption=encryption)
    low = DIRECT_MAP_LOW[la57]
    offset = facts.page_offset
    if offset is None:
        offset = _page_offset(tables, low)
    if offset is not None:
        last, size = memory.ranges[-1]
        low = offset + last + size
    image, image_cut = _runs(memory, tables, START_KERNEL_MAP, (1 << 64) - PAGE)
    others, others_cut = _runs(memory, tables, low, CPU_ENTRY_AREA_END)
    remarks = (
        facts.remark,
        "" if image else "no kernel image mapped",
        "" if offset is not None else "no direct map found",
        "some virtual ranges left out" if image_cut or others_cut else "",
    )
    return replace(
        facts,
        page_offset=offset,
        image=image or _image_by_formula(memory, facts),
        others=others,
        remark="; ".join(filter(None, remarks)),
    )


def _page_offset(tables: PageTables, low: int) -> int | None:
    """Virtual address of physical 0: the direct map is the lowest of the kernel's regions."""
    for leaf in tables.leaves(low, CPU_ENTRY_AREA_END):
        offset = leaf.va - leaf.pa
        return offset if offset >= low and offset % DIRECT_MAP_ALIGN == 0 else None
    return None


def _runs(
    memory: BufferMemory, tables: PageTables, low: int, high: int
) -> tuple[tuple[Run, ...], bool]:
    ranges = memory.ranges
    parts = (
        part
        for leaf in tables.leaves(low, high)
        for part in clip(ranges, Run(leaf.va, leaf.pa, leaf.size))
    )
    found, cut = merge(parts)
    return tuple(found), cut


def clip(ranges: Sequence[tuple[int, int]], run: Run) -> Iterator[Run]:
    """The parts of ``run`` that lie in ``ranges``, (start, size) each."""
    for base, size in ranges:
        start, end = max(base, run.pa), min(base + size, run.pa + run.size)
        if start < end:
            yield Run(run.va + start - run.pa, start, end - start)


def merge(runs: Iterable[Run], limit: int = MAX_RUNS) -> tuple[list[Run], bool]:
    """Neighbours joined; whether there were more than ``limit`` runs (the rest is dropped).

    A vnode may map one page a million times over: the bound is on what is kept.
    """
    merged: list[Run] = []
    for run in runs:
        last = merged[-1] if merged else None
        if last and last.va + last.size == run.va and last.pa + last.size == run.pa:
            merged[-1] = last._replace(size=last.size + run.size)
        elif len(merged) == limit:
            return merged, True
        else:
            merged.append(run)
    return merged, False


def _image_by_formula(memory: BufferMemory, facts: KernelFacts) -> tuple[Run, ...]:
    """The kernel's image without page tables: from _stext on, TEXT_MAX bytes."""
    from introspect.vmcoreinfo import parse

    if facts.phys_base is None or not facts.vmcoreinfo:
        return ()
    start = parse(facts.vmcoreinfo).symbol("_stext") & -(1 << 21)
    run = Run(start, start - START_KERNEL_MAP + facts.phys_base, TEXT_MAX)
    return tuple(clip(memory.ranges, run))
