# SPDX-License-Identifier: GPL-2.0-or-later
"""Run control of a vnode's CPUs: park, resume, step, breakpoints, watchpoints.

Works through the debug mailboxes in the vnode's bridge, which its agent obeys, and
/dev/kmb, which lets one process at a time write there: control is a lease, renewed by
a thread.  When this process dies, however it dies, kmb.ko takes the breakpoints out and
lets the CPUs run; when it only stops, the lease ends and the same happens.

A CPU that runs into a breakpoint parks before the instruction; when it is let run with
the breakpoint still there, it parks again.  So a stop that nobody asked for is never
lost.  A step executes one instruction with interrupts off, unless the instruction
itself is about that: an interrupt handler is never stepped into by accident.

Limits: CPUs that the vnode has taken offline are left alone; kernel code only.
"""

import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from adeos import abi
from adeos.abi import Cause, Frame, Range
from adeos.bridge import Bridge, mailbox_at
from adeos.errors import AdeosError, BridgeError, HeldError
from adeos.machine import KernelFacts, Machine
from debugger.errors import ControlLost, ControlRefused, TargetError
from debugger.hardware import Slots
from debugger.instruction import Kind, kind_of
from introspect.errors import IntrospectError
from introspect.kernel import Kernel

LEASE_MS = 3000
RENEW_SECONDS = 0.3
PARK_SECONDS = 1.0
"""For an answer to an NMI; tens of microseconds where the host has CPU to spare."""
PARK_TRIES = 10
"""At least: where this process gets no CPU for a second, nobody was asked in it."""
NMI_AGAIN_SECONDS = 0.02
STEP_SECONDS = 0.05
"""For a step to end by itself before its CPU is parked."""
_POLL_SECONDS = 20e-6
_STEPS = {
    Kind.PLAIN: abi.VN_DBG_F_MASK,
    Kind.PUSHF: abi.VN_DBG_F_MASK | abi.VN_DBG_F_PUSHF,
    Kind.CLI: abi.VN_DBG_F_MASK | abi.VN_DBG_F_CLI,
}
"""What the agent is to do to the flags, and undo, for the step of an instruction."""
_GENERAL = abi.USER_REGS[:21]
"""What an exception frame holds: r15 to ss."""
_FIXED = frozenset({"cs", "ss"})
_MAX_INSTRUCTION = 15
_REQUEST, _SEQ, _FLAGS = (abi.DEBUG.members[name].offset for name in ("request", "seq", "flags"))
_NMI, _DR = (abi.DEBUG.members[name].offset for name in ("nmi", "dr"))
_REGS = abi.FRAME.members["regs"].offset


class Stop(NamedTuple):
    """A CPU parked by itself."""

    cpu: int
    cause: Cause
    dr6: int
    tsc: int


class _Cpu:
    """What is known of one CPU; `edits` are registers that it gets when it is let run."""

    def __init__(self, box: abi.Debug) -> None:
        self.seq = box.seq
        self.stops = box.stops
        self.parked = False
        self.told_to_run = False
        self.edits: dict[str, int] = {}
        self.stepping = False
        self.hardware = 0


class RunControl:
    """Control of one incarnation of a vnode; nothing is touched before take()."""

    def __init__(
        self,
        open_machine: Callable[[], Machine],
        vnode: int,
        region: Range,
        bridge: Bridge,
        kernel: Kernel,
    ) -> None:
        self.vnode = vnode
        self.kernel = kernel
        self.slots = Slots(kernel)
        self._open_machine = open_machine
        self._bridge = bridge
        self._base = region.base + abi.VN_OFF_BRIDGE
        self._machine: Machine | None = None
        self._cpus: dict[int, _Cpu] = {}
        self._breaks: dict[int, tuple[int, int]] = {}
        self._over = threading.Event()
        self._lost = ""

    # Control itself

    @property
    def held(self) -> bool:
        """Whether this process has control now."""
        return self._machine is not None and not self._lost

    @property
    def taken(self) -> bool:
        """Whether it has had control and not given it back; it may be lost."""
        return self._machine is not None

    @property
    def machine(self) -> Machine:
        """The machine, writable; ControlLost when control is not had."""
        if self._machine is None or self._lost:
            raise ControlLost(self._lost or f"vnode {self.vnode} is not controlled")
        return self._machine

    def take(self) -> None:
        """Take control; its CPUs run on.  ControlRefused when it cannot be had."""
        if self.held:
            return
        self.give_back()
        count = self._check_agent()
        try:
            machine = self._open_machine()
            machine.control(self.vnode, LEASE_MS, self._facts())
            cpus = {cpu: _Cpu(self._bridge.debug(cpu)) for cpu in range(count)}
        except HeldError as error:
            raise ControlRefused(str(error)) from None
        except AdeosError as error:
            raise ControlRefused(f"vnode {self.vnode} cannot be controlled: {error}") from None
        self._lost, self._cpus, self._machine = "", cpus, machine
        self._send_away()
        self._over = threading.Event()
        threading.Thread(target=self._renew, args=(machine, self._over), daemon=True).start()

    def _send_away(self) -> None:
        """CPUs that the last debugger had parked may not know yet that its control is over."""
        for cpu in self._cpus:
            if self._progress(cpu)[0] == abi.VN_DBG_PARKED:
                self._write(mailbox_at(cpu) + _FLAGS, bytes(4))
                self._post(cpu, abi.VN_DBG_RUN)

    def _check_agent(self) -> int:
        """The number of CPUs; ControlRefused where no agent obeys."""
        try:
            side, agent = self._bridge.root_side(), self._bridge.vnode_side()
        except BridgeError as error:
            raise ControlRefused(str(error)) from None
        if agent is None or agent.incarnation != side.incarnation:
            raise ControlRefused(f"vnode {self.vnode} has no agent to stop it: it can be watched")
        return side.ncpus

    def _facts(self) -> KernelFacts:
        found = []
        for name in ("__entry_text_start", "__entry_text_end", "die_chain"):
            try:
                found.append(self.kernel.symbols.address(name))
            except IntrospectError:
                found.append(0)
        return KernelFacts(*found)

    @property
    def watches(self) -> bool:
        """Whether the agents hear of hits of debug registers; known after a first stop."""
        try:
            return all(self._bridge.debug(cpu).watches for cpu, s in self._cpus.items() if s.parked)
        except BridgeError:
            return False

    def _renew(self, machine: Machine, over: threading.Event) -> None:
        while not over.wait(RENEW_SECONDS):
            try:
                machine.renew(self.vnode, LEASE_MS)
            except (AdeosError, OSError) as error:
                if not over.is_set():
                    self._lost = f"control is lost: {error}"
                return

    def give_back(self) -> None:
        """End control: breakpoints go, the CPUs run."""
        machine, self._machine = self._machine, None
        self._over.set()
        self._cpus, self._breaks = {}, {}
        self.slots = Slots(self.kernel)
        if machine is not None:
            try:
                machine.release(self.vnode)
            except AdeosError:
                pass  # lost before
            finally:
                machine.close()

    def fileno(self) -> int:
        """Readable when a CPU may have parked by itself; -1 where nothing tells."""
        return self.machine.fileno()

    # Parking and running

    def parked(self, cpu: int) -> bool:
        """Whether a CPU is known to be parked."""
        state = self._cpus.get(cpu)
        return state is not None and state.parked

    @property
    def running(self) -> bool:
        """Whether any CPU may run."""
        return not all(cpu.parked for cpu in self._cpus.values())

    def park(self, cpus: Iterable[int] | None = None) -> None:
        """Park CPUs, every one unless they are named; TargetError when none does."""
        machine = self.machine
        asked = {cpu: s for cpu, s in self._cpus.items() if cpus is None or cpu in set(cpus)}
        stepping = [cpu for cpu, state in asked.items() if state.stepping and not state.parked]
        if stepping:
            self._wait(stepping, STEP_SECONDS)
        wanted = [cpu for cpu, state in asked.items() if not self._look(cpu, state)]
        until = time.monotonic() + PARK_SECONDS
        wanted = [cpu for cpu in wanted if self._has_left(cpu, until)]
        until = time.monotonic() + PARK_SECONDS
        for cpu in wanted:
            self._post(cpu, abi.VN_DBG_PARK)
        tries = 0
        while wanted and (tries < PARK_TRIES or time.monotonic() < until):
            tries += 1
            for cpu in wanted:
                word, done, _ = self._progress(cpu)
                if word == abi.VN_DBG_RUNNING and done == self._cpus[cpu].seq:
                    self._post(cpu, abi.VN_DBG_PARK)  # it took that for the word to run
            self._send_nmi(machine, wanted)
            self._wait(wanted, NMI_AGAIN_SECONDS)
            wanted = [cpu for cpu in wanted if not self._cpus[cpu].parked]
        if asked and not any(state.parked for state in asked.values()):
            raise TargetError(f"vnode {self.vnode}: no CPU answers the NMI")

    def _has_left(self, cpu: int, until: float) -> bool:
        """Whether a CPU has taken the word to run: the next request would wipe it out."""
        state = self._cpus[cpu]
        while state.told_to_run:
            word, done, _ = self._progress(cpu)
            state.told_to_run = word != abi.VN_DBG_RUNNING and done != state.seq
            if state.told_to_run:
                if time.monotonic() > until:
                    return False
                time.sleep(_POLL_SECONDS)
        return True

    def _send_nmi(self, machine: Machine, cpus: Iterable[int]) -> None:
        """A CPU on its way through the kernel's entry code takes a later one."""
        for cpu in cpus:
            self._write(mailbox_at(cpu) + _NMI, b"\1\0\0\0")
            try:
                machine.nmi(self.vnode, cpu)
            except AdeosError as error:
                raise ControlLost(str(error)) from None

    def _wait(self, cpus: Iterable[int], seconds: float) -> None:
        until = time.monotonic() + seconds
        left = set(cpus)
        while left:
            left = {cpu for cpu in left if not self._look(cpu, self._cpus[cpu])}
            if time.monotonic() > until:
                return
            if left:
                time.sleep(_POLL_SECONDS)

    def _look(self, cpu: int, state: _Cpu) -> bool:
        """Whether a CPU is parked."""
        if state.parked:
            return True
        word, done, stops = self._progress(cpu)
        if word != abi.VN_DBG_PARKED or stops == state.stops or done != state.seq:
            return False
        state.parked, state.stepping = True, False
        return True

    def _progress(self, cpu: int) -> tuple[int, int, int]:
        """State, last request fulfilled and number of stops; -1 where no agent writes that."""
        try:
            return self._bridge.debug_progress(cpu)
        except BridgeError:
            return -1, -1, -1

    def stops(self) -> list[Stop]:
        """CPUs that have parked by themselves since they were let run, the first one first."""
        self.machine.events()  # looked at by now: else the descriptor stays readable
        found = []
        for cpu, state in self._cpus.items():
            if not state.parked and self._look(cpu, state):
                stop = self.cause(cpu)
                if stop.cause in (Cause.BREAK, Cause.DEBUG):
                    found.append(stop)
        return sorted(found, key=lambda stop: stop.tsc)

    def cause(self, cpu: int) -> Stop:
        """Why a parked CPU parked."""
        box = self._bridge.debug(cpu)
        return Stop(cpu, box.cause, box.dr6, box.stop_tsc)

    def run(self, steps: Mapping[int, bool]) -> None:
        """Let parked CPUs run; those that map to True execute one instruction."""
        for cpu, step in steps.items():
            state = self._cpus.get(cpu)
            if state is not None and state.parked:
                self._run_one(cpu, state, step)

    def _run_one(self, cpu: int, state: _Cpu, step: bool) -> None:
        flags = self._step_flags(cpu, state) if step else 0
        state.stepping = bool(flags)
        if state.edits:
            flags |= abi.VN_DBG_F_REGS
            values = self._values(cpu, state)
            data = struct.pack(f"<{len(_GENERAL)}Q", *(values[name] for name in _GENERAL))
            self._write(abi.VN_BR_DEBUG_REGS + cpu * abi.FRAME.size + _REGS, data)
        if state.hardware != self.slots.generation:
            flags |= abi.VN_DBG_F_HW
            data = struct.pack("<5Q", *self.slots.addresses, self.slots.dr7)
            self._write(mailbox_at(cpu) + _DR, data)
            state.hardware = self.slots.generation
        self._write(mailbox_at(cpu) + _FLAGS, flags.to_bytes(4, "little"))
        state.stops = self._progress(cpu)[2]
        state.edits, state.parked = {}, False
        self._post(cpu, abi.VN_DBG_RUN)

    def _post(self, cpu: int, request: int) -> None:
        state = self._cpus[cpu]
        state.seq = state.seq + 1 & 0xFFFFFFFF
        state.told_to_run = request == abi.VN_DBG_RUN
        self._write(mailbox_at(cpu) + _REQUEST, request.to_bytes(4, "little"))
        self._write(mailbox_at(cpu) + _SEQ, state.seq.to_bytes(4, "little"))

    def _step_flags(self, cpu: int, state: _Cpu) -> int:
        """0 where there is no trap flag behind the instruction: the CPU runs on."""
        kind = self._kind(self._values(cpu, state)["rip"])
        return 0 if kind is Kind.LEAVES else abi.VN_DBG_F_STEP | _STEPS.get(kind, 0)

    def _kind(self, rip: int) -> Kind:
        try:
            return kind_of(self.hide(rip, self.kernel.read(rip, _MAX_INSTRUCTION)))
        except IntrospectError:
            return Kind.PLAIN

    # Registers and memory

    def frame(self, cpu: int) -> Frame | None:
        """The registers of a parked CPU, with what was set since; None when they are lost."""
        try:
            frame = self._bridge.debug_frame(cpu)
        except BridgeError:
            return None
        edits = self._cpus[cpu].edits if cpu in self._cpus else {}
        if frame is None or not edits:
            return frame
        values = dict(zip(abi.USER_REGS, frame.regs, strict=True)) | edits
        return frame._replace(regs=tuple(values[name] for name in abi.USER_REGS))

    def _values(self, cpu: int, state: _Cpu) -> dict[str, int]:
        frame = self._bridge.debug_frame(cpu)
        if frame is None:
            raise TargetError(f"vnode {self.vnode}: CPU {cpu} has left no registers")
        return dict(zip(abi.USER_REGS, frame.regs, strict=True)) | state.edits

    def set_registers(self, cpu: int, values: Mapping[str, int]) -> None:
        """Change general registers of a parked CPU; TargetError for others."""
        state = self._cpus.get(cpu)
        if state is None or not state.parked:
            raise TargetError(f"CPU {cpu} of vnode {self.vnode} runs: stop it first")
        now = self._values(cpu, state)
        for name, value in values.items():
            if now.get(name) == value:
                continue
            if name not in _GENERAL or name in _FIXED:
                raise TargetError(f"${name} of a CPU cannot be set")
            state.edits[name] = value

    def poke(self, pa: int, data: bytes) -> None:
        """Write physical memory of the vnode."""
        try:
            self.machine.poke(self.vnode, pa, data)
        except AdeosError as error:
            raise TargetError(str(error)) from None

    def _write(self, offset: int, data: bytes) -> None:
        """Into the bridge."""
        self.poke(self._base + offset, data)

    # Breakpoints in memory

    def set_break(self, va: int, pa: int) -> None:
        """Put a breakpoint; what was there is still what hide() shows.  Again: no change."""
        if va in self._breaks:
            return
        byte = self.kernel.read(va, 1)[0]
        try:
            self.machine.set_break(self.vnode, va, pa)
        except AdeosError as error:
            raise TargetError(str(error)) from None
        self._breaks[va] = pa, byte

    def clear_break(self, va: int) -> None:
        """Take a breakpoint away; nothing happens where none is."""
        if va not in self._breaks:
            return
        try:
            self.machine.clear_break(self.vnode, self._breaks[va][0])
        except AdeosError as error:
            raise TargetError(str(error)) from None
        del self._breaks[va]

    @property
    def breaks(self) -> Iterable[int]:
        """The addresses of the breakpoints in memory."""
        return self._breaks.keys()

    def hide(self, address: int, data: bytes) -> bytes:
        """Memory as it would be without the breakpoints."""
        if not self._breaks:
            return data
        inside = [va for va in self._breaks if address <= va < address + len(data)]
        if not inside:
            return data
        clean = bytearray(data)
        for va in inside:
            clean[va - address] = self._breaks[va][1]
        return bytes(clean)
