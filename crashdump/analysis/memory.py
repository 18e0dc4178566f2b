# SPDX-License-Identifier: GPL-2.0-or-later
"""The panel on memory: free and used, the largest slab caches, the OOM killer's words."""

from __future__ import annotations

from collections.abc import Iterator

from crashdump.analysis import values
from crashdump.analysis.oops import Kind
from crashdump.analysis.report import Block, Facts, Lines, Table
from crashdump.analysis.subject import Subject
from introspect.errors import IntrospectError
from introspect.kernel import Kernel

PAGE_KIB = 4
TOP = 15
MAX_NODES = 64
# (array of counters, its enum, items as /proc/meminfo or vmstat would show them)
COUNTERS = (
    ("vm_zone_stat", "zone_stat_item", (("free", "NR_FREE_PAGES"), ("mlocked", "NR_MLOCK"))),
    ("vm_node_stat", "node_stat_item", (
        ("anonymous", "NR_ANON_MAPPED"), ("page cache", "NR_FILE_PAGES"), ("shared", "NR_SHMEM"),
        ("dirty", "NR_FILE_DIRTY"), ("writeback", "NR_WRITEBACK"),
        ("slab, reclaimable", "NR_SLAB_RECLAIMABLE_B"), ("slab, other", "NR_SLAB_UNRECLAIMABLE_B"),
        ("kernel stacks (KiB)", "NR_KERNEL_STACK_KB"), ("page tables", "NR_PAGETABLE"),
    )),
)  # fmt: skip


def panel(subject: Subject) -> Iterator[Block]:
    """Free and used memory, the slab caches that hold the most, what the OOM killer said."""
    kernel = subject.kernel
    yield Facts("", tuple(_counters(kernel)))
    try:
        rows = _slabs(kernel)
        yield Table("Slab caches by size", ("cache", "KiB", "objects", "object size"), rows)
    except IntrospectError as problem:
        yield Lines("Slab caches by size", (str(problem),))
    for event in subject.events:
        if event.kind is Kind.OOM:
            yield Lines("Out of memory", (event.head, *event.detail[:20]))


def _counters(kernel: Kernel) -> Iterator[tuple[str, str]]:
    address = kernel.symbols.address
    yield "total", _kib(kernel.u64(address("_totalram_pages")) * PAGE_KIB)
    for array, enum, items in COUNTERS:
        numbers = dict(kernel.btf.find(f"enum {enum}").enumerators)
        for label, name in items:
            if name not in numbers:
                continue
            value = max(_signed(kernel.u64(address(array) + 8 * numbers[name])), 0)
            yield label, _kib(value if name.endswith("_KB") else value * PAGE_KIB)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _kib(value: int) -> str:
    return f"{value} KiB"


def _slabs(kernel: Kernel) -> tuple[tuple[str, ...], ...]:
    """Needs CONFIG_SLUB_DEBUG, which every distribution sets: else NotFound."""
    cache, node = kernel.btf.struct("kmem_cache"), kernel.btf.struct("kmem_cache_node")
    size, objects = cache.offset("size"), node.offset("total_objects")
    # 7.2: each node's pointer is the member of a struct
    array, inner = ("per_node", ".node") if cache.has("per_node") else ("node", "")
    count = _nodes(kernel, min(cache.member(array).type.strip().length or 1, MAX_NODES))
    nodes = [cache.offset(f"{array}[{index}]{inner}") for index in range(count)]
    found = []
    for at, name in values.slab_caches(kernel):
        places = [kernel.u64(at + offset) for offset in nodes]
        total = sum(kernel.u64(place + objects) for place in places if place)
        each = kernel.u32(at + size)
        found.append((total * each // 1024, name, total, each))
    found.sort(reverse=True)
    return tuple((name, str(kib), str(total), str(each)) for kib, name, total, each in found[:TOP])


def _nodes(kernel: Kernel, most: int) -> int:
    """NUMA nodes that can be: the array has room for more than the kernel made."""
    try:
        return min(most, max(kernel.u32(kernel.symbols.address("nr_node_ids")), 1))
    except IntrospectError:
        return 1
