# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn's own helpers, on a kernel that has no debuginfo."""

from __future__ import annotations

from typing import Any

import pytest

from introspect import drgn_bridge
from introspect.errors import NotFound
from introspect.kernel import Kernel
from introspect.memory import BufferMemory
from introspect.printk import lines
from introspect.stack import describe

drgn = pytest.importorskip("drgn")
pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def prog(guest_kernel: Kernel) -> Any:
    return drgn_bridge.program(guest_kernel)


def test_for_each_task_lists_what_we_list(prog: Any, guest_kernel: Kernel) -> None:
    from drgn.helpers.linux.pid import find_task, for_each_task

    theirs = sorted(
        (task.value_(), task.pid.value_(), task.comm.string_().decode())
        for task in for_each_task(prog)
    )
    ours = sorted((task.address, task.pid, task.comm) for task in guest_kernel.tasks() if task.pid)
    assert theirs == ours and len(ours) > 20
    assert find_task(prog, 2).comm.string_() == b"kthreadd"


def test_dmesg_is_our_log(prog: Any, guest_kernel: Kernel) -> None:
    from drgn.helpers.linux.printk import get_printk_records

    ours = [(r.seq, r.ts_ns, r.level, r.text) for r in guest_kernel.log()]
    theirs = [
        (r.seq, r.timestamp, r.level, r.text.decode("utf-8", "replace"))
        for r in get_printk_records(prog)
    ]
    assert theirs == ours
    assert any("introspect test guest" in line for r in guest_kernel.log() for line in lines(r))


def test_drgn_unwinds_as_we_do(prog: Any, guest_kernel: Kernel) -> None:
    blocked = [task for task in guest_kernel.tasks() if task.pid and not task.running]
    for task in blocked[:30]:
        ours = [line.split("+")[0] for line in describe(guest_kernel, guest_kernel.backtrace(task))]
        theirs = [frame.name for frame in prog.stack_trace(task.pid)]
        # drgn counts the place in user mode as a frame
        assert theirs[: len(ours)] == ours and len(theirs) - len(ours) <= 1, task


def test_other_helpers(prog: Any) -> None:
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.percpu import per_cpu
    from drgn.helpers.linux.slab import for_each_slab_cache

    assert list(for_each_online_cpu(prog)) == [0, 1]
    idle = [per_cpu(prog["runqueues"], cpu).idle.comm.string_() for cpu in (0, 1)]
    assert idle == [b"swapper/0", b"swapper/1"]
    assert "task_struct" in {c.name.string_().decode() for c in for_each_slab_cache(prog)}


def test_types_of_every_shape(prog: Any) -> None:
    assert prog["PIDTYPE_PID"].value_() == 0
    assert prog["init_task"].comm.string_() == b"swapper/0"
    assert prog["init_task"].sched_reset_on_fork.bit_field_size_ == 1
    assert prog["vprintk_emit"].type_.parameters[0].name == "facility"
    assert prog.type("struct list_head").size == 16
    assert prog.type("atomic_t").type.members[0].name == "counter"
    assert prog.symbol("schedule").name == "schedule"
    with pytest.raises(KeyError):
        prog["no_such_variable"]
    with pytest.raises(LookupError):
        prog.type("struct no_such_struct")


def test_every_struct_of_the_kernel_converts(prog: Any, guest_kernel: Kernel) -> None:
    from introspect.btf import Kind

    finder = drgn_bridge.TypeFinder(prog, guest_kernel)
    for index, kind in enumerate(guest_kernel.btf.of_kind(Kind.STRUCT, Kind.UNION)):
        if index % 20 == 0:
            made = finder.convert(kind)
            assert made.size == kind.size
            for ours, theirs in zip(kind.members, made.members, strict=True):
                assert theirs.bit_offset == ours.bit_offset
                assert (theirs.bit_field_size or 0) == ours.bit_size


def test_a_kernel_without_vmcoreinfo_is_refused(guest_kernel: Kernel) -> None:
    with pytest.raises(NotFound, match="VMCOREINFO"):
        drgn_bridge.program(Kernel(BufferMemory([]), guest_kernel.layout))
