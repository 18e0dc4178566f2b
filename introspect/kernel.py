# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux kernel found in physical memory: the facade of this package."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from introspect import kallsyms, locate, modules, percpu, printk, stack, tasks
from introspect import object as object_
from introspect.btf import Btf
from introspect.elfcore import build_id
from introspect.errors import Corrupt, IntrospectError, MemoryFault, NotFound
from introspect.locate import Bare
from introspect.memory import PAGE, PhysicalMemory
from introspect.modules import Module
from introspect.object import Object
from introspect.orc import Orc
from introspect.paging import PageTables
from introspect.printk import LogRecord
from introspect.stack import Backtrace
from introspect.symbols import Symbols, load
from introspect.tasks import Task
from introspect.vmcoreinfo import Found, VmcoreInfo, find_notes, note_at

KERNEL_MAP = kallsyms.KERNEL_MAP
IMAGE_SIZE = 1 << 30
LINKED_TEXT = KERNEL_MAP + (16 << 20)  # CONFIG_PHYSICAL_START
MAX_READ = 256 << 20
MAX_BTF = 64 << 20


@dataclass(frozen=True)
class Layout:
    """Where a kernel lies: enough to translate its addresses.

    phys_base     physical address of virtual KERNEL_MAP, may be negative
    kaslr_offset  bytes between where vmlinux was linked and where it runs
    root_pgt      physical address of init_top_pgt
    """

    phys_base: int
    kaslr_offset: int
    root_pgt: int
    la57: bool
    encryption: int = 0


@dataclass(eq=False, repr=False)
class Kernel:
    """One kernel in one memory.  `live` says that it may be running while it is read."""

    memory: PhysicalMemory
    layout: Layout
    vmcoreinfo: VmcoreInfo = field(default_factory=VmcoreInfo)
    vmcoreinfo_raw: bytes = b""
    live: bool = False
    bare: Bare | None = None

    @classmethod
    def find(
        cls,
        memory: PhysicalMemory,
        *,
        vmcoreinfo_pa: int | None = None,
        live: bool = False,
    ) -> Kernel:
        """The kernel in `memory`, the first one when there are several.

        vmcoreinfo_pa  physical address of VMCOREINFO (its ELF note or its text) when known:
                       nothing is searched then
        NotFound when there is none; Corrupt when what is at `vmcoreinfo_pa` contradicts itself.
        """
        if vmcoreinfo_pa is not None:
            return cls.from_vmcoreinfo(memory, note_at(memory, vmcoreinfo_pa), live=live)
        for kernel in cls.find_all(memory, live=live):
            return kernel
        raise NotFound(
            "no Linux kernel in this memory: neither VMCOREINFO nor kernel text was found"
        )

    @classmethod
    def find_all(cls, memory: PhysicalMemory, *, live: bool = False) -> Iterator[Kernel]:
        """Every kernel in `memory`: those with VMCOREINFO first, then those without."""
        roots = set()
        for found in find_notes(memory):
            try:
                kernel = cls.from_vmcoreinfo(memory, found, live=live)
            except IntrospectError:
                continue  # a copy of the text in a page cache or a staged image
            if kernel.root_pgt not in roots:
                roots.add(kernel.root_pgt)
                yield kernel
        seen: set[int] = set()
        for text in itertools.chain(
            locate.kernel_texts(memory), locate.texts_by_page_table(memory)
        ):
            if text in seen:
                continue
            seen.add(text)
            try:
                kernel = cls.from_text(memory, text, live=live)
            except IntrospectError:
                continue  # an image that never ran, or is half overwritten
            if kernel.root_pgt not in roots:
                roots.add(kernel.root_pgt)
                yield kernel

    @classmethod
    def from_text(cls, memory: PhysicalMemory, text: int, *, live: bool = False) -> Kernel:
        """The kernel whose _text lies at physical `text`, without VMCOREINFO.

        NotFound when kallsyms or page tables are missing.
        """
        bare = locate.Bare(memory, text)
        kaslr = bare.text_va - LINKED_TEXT
        layout = Layout(bare.phys_base, kaslr, bare.root_pgt, bare.la57)
        return cls(memory, layout, live=live, bare=bare)

    @classmethod
    def from_vmcoreinfo(cls, memory: PhysicalMemory, found: Found, *, live: bool = False) -> Kernel:
        """The kernel that wrote this VMCOREINFO; Corrupt when memory contradicts it."""
        info = found.fields
        phys_base = info.number("phys_base")
        root = info.symbol("swapper_pg_dir") - KERNEL_MAP + phys_base
        encryption = info.number("sme_mask") if "NUMBER(sme_mask)" in info else 0
        # kernels that do not write pgtable_l5_enabled have no five levels
        la57 = "NUMBER(pgtable_l5_enabled)" in info and info.number("pgtable_l5_enabled") != 0
        layout = Layout(phys_base, info.kernel_offset, root, la57, encryption)
        kernel = cls(memory, layout, info, found.raw, live)
        kernel.verify(info.symbol("_stext"))
        return kernel

    def verify(self, text: int) -> None:
        """Corrupt unless the page tables agree with phys_base about the address `text`."""
        try:
            leaf = self.tables.walk(text)
        except MemoryFault as fault:
            raise Corrupt(f"the page tables do not map the kernel: {fault}", text) from None
        if leaf.pa + text - leaf.va != text - KERNEL_MAP + self.phys_base:
            raise Corrupt("the page tables contradict phys_base", text)

    def __repr__(self) -> str:
        return f"<Kernel {self.release} at physical {self.phys_base:#x}>"

    # Facts

    @property
    def phys_base(self) -> int:
        return self.layout.phys_base

    @property
    def kaslr_offset(self) -> int:
        return self.layout.kaslr_offset

    @property
    def root_pgt(self) -> int:
        return self.layout.root_pgt

    @property
    def la57(self) -> bool:
        return self.layout.la57

    @cached_property
    def release(self) -> str:
        """As uname -r prints it."""
        if self.vmcoreinfo:
            return self.vmcoreinfo.get("OSRELEASE", "")
        banner = self.string(self.symbols.table.address("linux_banner"), 512)
        words = banner.split(" ", 3)  # "Linux version 6.1.0-56-cloud-amd64 (debian..."
        return words[2] if len(words) > 2 else ""

    @cached_property
    def build_id(self) -> str:
        """The GNU build id in hex, "" when the kernel has none (6.1 has it in VMCOREINFO too)."""
        if "BUILD-ID" in self.vmcoreinfo:
            return self.vmcoreinfo["BUILD-ID"]
        try:
            start = self.symbols.table.address("__start_notes")
            size = self.symbols.table.address("__stop_notes") - start
            return build_id(self.read(start, min(size, PAGE)))
        except IntrospectError:
            return ""

    @cached_property
    def page_offset(self) -> int:
        """Virtual address of physical address 0 in the direct map."""
        return locate.page_offset(self.tables)

    @cached_property
    def tables(self) -> PageTables:
        layout = self.layout
        return PageTables(
            self.memory, layout.root_pgt, la57=layout.la57, encryption=layout.encryption
        )

    @cached_property
    def symbols(self) -> Symbols:
        """vmlinux's and the modules' symbols."""
        table = self.bare.symbols if self.bare else load(self._read_image, self._kallsyms())
        return Symbols(table, lambda: modules.tables(self))

    @cached_property
    def btf(self) -> Btf:
        """vmlinux's types; NotFound when the kernel was built without BTF."""
        try:
            start = self.symbols.table.address("__start_BTF")
            size = self.symbols.table.address("__stop_BTF") - start
        except NotFound:
            raise NotFound("this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF)") from None
        if not 0 < size <= MAX_BTF:
            raise Corrupt(f"the kernel claims {size} bytes of BTF", start)
        return Btf(self._read_image(start, size))

    def _kallsyms(self) -> kallsyms.Tables:
        if "SYMBOL(kallsyms_names)" in self.vmcoreinfo:
            return kallsyms.from_symbols(self.vmcoreinfo.symbol)
        text = self.vmcoreinfo.symbol("_stext") & -(2 << 20)
        return locate.find_tables(self.memory, text - KERNEL_MAP + self.phys_base, text)

    # Memory

    def _read_image(self, va: int, size: int) -> bytes:
        """Bytes of the kernel image, which is contiguous in physical memory."""
        return self.memory.read(va - KERNEL_MAP + self.phys_base, size)

    @cached_property
    def _direct_end(self) -> int:
        ranges = self.memory.ranges
        return self.page_offset + (ranges[-1][0] + ranges[-1][1] if ranges else 0)

    @cached_property
    def _image_end(self) -> int:
        """End of the linear part of the image mapping: modules follow 1 GiB after its start."""
        leaf_end = self.bare.text_va if self.bare else self.vmcoreinfo.symbol("_stext")
        for leaf in self.tables.leaves(leaf_end & -(2 << 20), KERNEL_MAP + IMAGE_SIZE):
            if leaf.pa - leaf.va != self.phys_base - KERNEL_MAP:
                break
            leaf_end = leaf.va + leaf.size
        return leaf_end

    def translate(self, va: int) -> int:
        """The physical address of virtual `va`; MemoryFault when it is not mapped."""
        if self.page_offset <= va < self._direct_end:
            return va - self.page_offset
        if KERNEL_MAP <= va < KERNEL_MAP + IMAGE_SIZE and va < self._image_end:
            return va - KERNEL_MAP + self.phys_base
        leaf = self.tables.walk(va)
        return leaf.pa + va - leaf.va

    def read(self, va: int, size: int) -> bytes:
        """`size` bytes at virtual `va`; MemoryFault when any is not mapped or absent."""
        if not 0 <= size <= MAX_READ:
            raise MemoryFault(va, size, virtual=True, why="more than one read may ask for")
        try:
            if va >= self.page_offset and va + size <= self._direct_end:
                return self.memory.read(va - self.page_offset, size)
            if va >= KERNEL_MAP and va + size <= self._image_end:
                return self.memory.read(va - KERNEL_MAP + self.phys_base, size)
            return self._read_pages(va, size)
        except MemoryFault as fault:
            if fault.virtual:
                raise
            why = f"physical {fault.address:#x} is not in memory"
            raise MemoryFault(va, size, virtual=True, why=why) from None

    def _read_pages(self, va: int, size: int) -> bytes:
        parts = []
        while size > 0:
            leaf = self.tables.walk(va)
            count = min(size, leaf.va + leaf.size - va)
            parts.append(self.memory.read(leaf.pa + va - leaf.va, count))
            va, size = va + count, size - count
        return b"".join(parts)

    def u64(self, va: int) -> int:
        return int.from_bytes(self.read(va, 8), "little")

    def u32(self, va: int) -> int:
        return int.from_bytes(self.read(va, 4), "little")

    def string(self, va: int, limit: int = 256) -> str:
        """The NUL-terminated text at `va`, at most `limit` bytes of it."""
        raw = b""
        while len(raw) < limit and b"\0" not in raw:
            count = min(limit - len(raw), PAGE - va % PAGE)
            raw += self.read(va, count)
            va += count
        return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

    # Code

    @cached_property
    def orc(self) -> Orc:
        """The unwind rules; NotFound when the kernel has none (CONFIG_UNWINDER_ORC)."""
        return Orc(self)

    @cached_property
    def fork_returns(self) -> frozenset[int]:
        """Where a task that has never run returns to."""
        found = self.symbols.table.indices
        names = ("ret_from_fork", "ret_from_fork_asm")  # the latter since 6.6 (3aec4ecb3d1f)
        return frozenset(self.symbols.table.address_at(i) for n in names for i in found(n))

    @cached_property
    def inline_irq_stacks(self) -> bool:
        """Whether C code switches to the IRQ stack: since 5.12, with ORC's SP_INDIRECT changed.

        87ccc826bf1c, whose series brought hardirq_stack_inuse; 6.12 has it in pcpu_hot.
        """
        if "hardirq_stack_inuse" in self.symbols:
            return True
        try:
            return bool(self.btf.struct("pcpu_hot"))
        except NotFound:
            return False

    @cached_property
    def _text(self) -> tuple[int, int]:
        address = self.symbols.table.address
        return address("_stext"), address("_etext")

    def is_text(self, address: int) -> bool:
        """Whether `address` lies in the code of vmlinux or of a module."""
        start, end = self._text
        if start <= address < end:
            return True
        return any(
            low <= address < high for module in self.symbols.modules for low, high in module.ranges
        )

    def backtrace(self, task: Task) -> Backtrace:
        """The backtrace of a task; of a running one it is a guess."""
        return stack.unwind_task(self, task)

    def unwind(self, registers: Mapping[str, int]) -> Backtrace:
        """The backtrace of a CPU with these registers: ip, sp, bp at least."""
        return stack.unwind(self, registers)

    # What is in it

    def log(self) -> Iterator[LogRecord]:
        """The kernel log, oldest record first."""
        info = self.vmcoreinfo or printk.info_from_types(self.btf, self.symbols.table)
        return printk.read_log(self.read, info)

    def tasks(self) -> Iterator[Task]:
        """Every thread; Corrupt when the list is broken on the way."""
        return tasks.read_tasks(self)

    def current(self, cpu: int) -> Task:
        """The task that `cpu` runs, its idle task included."""
        at = percpu.address(self, "runqueues", cpu)
        curr = self.btf.struct("rq").offset("curr")
        return tasks.read_task(self, self.u64(at + curr))

    def modules(self) -> Iterator[Module]:
        """The loaded modules, newest first."""
        return modules.read_modules(self)

    def cpus(self, mask: str = "online") -> list[int]:
        """The CPUs that are possible, present, online or active."""
        return percpu.cpus(self, mask)

    def object(self, name: str, spelling: str | None = None) -> Object:
        """The global variable `name`, of type `spelling` where its type is not known."""
        return object_.global_object(self, name, spelling)

    def object_at(self, spelling: str, address: int) -> Object:
        """The `spelling` ("struct task_struct") at `address`."""
        return Object(self, self.btf.find(spelling), address)

    def per_cpu(self, name: str, cpu: int, spelling: str | None = None) -> Object:
        """`cpu`'s copy of a per-CPU variable."""
        kind = self.object(name, spelling).type_
        return Object(self, kind, percpu.address(self, name, cpu))
