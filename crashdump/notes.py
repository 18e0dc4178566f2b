# SPDX-License-Identifier: GPL-2.0-or-later
"""The notes of a vmcore: VMCOREINFO, and two per CPU, out of register frames.

What the readers want of them:

* crash and gdb number CPUs by the order of the CORE/NT_PRSTATUS notes, so a CPU
  without registers still gets one, of zeros; drgn takes the CPU from ``pr_pid``.
* drgn reads the kernel's own ``crash_notes`` when VMCOREINFO has a CRASHTIME.
  Nobody filled those (no kexec crash kernel ran), so the line is dropped.
* crash finds KASLR through the IDT and CR3 of the "QEMU" note.
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from crashdump.elf import Note

if TYPE_CHECKING:
    from adeos.abi import Frame

NT_PRSTATUS = 1
REG_COUNT = 27  # struct user_regs_struct, arch/x86/include/asm/user_64.h

# struct elf_prstatus, include/linux/elfcore.h: siginfo, signal sets, pids,
# four timevals, registers, fpvalid: 336 bytes, registers at 112
_PRSTATUS = struct.Struct("<iiihxxQQ4i64x27Qixxxx")
# struct QEMUCPUState, QEMU target/i386/arch_dump.c: 440 bytes
_QEMU_STATE = struct.Struct("<II18Q" + "IIIIQ" * 10 + "5QQ")
_CODE_FLAGS = 0x00AF9B00  # descriptor of a present 64-bit code segment
_DATA_FLAGS = 0x00CF9300  # and of a writable data segment
_FLAT = 0xFFFFFFFF


class CpuState(NamedTuple):
    """Registers of one CPU: plain numbers, so it travels as JSON.

    ``regs`` is in the order of struct user_regs_struct, 27 words.
    """

    cpu: int
    regs: tuple[int, ...]
    control: bool = False  # the members below are valid
    kernel_gs_base: int = 0
    cr0: int = 0
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    gdt_base: int = 0
    gdt_limit: int = 0
    idt_base: int = 0
    idt_limit: int = 0
    tr: int = 0
    ldt: int = 0


def cpu_state(cpu: int, frame: "Frame") -> CpuState | None:
    """The registers of a bridge's ``frame``, or None when it holds none."""
    from adeos.abi import VN_FRAME_CONTROL, VN_FRAME_GP

    if not frame.flags & VN_FRAME_GP:
        return None
    if not frame.flags & VN_FRAME_CONTROL:
        return CpuState(cpu, frame.regs)
    return CpuState(
        cpu,
        frame.regs,
        True,
        frame.kernel_gs_base,
        frame.cr0,
        frame.cr2,
        frame.cr3,
        frame.cr4,
        frame.gdt_base,
        frame.gdt_limit,
        frame.idt_base,
        frame.idt_limit,
        frame.tr,
        frame.ldt,
    )


def prstatus(cpu: int, regs: Sequence[int]) -> Note:
    """CORE/NT_PRSTATUS of ``cpu``; ``pr_pid`` is the CPU number plus one."""
    return Note(b"CORE", NT_PRSTATUS, _PRSTATUS.pack(0, 0, 0, 0, 0, 0, cpu + 1, 0, 0, 0, *regs, 0))


def qemu_state(state: CpuState) -> Note:
    """The "QEMU" note of a CPU: registers, segments, tables, CR0-4."""
    (r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi) = state.regs[:15]
    (rip, cs, flags, rsp, ss, fs_base, gs_base, ds, es, fs, gs) = state.regs[16:]
    general = (rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15)
    segments = (
        (cs, _FLAT, _CODE_FLAGS, 0),
        (ds, _FLAT, _DATA_FLAGS, 0),
        (es, _FLAT, _DATA_FLAGS, 0),
        (fs, _FLAT, _DATA_FLAGS, fs_base),
        (gs, _FLAT, _DATA_FLAGS, gs_base),
        (ss, _FLAT, _DATA_FLAGS, 0),
        (state.ldt, 0, 0, 0),
        (state.tr, 0, 0, 0),
        (0, state.gdt_limit, 0, state.gdt_base),
        (0, state.idt_limit, 0, state.idt_base),
    )
    flat = [
        word
        for selector, limit, bits, base in segments
        for word in (selector & 0xFFFF, limit & _FLAT, bits, 0, base)
    ]
    control = (state.cr0, 0, state.cr2, state.cr3, state.cr4, state.kernel_gs_base)
    return Note(
        b"QEMU",
        0,
        _QEMU_STATE.pack(1, _QEMU_STATE.size, *general, rip, flags, *flat, *control),
    )


def vmcoreinfo(text: bytes) -> Note:
    """The VMCOREINFO note, without a CRASHTIME line."""
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"CRASHTIME=")]
    return Note(b"VMCOREINFO", 0, b"\n".join(lines) + b"\n")


def compose(text: bytes, cpus: Sequence[CpuState | None]) -> list[Note]:
    """All notes: ``cpus[i]`` are the registers of CPU ``i``, None when unknown.

    The QEMU notes are given for all CPUs or for none: crash pairs them with
    the CPUs by their order.
    """
    notes = [prstatus(i, cpu.regs if cpu else (0,) * REG_COUNT) for i, cpu in enumerate(cpus)]
    complete = [cpu for cpu in cpus if cpu is not None and cpu.control]
    if len(complete) == len(cpus):
        notes += map(qemu_state, complete)
    return [vmcoreinfo(text), *notes] if text else notes
