# SPDX-License-Identifier: GPL-2.0-or-later
"""Against drgn with full debuginfo: symbols, types, tasks, log and stacks are equal.

The debuginfo is fetched into the cache (283 MB to download, 800 MB unpacked).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from introspect.btf import Kind
from introspect.image import KernelImage
from introspect.kernel import Kernel
from introspect.stack import End, describe
from tests.crashdump import oracle
from tests.introspect.elfwriter import elf_core, elf_note
from tests.introspect.guest import Guest

pytestmark = [pytest.mark.box, pytest.mark.oracle, pytest.mark.timeout(1800)]  # downloads


@pytest.fixture(scope="module")
def vmlinux(guest_kernel: Kernel) -> Path:
    place = oracle.vmlinux(guest_kernel.release)
    assert KernelImage(place.read_bytes(), str(place)).build_id == guest_kernel.build_id
    return place


@pytest.fixture(scope="module")
def prog(
    guest: Guest,
    guest_kernel: Kernel,
    vmlinux: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    drgn = pytest.importorskip("drgn")
    core = tmp_path_factory.mktemp("oracle") / "vmcore"
    note = elf_note(b"VMCOREINFO", 0, guest_kernel.vmcoreinfo_raw)
    core.write_bytes(elf_core([(4, 0, note), (1, 0, guest.raw.read_bytes())]))
    prog = drgn.Program()
    prog.set_core_dump(core)
    prog.load_debug_info([vmlinux])
    return prog


def test_tasks(prog: Any, guest_kernel: Kernel) -> None:
    from drgn.helpers.linux.pid import for_each_task

    theirs = sorted((t.value_(), t.pid.value_(), t.comm.string_()) for t in for_each_task(prog))
    ours = sorted((t.address, t.pid, t.comm.encode()) for t in guest_kernel.tasks() if t.pid)
    assert ours == theirs and len(ours) > 20


def test_log(prog: Any, guest_kernel: Kernel) -> None:
    from drgn.helpers.linux.printk import get_printk_records

    theirs = [(r.seq, r.timestamp, r.level, r.text) for r in get_printk_records(prog)]
    assert [(r.seq, r.ts_ns, r.level, r.text.encode()) for r in guest_kernel.log()] == theirs


def test_every_blocked_stack_address_by_address(prog: Any, guest_kernel: Kernel) -> None:
    compared = 0
    for task in guest_kernel.tasks():
        if task.running or not task.pid:
            continue
        trace = guest_kernel.backtrace(task)
        ours = [frame.ip for frame in trace.frames]
        # inlined functions are frames of their own with debuginfo, at one address
        theirs = [frame.pc for frame in prog.stack_trace(task.pid) if not frame.is_inline]
        if trace.end is End.USER:  # drgn goes on into user space
            theirs = theirs[: len(ours)]
        assert theirs == ours, describe(guest_kernel, trace)
        compared += 1
    assert compared > 20


def test_symbols(prog: Any, guest_kernel: Kernel) -> None:
    theirs: dict[str, set[int]] = {}
    for symbol in prog.symbols():
        theirs.setdefault(symbol.name, set()).add(symbol.address)
    ours = list(guest_kernel.symbols.items())
    assert len(ours) == len(guest_kernel.symbols) > 80_000
    different = {name for name, address in ours if address not in theirs.get(name, ())}
    # absolute in vmlinux, so drgn does not move it with KASLR; /proc/kallsyms agrees with us
    assert different <= {"__init_scratch_end"}


def test_struct_layouts(prog: Any, guest_kernel: Kernel) -> None:
    compared = 0
    for kind in guest_kernel.btf.of_kind(Kind.STRUCT):
        if not kind.name or kind.id % 10:
            continue
        try:
            theirs = prog.type(f"struct {kind.name}")
        except LookupError:
            continue
        if not theirs.is_complete() or theirs.size != kind.size:
            continue  # another struct of that name: a private one of some file
        ours = [(m.name or None, m.bit_offset, m.bit_size) for m in kind.members]
        listed = [(m.name, m.bit_offset, m.bit_field_size or 0) for m in theirs.members]
        if [name for name, _, _ in ours] == [name for name, _, _ in listed]:
            assert ours == listed, kind
            compared += 1
    assert compared > 500
