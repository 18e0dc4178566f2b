# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from introspect.errors import NotFound
from introspect.kernel import Kernel
from introspect.modules import read_btf
from introspect.tasks import state_letter
from tests.introspect.guest import Guest


@pytest.mark.parametrize(
    ("state", "exit_state", "letter"),
    [(0, 0, "R"), (1, 0, "S"), (2, 0, "D"), (0x402, 0, "I"), (4, 0, "T"), (8, 0, "t"),
     (0, 0x20, "Z"), (0, 0x10, "X"), (0x40, 0, "P"), (0x1000, 0, "D"),
     (0x8000, 0, "D"), (0x100, 0, "R"), (2**32 - 1, 2**31, "I")],
)  # fmt: skip
def test_state_letters(state: int, exit_state: int, letter: str) -> None:
    assert state_letter(state, exit_state) == letter


@pytest.mark.box
def test_tasks_equal_ps(guest: Guest, guest_kernel: Kernel) -> None:
    rows = [line.split(None, 2) for line in guest.truth["ps"].splitlines()[1:]]
    theirs = {(int(pid), int(ppid), comm) for pid, ppid, comm in rows}
    tasks = list(guest_kernel.tasks())
    assert (tasks[0].pid, tasks[0].comm, tasks[0].running) == (0, "swapper/0", True)
    ours = {(task.pid, task.ppid, task.comm.strip()) for task in tasks[1:]}

    def steady(rows: set[tuple[int, int, str]]) -> set[tuple[int, int, str]]:
        # kworkers change name with their work, ps has ended, init has become sleep
        return {row for row in rows if row[0] != 1 and not row[2].startswith(("kworker", "ps"))}

    assert steady(ours) == steady(theirs)
    assert len(steady(ours)) > 20


@pytest.mark.box
def test_modules_equal_proc_modules(guest: Guest, guest_kernel: Kernel) -> None:
    rows = [line.split() for line in guest.truth["modules"].splitlines()]
    assert [(m.name, m.base) for m in guest_kernel.modules()] == [
        (row[0], int(row[5], 16)) for row in rows
    ]
    assert rows


@pytest.mark.box
def test_module_symbols_equal_proc_kallsyms(guest: Guest, guest_kernel: Kernel) -> None:
    rows = [line.split() for line in guest.truth["kallsyms"].splitlines() if "[loop]" in line]
    (module,) = guest_kernel.symbols.modules
    assert sorted((s.address, s.type, s.name) for s in module.symbols) == sorted(
        (int(row[0], 16), row[1], row[2]) for row in rows
    )
    place = guest_kernel.symbols.address("lo_ioctl") + 4
    assert guest_kernel.symbols.describe(place).startswith("lo_ioctl+0x4/")
    assert guest_kernel.symbols.describe(place).endswith(" [loop]")


@pytest.mark.box
def test_module_types_lie_on_top_of_vmlinux(guest_kernel: Kernel) -> None:
    (module,) = guest_kernel.modules()
    btf = read_btf(guest_kernel, module)
    device = btf.struct("loop_device")
    assert device.member("lo_backing_file").type.spelling == "struct file *"
    with pytest.raises(NotFound):
        guest_kernel.btf.struct("loop_device")


@pytest.mark.box
def test_objects(guest_kernel: Kernel) -> None:
    init = guest_kernel.object("init_task")
    assert init.comm.string_() == "swapper/0"
    first = next(init.tasks.list_("struct task_struct", "tasks"))
    assert int(first.pid) == 1 and int(first.real_parent) == init.address_
    assert int(first.signal.thread_head.next.container_of_("struct task_struct", "thread_node").pid)
    assert guest_kernel.release in repr(guest_kernel.object("init_uts_ns").name)
    online = guest_kernel.cpus()
    assert online == [0, 1]
    names = [guest_kernel.per_cpu("runqueues", cpu).idle.comm.string_() for cpu in online]
    assert names == ["swapper/0", "swapper/1"]
    command_line = guest_kernel.object("saved_command_line")
    assert command_line.string_().startswith("console=ttyS0 quiet")
    assert command_line.cast_("unsigned char *")[0].value_() == ord("c")
    assert int(guest_kernel.object("jiffies")) == int(guest_kernel.object("jiffies_64"))
    assert [guest_kernel.current(cpu).comm for cpu in online] == names
    with pytest.raises(AttributeError, match="no member 'nothing'"):
        _ = init.nothing
