# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtraces: from saved registers, of a blocked task, or a guess.

Follows unwind_next_frame() of arch/x86/kernel/unwind_orc.c (6.1).  Stacks of
interrupts, exceptions and NMIs need no tables of their own: the rules lead
from one to the next.

A running CPU without saved registers has no trustworthy backtrace; `guess`
offers what a scan of its stack finds and says that it is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from introspect.errors import IntrospectError, MemoryFault, NotFound
from introspect.orc import FRAME_POINTER, NULL_CALL, Entry, Reg, Step
from introspect.registers import (
    IRET_SIZE,
    PT_REGS_SIZE,
    Registers,
    from_iret_frame,
    from_pt_regs,
    is_user,
)
from introspect.tasks import Task

if TYPE_CHECKING:
    from introspect.kernel import Kernel

MAX_FRAMES = 256
DEFAULT_STACK = 16384
MAX_STACK = 1 << 18
MASK = (1 << 64) - 1

_HELD = {Reg.R10: "r10", Reg.R13: "r13", Reg.DI: "di", Reg.DX: "dx", Reg.AX: "ax"}


class End(Enum):
    """Why a backtrace ends."""

    USER = "user"  # user mode: whole
    OUTERMOST = "outermost"  # the first function of a kernel thread or CPU: whole
    LOST = "lost"  # a rule, register or memory is missing: what follows is unknown
    LIMIT = "limit"  # more frames than a stack can have


@dataclass(frozen=True)
class Frame:
    """One frame.

    ip        where it executes, or returns to
    sp        stack pointer in this frame
    exact     ip is the instruction at work (registers were saved), not a return address
    reliable  found by unwind rules; False after a frame pointer had to be believed
    registers all that were saved here by an interrupt or exception
    """

    ip: int
    sp: int
    exact: bool
    reliable: bool = True
    registers: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Backtrace:
    """Frames, innermost first; `guess` when no registers were known."""

    frames: tuple[Frame, ...]
    end: End
    reason: str = ""
    guess: bool = False
    user_registers: Mapping[str, int] | None = None

    @property
    def whole(self) -> bool:
        return self.end in (End.USER, End.OUTERMOST) and not self.guess


@dataclass
class _State:
    """Where the unwinder is."""

    ip: int
    sp: int
    bp: int
    exact: bool
    registers: Registers = field(default_factory=dict)
    reliable: bool = True
    saved: Registers | None = None  # registers that were saved for this very frame


class _Stop(Exception):
    def __init__(self, end: End, reason: str = "", user: Registers | None = None) -> None:
        super().__init__(reason)
        self.end, self.reason, self.user = end, reason, user


def unwind(kernel: Kernel, registers: Mapping[str, int]) -> Backtrace:
    """The backtrace of a CPU whose registers were saved: ip, sp and bp at least."""
    if is_user(dict(registers)):
        return Backtrace((), End.USER, user_registers=registers)
    state = _State(registers["ip"], registers["sp"], registers.get("bp", 0), True, dict(registers))
    state.saved = dict(registers)
    return _run(kernel, state)


def unwind_task(kernel: Kernel, task: Task) -> Backtrace:
    """The backtrace of a task that is not running; of a running one, a guess."""
    if task.running:
        return guess(kernel, task.stack)
    return _run(kernel, _blocked(kernel, task.sp))


def _blocked(kernel: Kernel, sp: int) -> _State:
    """What __switch_to_asm left at thread.sp: struct inactive_task_frame."""
    kind = kernel.btf.struct("inactive_task_frame")
    raw = kernel.read(sp, min(kind.size, 256))
    word = {
        name: int.from_bytes(raw[kind.offset(name) : kind.offset(name) + 8], "little")
        for name in ("bp", "ret_addr", "r13")
    }
    fork = word["ret_addr"] in kernel.fork_returns
    registers = {"r13": word["r13"]}
    return _State(word["ret_addr"], sp + kind.size, word["bp"], fork, registers)


def _run(kernel: Kernel, state: _State) -> Backtrace:
    frames: list[Frame] = []
    seen: set[tuple[int, int]] = set()
    while len(frames) < MAX_FRAMES:
        frames.append(Frame(state.ip, state.sp, state.exact, state.reliable, state.saved))
        if (state.ip, state.sp) in seen:
            return Backtrace(tuple(frames), End.LOST, "the stack runs in a circle")
        seen.add((state.ip, state.sp))
        try:
            _next(kernel, state)
        except _Stop as stop:
            return Backtrace(tuple(frames), stop.end, stop.reason, user_registers=stop.user)
        except MemoryFault as fault:
            return Backtrace(tuple(frames), End.LOST, str(fault))
    return Backtrace(tuple(frames), End.LIMIT, f"more than {MAX_FRAMES} frames")


def _next(kernel: Kernel, state: _State) -> None:
    """Moves `state` to the caller; _Stop when there is none."""
    entry = _rule(kernel, state)
    if entry.step is Step.END:
        raise _Stop(End.OUTERMOST)
    if entry.step is Step.UNDEFINED:
        raise _Stop(End.LOST, f"no unwind rule at {state.ip:#x}")
    previous = state.sp
    sp, indirect = _caller_sp(kernel, state, entry)
    state.saved = None
    if entry.step is Step.CALL:
        state.ip, state.sp = kernel.u64(sp - 8), sp
        state.bp = _caller_bp(kernel, state, entry, sp)
        # leaving an IRQ stack may go down, within one stack it may not
        if sp <= previous and not indirect and sp // DEFAULT_STACK == previous // DEFAULT_STACK:
            raise _Stop(End.LOST, f"the stack does not grow at {sp:#x}")
    else:
        _load_registers(kernel, state, entry, sp)
    state.exact = entry.signal if entry.step is Step.CALL else True
    if not state.ip:
        raise _Stop(End.LOST, "the return address is zero")


def _rule(kernel: Kernel, state: _State) -> Entry:
    if state.ip == 0:
        return NULL_CALL
    entry = kernel.orc.find(state.ip if state.exact else state.ip - 1)
    if entry is not None:
        return entry
    jumped = state.exact and state.saved is not None
    if jumped and not kernel.is_text(state.ip) and kernel.is_text(kernel.u64(state.sp)):
        return NULL_CALL  # a wild jump: the return address is still on top of the stack
    if state.ip < 1 << 47 or not state.bp:
        if jumped:
            return NULL_CALL
        raise _Stop(End.LOST, f"no unwind rule at {state.ip:#x}")
    state.reliable = False
    return FRAME_POINTER


def _caller_sp(kernel: Kernel, state: _State, entry: Entry) -> tuple[int, bool]:
    """(the caller's stack pointer, whether it may lie on another stack)."""
    reg = entry.sp_reg
    if reg == Reg.SP:
        return state.sp + entry.sp_offset & MASK, False
    if reg == Reg.BP:
        return state.bp + entry.sp_offset & MASK, False
    if reg == Reg.SP_INDIRECT:
        if kernel.inline_irq_stacks:
            return kernel.u64(state.sp) + entry.sp_offset & MASK, True
        return kernel.u64(state.sp + entry.sp_offset & MASK), True
    if reg == Reg.BP_INDIRECT:
        return kernel.u64(state.bp + entry.sp_offset & MASK), True
    name = _HELD.get(Reg(reg)) if reg in Reg._value2member_map_ else None
    if name is None or name not in state.registers:
        raise _Stop(End.LOST, f"register {name or reg} is needed and was not saved")
    return state.registers[name] + entry.sp_offset & MASK, True


def _caller_bp(kernel: Kernel, state: _State, entry: Entry, sp: int) -> int:
    if entry.bp_reg == Reg.PREV_SP:
        return kernel.u64(sp + entry.bp_offset & MASK)
    if entry.bp_reg == Reg.BP:
        return kernel.u64(state.bp + entry.bp_offset & MASK)
    return state.bp


def _load_registers(kernel: Kernel, state: _State, entry: Entry, at: int) -> None:
    """Continues from the pt_regs or exception frame at `at`."""
    if entry.step is Step.REGS:
        registers = from_pt_regs(kernel.read(at, PT_REGS_SIZE))
        state.bp = registers["bp"]
        state.registers = registers
    else:
        registers = from_iret_frame(kernel.read(at, IRET_SIZE))
        state.bp = _caller_bp(kernel, state, entry, at)
    if is_user(registers):
        raise _Stop(End.USER, user=registers)
    state.ip, state.sp, state.saved = registers["ip"], registers["sp"], registers


def stack_size(kernel: Kernel) -> int:
    """THREAD_SIZE, bytes."""
    try:
        size = kernel.btf.find("union thread_union").size
    except NotFound:
        return DEFAULT_STACK
    return size if DEFAULT_STACK // 2 <= size <= MAX_STACK else DEFAULT_STACK


def guess(kernel: Kernel, stack: int) -> Backtrace:
    """The longest plausible chain of return addresses on the stack at `stack`.

    Right for most sleeping tasks, often wrong for a spinning one: stale frames lie below the
    true stack pointer.  Always marked as a guess.
    """
    size = stack_size(kernel)
    try:
        raw = kernel.read(stack, size)
    except MemoryFault as fault:
        return Backtrace((), End.LOST, str(fault), guess=True)
    words = memoryview(raw).cast("Q")
    best: Backtrace | None = None
    seen: set[int] = set()
    for index, word in enumerate(words):
        sp = stack + 8 * index + 8
        if sp in seen or not kernel.is_text(word):
            continue
        for bp in (words[index - 1] if index else 0, 0):
            trace = _run(kernel, _State(word, sp, bp, False))
            if trace.end in (End.USER, End.OUTERMOST):
                seen.update(frame.sp for frame in trace.frames)
                if best is None or len(trace.frames) > len(best.frames):
                    best = trace
                break
    if best is None:
        return Backtrace((), End.LOST, "no chain of return addresses reaches the top", guess=True)
    return Backtrace(best.frames, best.end, "found by scanning the stack", True)


def describe(kernel: Kernel, trace: Backtrace) -> list[str]:
    """A line a frame, as the kernel prints them; "? " before what is not certain."""
    lines = []
    for frame in trace.frames:
        mark = "" if frame.reliable and not trace.guess else "? "
        address = frame.ip if frame.exact else frame.ip - 1
        try:
            symbol = kernel.symbols.find(address)
        except IntrospectError:
            lines.append(f"{mark}{frame.ip:#x}")
            continue
        module = f" [{symbol.module}]" if symbol.module else ""
        size = f"/{symbol.size:#x}" if symbol.size else ""
        lines.append(f"{mark}{symbol.name}+{frame.ip - symbol.address:#x}{size}{module}")
    return lines
