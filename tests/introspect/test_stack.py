# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stock
from introspect import disasm
from introspect.btf import Btf, Kind
from introspect.elfcore import ElfMemory
from introspect.errors import Corrupt, IntrospectError, NotFound
from introspect.kernel import Kernel
from introspect.memory import open_image
from introspect.orc import Layout, Reg, Step
from introspect.registers import from_pt_regs
from introspect.stack import End, describe
from tests.introspect.btfwriter import BtfWriter
from tests.introspect.conftest import stock_kernel
from tests.introspect.guest import (
    READY,
    Guest,
    boot,
    initramfs,
    magic_sysrq,
    running,
    wait_for,
)


def orc_layout(fields: list[tuple[str, int]]) -> Layout:
    """struct orc_entry with these bitfields after the two offsets."""
    w = BtfWriter()
    short, unsigned = w.int("short", 2, 1), w.int("unsigned int", 4)
    members = [("sp_offset", short, 0), ("bp_offset", short, 16)]
    at = 32
    for name, width in fields:
        members.append((name, unsigned, at))
        at += width
    bits = dict(fields)
    w.struct("orc_entry", 6, members, bits=bits)
    return Layout(Btf(w.blob()).struct("orc_entry"))


OLD = [("sp_reg", 4), ("bp_reg", 4), ("type", 2)]
LAYOUTS = {
    "4.14": (OLD, 0),
    "5.8": ([*OLD, ("end", 1)], 0),
    "6.3": ([*OLD, ("signal", 1), ("end", 1)], 0),
    "6.4": ([*OLD[:2], ("type", 3), ("signal", 1)], 2),
}


@pytest.mark.parametrize("version", LAYOUTS)
def test_each_orc_layout_is_told_by_its_members(version: str) -> None:
    fields, call = LAYOUTS[version]
    layout = orc_layout(fields)
    word = Reg.SP | Reg.PREV_SP << 4 | call << 8
    raw = (16).to_bytes(2, "little") + (-16).to_bytes(2, "little", signed=True)
    entry = layout.decode(raw + word.to_bytes(2, "little"))
    assert entry == (16, -16, Reg.SP, Reg.PREV_SP, Step.CALL, False)
    regs = layout.decode(raw + (Reg.SP | call + 1 << 8).to_bytes(2, "little"))
    assert regs.step is Step.REGS


@pytest.mark.parametrize(("version", "bits"), [("5.8", 1 << 10), ("6.3", 1 << 11), ("6.4", 1 << 8)])
def test_the_outermost_frame_is_told_from_a_missing_rule(version: str, bits: int) -> None:
    layout = orc_layout(LAYOUTS[version][0])
    assert layout.decode(bytes(4) + bits.to_bytes(2, "little")).step is Step.END
    assert layout.decode(bytes(6)).step is Step.UNDEFINED


def test_the_registers_of_7_2_are_told_by_what_most_rules_count_from() -> None:
    layout = orc_layout(LAYOUTS["6.4"][0])

    def entry(register: int) -> bytes:
        return bytes(4) + (register | 2 << 8).to_bytes(2, "little")

    layout.learn(entry(5) * 9 + entry(3))
    assert [layout.decode(entry(n)).sp_reg for n in (3, 5)] == [Reg.DI, Reg.SP]
    layout.learn(entry(3) * 9 + entry(5))  # asm/orc_types.h of 7.2
    names = (Reg.AX, Reg.DX, Reg.SP, Reg.BP, Reg.DI, Reg.R10, Reg.R13, Reg.PREV_SP)
    assert tuple(layout.decode(entry(n)).sp_reg for n in range(1, 9)) == names


def test_an_orc_entry_of_absurd_size_is_refused() -> None:
    w = BtfWriter()
    w.struct("orc_entry", 64, [("sp_offset", w.int("short", 2), 0)])
    with pytest.raises(Corrupt):
        Layout(Btf(w.blob()).struct("orc_entry"))


def test_code_line_finds_the_marked_instruction() -> None:
    line = "[    1.0] Code: 5f 48 89 e5 c6 05 01 00 00 00 00 <c6> 04 25 00 00 00 00 01 c3"
    raw, marked = disasm.parse_code(line)
    assert (len(raw), marked) == (20, 11)
    found = disasm.code_line(line, 0xFFFFFFFF81000100)
    (spot,) = (one for one in found if one.current)
    assert spot.text == "mov byte ptr [0], 1"
    assert spot.address == 0xFFFFFFFF81000100
    assert len(found) == 5
    assert disasm.parse_code("Code: 48 8b <5f>8b ") == (b"\x48\x8b\x5f\x8b", 2)
    with pytest.raises(NotFound):
        disasm.parse_code("Code: Bad RIP value.")
    with pytest.raises(Corrupt):
        disasm.parse_code("Code: 90 90")


@given(st.text(max_size=200) | st.text("0123456789abcdef <>()", max_size=200))
def test_code_lines_of_any_text(text: str) -> None:
    try:
        disasm.code_line("Code: " + text, 1 << 63)
    except IntrospectError:
        pass


@pytest.mark.box
def test_blocked_stacks_equal_proc_pid_stack(guest: Guest, guest_kernel: Kernel) -> None:
    compared = different = 0
    for task in guest_kernel.tasks():
        theirs = [line.split()[1] for line in guest.truth.get(f"stack/{task.pid}", "").splitlines()]
        # pid 1 goes on to exec sleep; what runs has no stack in /proc
        if task.running or not theirs or task.pid == 1:
            continue
        trace = guest_kernel.backtrace(task)
        assert trace.whole, (task, trace)
        ours = describe(guest_kernel, trace)
        # the kernel leaves out the scheduler's own frames
        compared += 1
        different += ours[-len(theirs) :] != theirs
    assert compared > 20
    # a thread may have moved on between /proc and the freeze
    assert different <= 2


@pytest.mark.box
def test_an_idle_cpu_unwinds_from_saved_registers(guest: Guest) -> None:
    memory = open_image(guest.raw.with_name("vmcore.elf"))
    assert isinstance(memory, ElfMemory)
    kernel = Kernel.find(memory)
    assert len(memory.registers) == 2
    for raw in memory.registers:
        trace = kernel.unwind(from_pt_regs(raw))
        assert trace.end is End.OUTERMOST and trace.whole
        assert any(name.startswith("do_idle+") for name in describe(kernel, trace))


@pytest.mark.box
def test_a_jump_into_data_shows_who_jumped(guest_kernel: Kernel) -> None:
    task = next(task for task in guest_kernel.tasks() if not task.running and task.pid > 1)
    returns = task.sp + guest_kernel.btf.struct("inactive_task_frame").offset("ret_addr")
    for bp in (0, 11):  # which is any number in a kernel without frame pointers
        data = guest_kernel.symbols.address("init_task")
        trace = guest_kernel.unwind({"ip": data, "sp": returns, "bp": bp})
        assert trace.frames[1].ip == guest_kernel.u64(returns)


@pytest.mark.box
def test_a_running_task_without_registers_is_a_guess(guest_kernel: Kernel) -> None:
    running = [task for task in guest_kernel.tasks() if task.running]
    for task in running:
        trace = guest_kernel.backtrace(task)
        assert trace.guess and not trace.whole
        assert all(line.startswith("? ") for line in describe(guest_kernel, trace))


@pytest.fixture(scope="session")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The module of crasher/, built for the stock kernel."""
    headers = stock.headers(stock_kernel()[0])
    if not (headers / "Makefile").exists():
        pytest.skip(f"needs {headers} (package linux-headers-cloud-amd64)")
    directory = tmp_path_factory.mktemp("crasher")
    for file in ("crasher.c", "Makefile"):
        shutil.copy(Path(__file__).parent / "crasher" / file, directory)
    subprocess.run(
        ["make", "-C", headers, f"M={directory}", "modules"],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    return (directory / "crasher.ko").read_bytes()


@pytest.fixture(scope="session", params=["null", "timer"])
def crashed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, crasher: bytes
) -> tuple[str, Kernel, ElfMemory]:
    """A kernel that oopsed in a module: in a system call, or in a timer."""
    kernel, _ = stock_kernel()
    directory = tmp_path_factory.mktemp("crashed")
    core = directory / "vmcore.elf"
    boot(
        directory, kernel, [], elf=core, cmdline="panic=0 oops=panic nokaslr", cpu="qemu64",
        after=f"insmod /crasher.ko fault={request.param}",
        until=b"end Kernel panic",
        extra={"crasher.ko": crasher},
    )  # fmt: skip
    memory = open_image(core)
    assert isinstance(memory, ElfMemory)
    return request.param, Kernel.find(memory), memory


def log_trace(kernel: Kernel) -> list[str]:
    """The function names of the oops in the log, innermost first, uncertain ones left out."""
    text = [record.text.strip() for record in kernel.log()]
    lines = text[text.index("Call Trace:") : text.index("</TASK>")]
    return [line.split("+")[0] for line in lines if re.match(r"[a-z_]\S*\+0x", line)]


@pytest.mark.box
def test_the_crashing_cpu_unwinds_through_the_exception(
    crashed: tuple[str, Kernel, ElfMemory],
) -> None:
    fault, kernel, memory = crashed
    assert not kernel.la57 and kernel.kaslr_offset == 0
    traces = [kernel.unwind(from_pt_regs(raw)) for raw in memory.registers]
    (trace,) = (t for t in traces if any("panic+" in line for line in describe(kernel, t)))
    # a timer may also fire on the other CPU, which idles
    assert trace.whole and (fault == "timer" or trace.end is End.USER)
    lines = describe(kernel, trace)
    at = next(i for i, frame in enumerate(trace.frames) if frame.exact and i and frame.registers)
    culprit = {"null": "crasher_write+", "timer": "crasher_tick+"}[fault]
    assert lines[at].startswith(culprit) and lines[at].endswith("[crasher]")
    # the log prints what the kernel's own unwinder found from the same place on
    ours, theirs = [line.split("+")[0] for line in lines[at + 1 :]], log_trace(kernel)
    assert [name for name in theirs if name in ours] == [name for name in ours if name in theirs]
    assert len(set(ours) - set(theirs)) <= 1 and len(ours) >= 7
    expected = {"null": "crasher_null", "timer": "call_timer_fn"}[fault]
    assert ours[0] == expected


@pytest.mark.box
def test_the_faulting_instruction_is_shown(crashed: tuple[str, Kernel, ElfMemory]) -> None:
    fault, kernel, _ = crashed
    code = next(record.text for record in kernel.log() if re.match("Code:.*<", record.text))
    rip = next(record.text for record in kernel.log() if record.text.startswith("RIP: 0010:"))
    match = re.match(r"RIP: 0010:(\w+)\+(0x[0-9a-f]+)/", rip)
    assert match
    address = kernel.symbols.address(match[1]) + int(match[2], 16)
    (from_log,) = (one for one in disasm.code_line(code, address) if one.current)
    (from_memory,) = (one for one in disasm.around(kernel, address) if one.current)
    assert from_log.raw == from_memory.raw
    expected = {"null": "mov dword ptr [rdi + 4], 1", "timer": "ud2"}[fault]
    assert from_memory.text == expected
    calls = disasm.around(kernel, kernel.symbols.address("schedule") + 1, 0, 60)
    assert any(one.note == "__schedule" for one in calls)


@pytest.mark.box
def test_a_panic_in_a_hard_interrupt_unwinds_to_the_interrupted_task(tmp_path: Path) -> None:
    core = tmp_path / "core"
    cmdline = "panic=0 sysrq_always_enabled"
    with running(tmp_path, stock_kernel()[0], initramfs([]), cmdline=cmdline, cpus=1) as (
        qmp, _, process,
    ):  # fmt: skip
        wait_for(tmp_path / "console", READY, process)
        magic_sysrq(tmp_path, qmp, b"c")
        wait_for(tmp_path / "console", b"end Kernel panic", process)
        qmp.command("stop")
        qmp.command("dump-guest-memory", paging=False, protocol=f"file:{core}")
    memory = open_image(core)
    assert isinstance(memory, ElfMemory)
    kernel = Kernel.find(memory)
    trace = kernel.unwind(from_pt_regs(memory.registers[0]))
    assert trace.whole
    names = [line.split("+")[0] for line in describe(kernel, trace)]
    for name in ("panic", "sysrq_handle_crash", "serial8250_interrupt", "asm_common_interrupt"):
        assert name in names
    # whatever it interrupted: mostly the idle task
    assert names.index("asm_common_interrupt") < len(names) - 1 or trace.end is End.USER


def test_kinds_are_numbered_as_in_the_kernel() -> None:
    assert (Kind.INT, Kind.STRUCT, Kind.DATASEC, Kind.ENUM64) == (1, 4, 15, 19)
