# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode of the fake machine: plays vnode_agent.ko over a real bridge.

Nothing happens by itself, so tests need no sleep: each method is a thing that happens to a vnode.
Limits: one thread; the ring order of a real agent, not its timing.
"""

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from adeos import abi
from adeos.abi import Layer
from adeos.bridge import mailbox_at, seq_write
from adeos.machine import Binding


class Host(Protocol):
    """What a fake vnode needs of its machine."""

    def tsc(self) -> int: ...
    def query(self, vnode: int) -> Binding | None: ...
    def raw(self, base: int, size: int) -> memoryview: ...
    def ring(self, vnode: int) -> None: ...


class FakeVnode:
    """Plays the agent of one incarnation."""

    RELEASE = "6.1.0-fake"
    VECTOR = 0x50

    def __init__(self, machine: Host, vnode: int) -> None:
        binding = machine.query(vnode)
        assert binding is not None
        self.machine = machine
        self.vnode = vnode
        self.ncpus = len(binding.cpus)
        self.view = machine.raw(binding.region.base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)
        self.incarnation = abi.ROOT_SIDE.get(self.view, abi.VN_BR_ROOT, "incarnation")
        self.alive = True
        """False once parked: nothing it is told to do happens any more."""
        self.hung: set[Layer] = set()
        self.deaf = False
        """Interrupts off: portals are lost, NMIs are not."""
        self.ready = False
        self.unfreezable = ""
        """Why it cannot be frozen."""
        self.used = set(range(0x100, 0x180))
        """Pages of the region whose content counts."""
        self.injected: list[tuple[abi.Inject, int]] = []

    def boot(self) -> None:
        """The agent loads: state AGENT, echo of the incarnation, first ring."""
        apicid = abi.ROOT_SIDE.get(self.view, abi.VN_BR_ROOT, "apicid")[0]
        blank = abi.VNODE_SIDE.unpack(bytes(abi.VNODE_SIDE.size))
        side = blank._replace(
            incarnation=self.incarnation,
            state=abi.State.AGENT,
            ncpus=self.ncpus,
            vector=self.VECTOR,
            apicid=apicid,
            agent_tsc=self.machine.tsc(),
            hz=250,
            console=1,
            release=self.RELEASE,
            grants_done=self._granted(),
        )
        self.view[abi.VN_BR_VNODE : abi.VN_BR_VNODE + abi.VNODE_SIDE.size] = abi.VNODE_SIDE.pack(
            side
        )
        self._say("abi", abi.VN_ABI_VERSION)
        self._ring()

    def resume(self) -> None:
        """It comes back frozen, takes its new incarnation and runs."""
        self.boot()
        self.ready = True
        self._say_warm(state=abi.WarmState.RESUMED)

    def freeze(self) -> None:
        """Everything is in memory and the CPU parked; the fake kernel's image is two pages."""
        self.hung = set(Layer)
        slot = abi.ROOT_SIDE.get(self.view, abi.VN_BR_ROOT, "slot_base")
        pages = abi.ROOT_SIDE.get(self.view, abi.VN_BR_ROOT, "region_size") // 4096
        free = bytearray(b"\xff" * (pages // 8))
        for page in self.used:
            free[page // 8] &= ~(1 << page % 8)
        at = abi.VN_BR_FREE_PAGES
        self.view[at : at + len(free)] = free
        self._say_warm(
            state=abi.WarmState.FROZEN,
            resume_cr3=slot + abi.VN_SLOT_PAGE_TABLES,
            resume_entry=0xFFFFFFFFC0001000,
            resume_cr4=0x20,
            free_pages=pages - len(self.used),
            frozen_tsc=self.machine.tsc(),
        )

    def declare_ready(self) -> None:
        """User space may be frozen from now on."""
        self.ready = True
        self._say_warm(state=abi.WarmState.READY)
        self._ring()

    def _say_warm(self, **words: int) -> None:
        for name, value in words.items():
            abi.WARM.put(self.view, abi.VN_BR_WARM, name, value)

    def _take_freeze(self) -> int:
        """Errno of the command; what a task does that will not freeze."""
        if not self.ready:
            return errno.EAGAIN
        if self.unfreezable:
            abi.WARM.put(self.view, abi.VN_BR_WARM, "reason", self.unfreezable)
            self._say_warm(state=abi.WarmState.REFUSED, error=errno.EBUSY)
        else:
            self.freeze()
        return 0

    def beat(self, times: int = 1) -> None:
        """Every CPU beats in every layer that does not hang; the first user beat is RUNNING."""
        if not self.alive:
            return
        for cpu in range(self.ncpus):
            at = abi.VN_BR_BEATS + cpu * abi.BEAT.size
            beat = abi.BEAT.unpack(self.view, at)
            counts, tscs = list(beat.count), list(beat.tsc)
            for layer in set(Layer) - self.hung:
                counts[layer] = counts[layer] + times & (1 << 64) - 1
                tscs[layer] = self.machine.tsc()
            self.view[at : at + abi.BEAT.size] = abi.BEAT.pack(
                beat._replace(count=tuple(counts), tsc=tuple(tscs))
            )
        if Layer.USER not in self.hung and self._said("state") == abi.State.AGENT:
            self._say("user_tsc", self.machine.tsc())
            self._say("state", abi.State.RUNNING)
            self._ring()

    def crash(
        self,
        reason: abi.Reason = abi.Reason.PANIC,
        cpu: int = 0,
        message: str = "Fatal exception",
        kmsg: bytes = b"Kernel panic - not syncing: Fatal exception\n",
    ) -> None:
        """The panic path: beats stop, frames of all CPUs, record and log tail, two rings."""
        if not self.alive:
            return
        tsc = self.machine.tsc()
        self.hung = set(Layer)
        self._say("state", abi.State.CRASHED)
        abi.CRASH.put(self.view, abi.VN_BR_CRASH, "state", abi.VN_CRASH_WRITING)
        self._ring()
        for index in range(self.ncpus):
            crashed = abi.VN_FRAME_CRASHED if index == cpu else 0
            self._save(abi.VN_BR_CRASH_REGS, index, crashed)
        tail = kmsg[-abi.VN_KMSG_SIZE :]
        self.view[abi.VN_BR_KMSG : abi.VN_BR_KMSG + len(tail)] = tail
        record = abi.Crash(
            state=abi.VN_CRASH_WRITING,
            reason=reason,
            cpu=cpu,
            incarnation=self.incarnation,
            tsc=tsc,
            done_tsc=self.machine.tsc(),
            cpus_saved=(1 << self.ncpus) - 1,
            pid=1,
            kmsg_len=len(tail),
            trapnr=14 if reason is abi.Reason.OOPS else -1,
            reserved=0,
            error_code=0,
            comm="init",
            message=message,
        )
        self.view[abi.VN_BR_CRASH : abi.VN_BR_CRASH + abi.CRASH.size] = abi.CRASH.pack(record)
        abi.CRASH.put(self.view, abi.VN_BR_CRASH, "state", abi.VN_CRASH_DONE)
        self._ring()

    def halt(self) -> None:
        """An orderly halt."""
        self._end(abi.State.HALTED)

    def reboot(self) -> None:
        """The kernel asks for a reboot and is parked by its agent."""
        self._end(abi.State.REBOOT)

    def hang(self, layer: Layer) -> None:
        """`layer` and those above it stop beating; Layer.IRQ is a hang with interrupts off."""
        self.hung |= {each for each in Layer if each >= layer}
        self.deaf = layer is Layer.IRQ

    def scribble(self, seed: int) -> None:
        """Random bytes all over the bridge, the root's half included."""
        if self.alive:
            self.view[:] = random.Random(seed).randbytes(len(self.view))

    def print(self, data: bytes) -> None:
        """Console output."""
        size, at = abi.VN_CONSOLE_OUT_BYTES, abi.VN_BR_CONSOLE_OUT
        head = abi.RING.get(self.view, at, "head")
        for offset, byte in enumerate(data):
            self.view[at + abi.RING.size + (head + offset) % size] = byte
        abi.RING.put(self.view, at, "head", head + len(data) & 0xFFFFFFFF)

    def keys(self) -> bytes:
        """Takes what was typed on the console."""
        size, at = abi.VN_CONSOLE_IN_BYTES, abi.VN_BR_CONSOLE_IN
        head, tail = (abi.RING.get(self.view, at, name) for name in ("head", "tail"))
        abi.RING.put(self.view, at, "tail", head)
        start = at + abi.RING.size
        return bytes(self.view[start + (tail + n) % size] for n in range(head - tail & 0xFFFFFFFF))

    def on_ipi(self, vector: int) -> None:
        """The root rang: take the command."""
        if not self.alive or self.deaf or vector != self.VECTOR or not self._said("abi"):
            return
        self._say("rung", self._said("rung") + 1)
        self._say("grants_done", self._granted())
        side = abi.ROOT_SIDE.unpack(self.view, abi.VN_BR_ROOT)
        if side.cmd_seq == self._said("cmd_done"):
            return
        allowed = side.cmd is not abi.Cmd.INJECT or side.flags & abi.VN_F_INJECT
        result = 0 if allowed else errno.EPERM
        if side.cmd is abi.Cmd.FREEZE:
            result = self._take_freeze()
        self._say("cmd_result", result)
        self._say("cmd_done", side.cmd_seq)
        if side.cmd is abi.Cmd.INJECT and allowed:
            self.inject(side.cmd_arg)
        elif side.cmd in (abi.Cmd.HALT, abi.Cmd.REBOOT):
            (self.halt if side.cmd is abi.Cmd.HALT else self.reboot)()

    def _granted(self) -> int:
        """The number of the table of grants that stands there."""
        return int(abi.GRANTS.get(self.view, abi.VN_BR_GRANTS, "seq"))

    def inject(self, arg: int) -> None:
        """A fault of kind abi.Inject in the low byte, its CPU in the next."""
        kind, cpu = abi.Inject(arg & 0xFF), arg >> 8 & 0xFF
        self.injected.append((kind, cpu))
        actions: dict[abi.Inject, Callable[[], None]] = {
            abi.Inject.PANIC: lambda: self.crash(cpu=cpu, message="sysrq triggered crash"),
            abi.Inject.OOPS: lambda: self.crash(abi.Reason.OOPS, cpu, "NULL pointer dereference"),
            abi.Inject.HANG: lambda: self.hang(Layer.USER),
            abi.Inject.SOFTLOCKUP: lambda: self.hang(Layer.SCHED),
            abi.Inject.IRQHANG: lambda: self.hang(Layer.IRQ),
            abi.Inject.HALT: self.halt,
            abi.Inject.REBOOT: self.reboot,
            abi.Inject.STUCK: self._get_stuck,
        }
        actions[kind]()

    def _get_stuck(self) -> None:
        self.unfreezable = 'task "vnode_inject/0" (pid 99) does not freeze'

    def on_nmi(self, cpu: int) -> None:
        """A portal NMI: saves the registers or parks, as the mailbox asks."""
        box = self._box(cpu)
        if not self.alive or not box.nmi:
            return
        self._answer(cpu, nmi=0, saved=box.save_seq)
        if box.saved != box.save_seq and box.state == abi.VN_DBG_RUNNING:
            self._save(abi.VN_BR_DEBUG_REGS, cpu, 0)
        if box.request == abi.VN_DBG_PARK and box.seq != box.done:
            self.stop(cpu, abi.Cause.ASKED)

    def stop(self, cpu: int, cause: abi.Cause, rip: int | None = None, dr6: int = 0) -> None:
        """A CPU parks: it was asked to, or ran into what the debugger had set."""
        box = self._box(cpu)
        if box.state == abi.VN_DBG_RUNNING:
            self._save(abi.VN_BR_DEBUG_REGS, cpu, 0, rip)
            stopped = {"cause": cause, "dr6": dr6, "stops": box.stops + 1}
            self._answer(cpu, **stopped, stop_tsc=self.machine.tsc(), state=abi.VN_DBG_PARKED)
        self._answer(cpu, done=box.seq)
        if cause is not abi.Cause.ASKED:
            self._ring()

    def obey(self) -> None:
        """What a parked CPU sees in its mailbox: it may run again.  A step ends at once."""
        for cpu in range(self.ncpus):
            box = self._box(cpu)
            parked = box.state == abi.VN_DBG_PARKED
            if not parked or box.seq == box.done or box.request == abi.VN_DBG_PARK:
                continue
            self._answer(cpu, state=abi.VN_DBG_RUNNING, done=box.seq)
            if box.flags & abi.VN_DBG_F_STEP:
                rip = self._rip(cpu) + 1
                self.stop(cpu, abi.Cause.DEBUG, rip, dr6=1 << 14)

    def let_run(self) -> None:
        """Nobody has control any more."""
        for cpu in range(self.ncpus):
            self._answer(cpu, state=abi.VN_DBG_RUNNING)

    def _box(self, cpu: int) -> abi.Debug:
        """The mailbox; a scribbled cause is no reason for an agent to stumble."""
        at = mailbox_at(cpu)
        with suppress(ValueError):
            return abi.DEBUG.unpack(self.view, at)
        abi.DEBUG.put(self.view, at, "cause", abi.Cause.NONE)
        return abi.DEBUG.unpack(self.view, at)

    def _answer(self, cpu: int, **words: int) -> None:
        for name, value in words.items():
            abi.DEBUG.put(self.view, mailbox_at(cpu), name, value)

    def _rip(self, cpu: int) -> int:
        frame = abi.FRAME.unpack(self.view, abi.VN_BR_DEBUG_REGS + cpu * abi.FRAME.size)
        return int(frame.reg("rip"))

    def _end(self, state: abi.State) -> None:
        if self.alive:
            self.hung = set(Layer)
            self._say("state", state)
            self._ring()

    def _save(self, area: int, cpu: int, flags: int, rip: int | None = None) -> None:
        blank = abi.FRAME.unpack(bytes(abi.FRAME.size))
        regs = [0] * len(abi.USER_REGS)
        regs[abi.USER_REGS.index("rip")] = 0xFFFFFFFF81000000 + cpu if rip is None else rip
        regs[abi.USER_REGS.index("rsp")] = 0xFFFFC90000000000 + cpu * 0x4000
        regs[abi.USER_REGS.index("cs")] = 0x10
        flags |= abi.VN_FRAME_GP | abi.VN_FRAME_CONTROL
        frame = blank._replace(flags=flags, tsc=self.machine.tsc(), regs=tuple(regs))
        seq_write(abi.FRAME, self.view, area + cpu * abi.FRAME.size, frame)

    def _say(self, name: str, value: int) -> None:
        abi.VNODE_SIDE.put(self.view, abi.VN_BR_VNODE, name, value)

    def _said(self, name: str) -> int:
        return int(abi.VNODE_SIDE.get(self.view, abi.VN_BR_VNODE, name))

    def _ring(self) -> None:
        self._say("rings", self._said("rings") + 1)
        self.machine.ring(self.vnode)
