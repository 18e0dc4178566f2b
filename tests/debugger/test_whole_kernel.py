# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb's view of a whole kernel against ours: stacks of all tasks, types, modules, a panic.

The guest stands still meanwhile, so that both look at the same memory.
"""

import re
import time
from collections.abc import Iterator

import pytest

from bench import rsp_guest
from bench.rsp_guest import Guest
from debugger import qemu
from debugger.target import KernelTarget
from debugger.tasks import TID_BASE
from introspect.btf import Type
from introspect.modules import read_btf
from introspect.stack import Backtrace, describe
from tests.debugger.conftest import GDBS, ask_gdb, under

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(bool(rsp_guest.missing()), reason=rsp_guest.missing()),
]

# Among them bitfields, anonymous members, unions, flexible and function-pointer members.
STRUCTS = (
    "task_struct", "mm_struct", "vm_area_struct", "sk_buff", "page", "inode", "dentry", "file",
    "super_block", "net_device", "sock", "tcp_sock", "module", "rq", "cfs_rq", "request_queue",
    "pt_regs", "pid", "cred", "file_operations", "signal_struct", "cpuinfo_x86",
)  # fmt: skip
FRAME = re.compile(r"^#\d+ +(?:(0x[0-9a-f]+) in |<signal handler)", re.MULTILINE)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with (
        pytest.MonkeyPatch.context() as patch,
        rsp_guest.running(tmp_path_factory.mktemp("whole")) as running,
    ):
        patch.setenv("VNODE_DEBUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        running.shell("sleep 1000 & cat /dev/zero | sleep 1000 & (while :; do :; done) &")
        running.shell("sleep 0.5; echo SLEEPERS-ARE-THERE")
        running.expect(b"SLEEPERS-ARE-THERE")
        yield running


@pytest.fixture(autouse=True)
def own_cache() -> None:
    """The module's cache serves all tests here."""


@pytest.fixture(scope="module")
def still(guest: Guest) -> KernelTarget:
    """The guest between two instructions."""
    guest.qmp("stop")
    return guest.target(dead=True, tasks=True)


def stacks(output: str, tid: int) -> list[int | None]:
    """The PCs of a thread in `thread apply all bt`; None for frames shown without."""
    part = re.search(rf"\(Thread 2\.{tid} .*?\n(.*?)(?:\n\n|\Z)", output, re.DOTALL)
    assert part is not None, tid
    return [int(pc, 16) if pc else None for pc in FRAME.findall(part[1])]


def check_same(trace: Backtrace, theirs: list[int | None]) -> None:
    """gdb's frames are ours, and one more where the kernel was entered from user mode."""
    ours = [frame.ip for frame in trace.frames]
    if trace.user_registers:
        ours.append(trace.user_registers["ip"])
    # what gdb calls a signal handler it shows without its PC
    assert [pc if gdbs else None for pc, gdbs in zip(ours, theirs, strict=True)] == theirs


def unwound(target: KernelTarget, cpu: int) -> Backtrace:
    """Our backtrace of a CPU."""
    values = target.registers(cpu + 1)
    names = {name.removeprefix("r") if len(name) == 3 and not name[-1].isdigit() else name: value
             for name, value in values.items()}  # fmt: skip
    return target.kernel.unwind(names)


@pytest.mark.parametrize("program", GDBS)
def test_stacks_of_all_tasks(still: KernelTarget, program: str) -> None:
    kernel = still.kernel
    out = ask_gdb(program, still, ["thread apply all bt"])
    blocked = [task for task in kernel.tasks() if not task.running]
    assert len(blocked) > 40
    for task in blocked:
        trace = kernel.backtrace(task)
        assert trace.whole, task
        check_same(trace, stacks(out, TID_BASE + task.pid))
    assert "in pktgen_thread_worker ()" in out  # through a module's own rules
    assert not re.search(r"corrupt|Backtrace stopped", out)


@pytest.mark.parametrize("program", GDBS)
def test_structures_have_btfs_layout(still: KernelTarget, program: str) -> None:
    commands = [f"ptype/o struct {name}" for name in STRUCTS]
    out = ask_gdb(program, still, commands)
    for name, command in zip(STRUCTS, commands, strict=True):
        kind = still.kernel.btf.struct(name)
        assert layout(under(out, command)) == expected(kind), name


def layout(text: str) -> list[tuple[str, int, int]]:
    """(name, bit offset, bytes) of the members in ptype/o's output, in their order."""
    found: list[tuple[str, int, int]] = []
    place = (0, 0)
    for line in text.split("\n")[1:]:
        match = re.match(r"/\* +(\d+)(?:: ?(\d+))? +\| +(\d+) \*/ {4}(\S.*)", line)
        closing = re.match(r"(?: {31}| {4})\} ?(\w*)[^;]*;", line)  # gdb 18 moves that of enums
        if match is not None:
            place = (8 * int(match[1]) + int(match[2] or 0), int(match[3]))
            if not match[4].endswith("{"):
                found.append((declared(match[4]), *place))
        elif closing is not None:
            found.append((closing[1], *place))
    return found


def declared(text: str) -> str:
    """The name that a member's declaration declares."""
    match = re.search(r"\(\*+(?:const )?(\w+)", text) or re.search(
        r"(\w+)(?:\[\w*\])*(?: : \d+)?;$", text
    )
    assert match is not None, text
    return match[1]


def expected(kind: Type) -> list[tuple[str, int, int]]:
    return [(member.name, member.bit_offset, member.type.size) for member in kind.members]


@pytest.mark.parametrize("program", GDBS)
def test_values_of_typed_globals(still: KernelTarget, program: str) -> None:
    kernel = still.kernel
    commands = [
        "p init_task.comm", "p init_task.pid", "p ((struct task_struct *)&init_task)->comm",
        "p/x init_mm.pgd", "p init_uts_ns.name.release", "whatis current_task", "p jiffies",
        "p (enum pid_type)1", "p $_siginfo", "whatis ((struct file_operations *)0)->read",
        "p *(int *)(__per_cpu_offset[1] + (long)&cpu_number)",
    ]  # fmt: skip
    out = ask_gdb(program, still, commands)
    assert '"swapper/0' in under(out, "p init_task.comm")
    assert under(out, "p init_task.pid").endswith(" = 0")
    assert '"swapper/0' in under(out, "p ((struct task_struct *)&init_task)->comm")
    pgd = kernel.object("init_mm").pgd.value_()
    assert under(out, "p/x init_mm.pgd").endswith(f"{pgd:#x}")
    assert f'"{kernel.release}' in under(out, "p init_uts_ns.name.release")
    assert under(out, "whatis current_task") == "type = struct task_struct *"
    jiffies = kernel.u64(kernel.symbols.address("jiffies"))
    assert under(out, "p jiffies").endswith(f" = {jiffies}")
    assert under(out, "p (enum pid_type)1").endswith("PIDTYPE_TGID")
    assert under(out, commands[-1]).startswith("$9 = 1")
    assert "ssize_t (*)(struct file *, char *, size_t, loff_t *)" in out


@pytest.mark.parametrize("program", GDBS)
def test_symbols_inside_a_module(still: KernelTarget, program: str) -> None:
    symbols = still.kernel.symbols
    worker, data = (symbols.address(n) for n in ("pktgen_thread_worker", "pg_net_ops"))
    commands = [
        f"info symbol {worker + 1:#x}",
        f"info symbol {data:#x}",
        "x/i pktgen_thread_worker",
    ]
    out = ask_gdb(program, still, commands)
    assert re.match(
        r"pktgen_thread_worker \+ 1 in section \.text of .*/pktgen-\w+\.ko",
        under(out, commands[0]),
    )
    assert re.match(r"pg_net_ops in section \.mem1", under(out, commands[1]))
    assert f"{worker:#x} <pktgen_thread_worker>:" in under(out, commands[2])


MODULE_STRUCTS = ("pktgen_dev", "pktgen_net", "pktgen_thread", "flow_state", "imix_pkt")


@pytest.mark.parametrize("program", GDBS)
def test_types_of_a_module(still: KernelTarget, program: str) -> None:
    """Its own structures, and those of the kernel that they hold."""
    kernel = still.kernel
    (pktgen,) = (module for module in kernel.modules() if module.name == "pktgen")
    btf = read_btf(kernel, pktgen)
    commands = [f"ptype/o struct {name}" for name in MODULE_STRUCTS]
    others = [
        "p sizeof(struct pktgen_dev)", "whatis ((struct pktgen_thread *)0)->tsk->comm",
        "p sizeof(((struct pktgen_dev *)0)->xdst)", "ptype/o struct list_head",
    ]  # fmt: skip
    out = ask_gdb(program, still, [*commands, *others])
    for name, command in zip(MODULE_STRUCTS, commands, strict=True):
        kind = btf.struct(name)
        # members of structures inside it, which ptype/o spells out, are the kernel's own
        shown = [row for row in layout(under(out, command)) if row in expected(kind)]
        assert shown == expected(kind), name
    assert under(out, others[0]).endswith(f" = {btf.struct('pktgen_dev').size}")
    assert under(out, others[1]) == "type = char [16]"
    assert under(out, others[2]).endswith(f" = {kernel.btf.struct('xfrm_dst').size}")
    assert layout(under(out, others[3])) == expected(kernel.btf.struct("list_head"))


def test_threads_and_their_memory(still: KernelTarget) -> None:
    """A task's registers, and user memory of its own process."""
    shell = next(t for t in still.kernel.tasks() if t.comm == "sleep" and not t.running)
    tid = TID_BASE + shell.pid
    user = still.kernel.backtrace(shell).user_registers
    assert user is not None
    assert still.registers(tid)["rsp"] > shell.sp
    assert still.read(tid, user["ip"] - 2, 2) == b"\x0f\x05"  # syscall
    listed = still.threads()
    assert [thread.tid for thread in listed[:2]] == [1, 2]
    assert {thread.tid for thread in listed[2:]} == {
        TID_BASE + task.pid for task in still.kernel.tasks() if not task.running
    }


WANTED = 4
PATIENCE = 120.0


def test_interrupted_code(guest: Guest, still: KernelTarget) -> None:
    """Stacks through interrupts and exceptions of the kernel itself."""
    guest.shell("while :; do /bin/busybox true; done &")
    target = guest.target(dead=True)
    # one target: to find the kernel anew at each stop took minutes on a busy host
    found, ends = 0, time.monotonic() + PATIENCE
    while found < WANTED and time.monotonic() < ends:
        guest.qmp("cont")
        guest.qmp("stop")
        target.refresh()
        for cpu in (0, 1):
            trace = unwound(target, cpu)
            if trace.user_registers or not any(frame.registers for frame in trace.frames[1:]):
                continue
            assert trace.whole, describe(target.kernel, trace)
            out = ask_gdb(GDBS[found % len(GDBS)], target, [f"thread apply {cpu + 1} bt"])
            check_same(trace, stacks(out, cpu + 1))
            assert not re.search(r"corrupt|Backtrace stopped", out)
            found += 1
    assert found, "no interrupt of the kernel was met"


# From here on the guest has panicked.


@pytest.fixture(scope="module")
def panicked(guest: Guest, still: KernelTarget) -> KernelTarget:
    guest.qmp("cont")
    guest.panic()
    for _ in range(200):  # until the last loop of panic() is not in an interrupt
        guest.qmp("stop")
        target = guest.target(dead=True, tasks=True)
        names = {target.kernel.symbols.lookup(v["rip"])[0] for v in guest.registers()}
        if names & {"delay_tsc", "panic"}:
            return target
        guest.qmp("cont")
    raise AssertionError(names)


@pytest.mark.parametrize("program", GDBS)
def test_a_panic_to_the_end(panicked: KernelTarget, program: str) -> None:
    out = ask_gdb(program, panicked, ["thread apply 1-2 bt"])
    for cpu in (0, 1):
        trace = unwound(panicked, cpu)
        assert trace.whole
        check_same(trace, stacks(out, cpu + 1))
    for name in ("panic", "sysrq_handle_crash", "write_sysrq_trigger", "ksys_write"):
        assert f" in {name} ()" in out
    assert not re.search(r"corrupt|Backtrace stopped", out)


# From here on it is gone.


def test_the_guest_ends_while_it_is_watched(guest: Guest, panicked: KernelTarget) -> None:
    words = f"qemu:{guest.ram},qmp={guest.directory}/second.sock"
    made = qemu.target(qemu.Guest.parse(words))
    assert made.change() is None
    guest._process.kill()
    guest._process.wait()
    change = made.change()
    assert change is not None and change.gone and "QEMU ended" in change.text
