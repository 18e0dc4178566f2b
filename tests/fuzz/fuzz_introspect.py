# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage-guided fuzzing of the parsers of introspect and of crashdump's analysis, with atheris.

    pip install atheris
    python tests/fuzz/fuzz_introspect.py TARGET [-max_total_time=600] [atheris options]

TARGET is one of those in TARGETS.  The seeds are built in code.  Anything but an IntrospectError
is a finding; so is a run of more than ten seconds.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["introspect", "crashdump.analysis"]):
    from crashdump.analysis import oops
    from introspect import disasm, elfcore, image, kallsyms, kdump, modules, printk, vmcoreinfo
    from introspect.btf import Btf
    from introspect.memory import BufferMemory
    from introspect.paging import PageTables
    from introspect.registers import from_pt_regs
    from introspect.stack import describe

from introspect.errors import IntrospectError
from tests.crashdump.oopses import SAMPLES
from tests.fuzz import harness
from tests.introspect import (
    flatkernel,
    test_btf,
    test_kallsyms,
    test_kdump,
    test_locate,
    test_printk,
)
from tests.introspect.elfwriter import elf_core, elf_note
from tests.introspect.kallsymswriter import BASE, sample, write

KALLSYMS, TABLES = write(sample(), "6.4")


def fuzz_btf(data: bytes) -> None:
    test_btf.touch_all(Btf(data))


def fuzz_elf(data: bytes) -> None:
    for segment in elfcore.program_headers(data, "fuzz"):
        list(elfcore.parse_notes(data[segment.offset : segment.offset + segment.file_size]))


def fuzz_kallsyms(data: bytes) -> None:
    try:
        kallsyms.decode(test_kallsyms.reader(data), TABLES)
    except IntrospectError:
        pass
    kallsyms.find(data, BASE)


def fuzz_kdump(data: bytes) -> None:
    for reader in (kdump.plain_reader(data), kdump.flat_reader(data, "fuzz")):
        memory = kdump.KdumpMemory(reader, "fuzz")
        for start, _ in memory.ranges[:100]:
            memory.read(start, 4096)


def fuzz_image(data: bytes) -> None:
    image.KernelImage(image.extract_vmlinux(data), "fuzz")


def fuzz_printk(data: bytes) -> None:
    info = vmcoreinfo.parse(test_printk.LAYOUT)
    for record in printk.read_log(BufferMemory([(0, data or b"\0")]).read, info):
        list(printk.lines(record))


def fuzz_vmcoreinfo(data: bytes) -> None:
    vmcoreinfo.note_at(BufferMemory([(0, data or b"\0")]), 0)


def fuzz_paging(data: bytes) -> None:
    tables = PageTables(BufferMemory([(0, data or b"\0")]), 0, la57=bool(data[:1] > b"\x80"))
    list(tables.leaves(0, 1 << 64, limit=10_000))


def fuzz_code(data: bytes) -> None:
    disasm.code_line("Code: " + data.decode("latin-1"), 1 << 63)


def fuzz_oops(data: bytes) -> None:
    events = oops.find_events(oops.lines_of(data.decode("utf-8", "replace")))
    for event in events:
        assert event.title.isprintable() and len(event.title) <= 120
    oops.decisive(events)


def fuzz_tasks(data: bytes) -> None:
    """Task and thread lists, and each task's stack by ORC or by a scan."""
    kernel = flatkernel.kernel(data)
    for number, task in enumerate(kernel.tasks()):
        if number < 8:
            describe(kernel, kernel.backtrace(task))


def fuzz_modules(data: bytes) -> None:
    """The module list; each module's symbols, types and unwind rules."""
    kernel = flatkernel.kernel(data)
    for number, module in enumerate(kernel.modules()):
        try:
            if number < 8:
                test_btf.touch_all(modules.read_btf(kernel, module))
        except IntrospectError:
            pass
    list(kernel.symbols.entries())
    for table in kernel.orc.tables:
        for start, _ in table.ranges:
            kernel.orc.find(start)


def fuzz_stack(data: bytes) -> None:
    """The registers of a CPU, from the start of the stack's page, unwound by ORC."""
    kernel = flatkernel.kernel(data)
    at = flatkernel.STACK
    describe(kernel, kernel.unwind(from_pt_regs(kernel.read(at, 168))))


def ring() -> bytes:
    return bytes(test_printk.ring([(1, 2, 0, 32, b"text")], head=1, tail=1)[0])


def stack() -> bytes:
    """A CPU in last(), called by second()."""
    memory = flatkernel.memory()
    registers = {16: flatkernel.TEXT + 0x210, 17: 0x10, 19: flatkernel.STACK + 0x118}
    for index, value in registers.items():
        struct.pack_into("<Q", memory, flatkernel.STACK + 8 * index, value)
    return bytes(memory)


OURS = (IntrospectError,)
TARGETS: dict[str, harness.Target] = {
    "btf": (fuzz_btf, lambda: [test_btf.sample().blob()]),
    "code": (fuzz_code, lambda: [b"48 8b <0f> 0b"]),
    "elf": (fuzz_elf, lambda: [elf_core([(4, 0, elf_note(b"CORE", 1, bytes(336))), (1, 0, b"x")])]),
    "image": (fuzz_image, lambda: [test_locate.bzimage(test_locate.elf({".text": b"x"}))]),
    "kallsyms": (fuzz_kallsyms, lambda: [KALLSYMS]),
    "kdump": (fuzz_kdump, lambda: [test_kdump.kdump({1: bytes(4096), 9: b"y" * 4096})]),
    "modules": (fuzz_modules, lambda: [bytes(flatkernel.memory())]),
    "oops": (fuzz_oops, lambda: [sample.text.encode() for sample in SAMPLES.values()]),
    "paging": (fuzz_paging, lambda: [b"\x03" + bytes(4095) + b"\x03\x10" + bytes(4094)]),
    "printk": (fuzz_printk, lambda: [ring()]),
    "stack": (fuzz_stack, lambda: [stack()]),
    "tasks": (fuzz_tasks, lambda: [bytes(flatkernel.memory())]),
    "vmcoreinfo": (fuzz_vmcoreinfo, lambda: [test_printk.LAYOUT]),
}


if __name__ == "__main__":
    harness.main(__doc__, TARGETS, OURS)
