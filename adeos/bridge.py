# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and writes bridges: the memory shared between the root and a vnode, and the root bridge.

A vnode can write all over its bridge, the root's half included.  So nothing read here is trusted:
values are bounded, sequence counters are retried a bounded number of times, text is made printable.
Readers raise BridgeError for what no agent writes and nothing else; beats and registers are numbers
for which any value is possible, and judging them is the caller's work.
"""

import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from adeos import abi
from adeos.abi import Range
from adeos.copying import fill
from adeos.errors import BridgeError
from adeos.layout import Layout
from adeos.machine import Machine
from adeos.text import printable

SEQ_RETRIES = 100
"""A writer holds its sequence counter odd for less than a microsecond, unless it is preempted."""
SPINS = 10

_MASK32 = 0xFFFFFFFF
_PROGRESS = struct.Struct("<5I")
_DEBUG_STATE = abi.DEBUG.members["state"].offset
_NO_GRANT = abi.GRANT.unpack(bytes(abi.GRANT.size))
_NO_STATUS = abi.STATUS.unpack(bytes(abi.STATUS.size))
_MAX_NOTE = 0x10000  # VMCOREINFO is a page
_MAX_ROOT_CPUS = 8192  # NR_CPUS, arch/x86/Kconfig


def seq_read(layout: Layout[Any], view: memoryview, at: int) -> Any:
    """A struct guarded by its member `seq`, in one consistent state; else BridgeError."""
    for attempt in range(SEQ_RETRIES):
        before = layout.get(view, at, "seq")
        if before & 1:
            if attempt >= SPINS:  # on a machine of one CPU only sleep lets the writer go on
                time.sleep(1e-4)
            continue
        copy = bytes(view[at : at + layout.size])
        if layout.get(view, at, "seq") == before:
            return _unpack(layout, copy, 0)
    raise BridgeError(f"{layout.c_name} at {at:#x} of the bridge is being written for ever")


def seq_write(layout: Layout[Any], view: memoryview, at: int, value: Any) -> None:
    """Writes a struct guarded by its member `seq`, which goes on from what stands there."""
    seq_store(layout, view, at, bytearray(layout.pack(value)))


def seq_store(layout: Layout[Any], view: memoryview, at: int, data: bytearray) -> None:
    """The same with a packed struct, whose own `seq` is overwritten."""
    odd = layout.get(view, at, "seq") | 1
    layout.put(view, at, "seq", odd)
    layout.put(data, 0, "seq", odd)
    view[at : at + layout.size] = data
    layout.put(view, at, "seq", odd + 1 & _MASK32)


def _unpack(layout: Layout[Any], view: bytes | memoryview, at: int) -> Any:
    try:
        return layout.unpack(view, at)
    except ValueError as error:
        raise BridgeError(str(error), "no agent writes that") from None


def _check(ok: bool, what: str, value: int) -> None:
    if not ok:
        raise BridgeError(f"{what} is {value:#x}", "no agent writes that")


class Bridge:
    """A vnode's bridge over `view` (VN_BRIDGE_SIZE bytes, writable for the root's writers).

    `region`, when known, bounds the addresses the vnode gives.
    """

    def __init__(self, view: memoryview, region: Range | None = None) -> None:
        if len(view) < abi.VN_BRIDGE_SIZE:
            raise BridgeError(f"bridge of {len(view):#x} bytes, {abi.VN_BRIDGE_SIZE:#x} needed")
        self.view = view[: abi.VN_BRIDGE_SIZE]
        self.region = region

    @classmethod
    def open(cls, machine: Machine, region: Range, *, writable: bool = False) -> "Bridge":
        """The bridge of the vnode in `region`."""
        base = region.base + abi.VN_OFF_BRIDGE
        return cls(machine.view(base, abi.VN_BRIDGE_SIZE, writable=writable), region)

    # Readers

    def root_side(self) -> abi.RootSide:
        """The root's half, as it stands there now; BridgeError unless of this ABI."""
        side: abi.RootSide = _unpack(abi.ROOT_SIDE, self.view, abi.VN_BR_ROOT)
        _check(side.magic == abi.VN_BRIDGE_MAGIC, "vn_root_side.magic", side.magic)
        _check(side.abi == abi.VN_ABI_VERSION, "vn_root_side.abi", side.abi)
        _check(side.size == abi.VN_BRIDGE_SIZE, "vn_root_side.size", side.size)
        _check(0 < side.vnode_id < abi.VN_MAX_VNODES, "vn_root_side.vnode_id", side.vnode_id)
        _check(0 < side.ncpus <= abi.VN_MAX_CPUS, "vn_root_side.ncpus", side.ncpus)
        return side

    def vnode_side(self) -> abi.VnodeSide | None:
        """What the agent says, None before it is loaded.  `vmcoreinfo_pa` lies in the region."""
        if abi.VNODE_SIDE.get(self.view, abi.VN_BR_VNODE, "abi") == 0:
            return None
        side: abi.VnodeSide = _unpack(abi.VNODE_SIDE, self.view, abi.VN_BR_VNODE)
        _check(side.abi == abi.VN_ABI_VERSION, "vn_vnode_side.abi", side.abi)
        _check(0 < side.ncpus <= abi.VN_MAX_CPUS, "vn_vnode_side.ncpus", side.ncpus)
        vector_ok = side.vector == 0 or 0x20 <= side.vector <= 0xFF
        _check(vector_ok, "vn_vnode_side.vector", side.vector)
        note_size = side.vmcoreinfo_size
        _check(note_size <= _MAX_NOTE, "vn_vnode_side.vmcoreinfo_size", note_size)
        if self.region is not None and side.vmcoreinfo_pa:
            note = Range(side.vmcoreinfo_pa, note_size)
            _check(self.region.contains(note), "vn_vnode_side.vmcoreinfo_pa", note.base)
        return side

    def beats(self, ncpus: int) -> tuple[abi.Beat, ...]:
        """Beats of the first `ncpus` CPUs; counters may jump or run backwards."""
        at = abi.VN_BR_BEATS
        return tuple(
            abi.BEAT.unpack(self.view, at + cpu * abi.BEAT.size) for cpu in range(_cpus(ncpus))
        )

    def beat_counts(self, ncpus: int) -> Callable[[], tuple[int, ...]]:
        """A reader for the watch tick: all beat counts, entry 4 * cpu + layer, in one unpacking."""
        return self._beat_words(ncpus, "count")

    def beat_stamps(self, ncpus: int) -> Callable[[], tuple[int, ...]]:
        """The same for the TSC of each last beat, as the vnode says."""
        return self._beat_words(ncpus, "tsc")

    def _beat_words(self, ncpus: int, member: str) -> Callable[[], tuple[int, ...]]:
        before, size = abi.BEAT.members[member].offset, abi.BEAT.members[member].size
        one = f"{before}x{size // 8}Q{abi.BEAT.size - before - size}x"
        return partial(
            struct.Struct("<" + one * _cpus(ncpus)).unpack_from, self.view, abi.VN_BR_BEATS
        )

    def warm(self) -> abi.Warm:
        """How far it is with being frozen, and how to resume it; judged by whoever uses it."""
        warm: abi.Warm = _unpack(abi.WARM, self.view, abi.VN_BR_WARM)
        return warm

    def free_pages(self) -> bytes:
        """A bit a page of the region, from the lowest: free when the vnode froze."""
        at = abi.VN_BR_FREE_PAGES
        return bytes(self.view[at : at + abi.VN_FREE_PAGES_BYTES])

    def crash(self) -> abi.Crash | None:
        """The crash record, None when there is none.  Only VN_CRASH_DONE means complete."""
        if abi.CRASH.get(self.view, abi.VN_BR_CRASH, "state") == abi.VN_CRASH_EMPTY:
            return None
        crash: abi.Crash = _unpack(abi.CRASH, self.view, abi.VN_BR_CRASH)
        known = crash.state in (abi.VN_CRASH_WRITING, abi.VN_CRASH_DONE)
        _check(known, "vn_crash.state", crash.state)
        _check(crash.cpu < abi.VN_MAX_CPUS, "vn_crash.cpu", crash.cpu)
        _check(crash.cpus_saved < 1 << abi.VN_MAX_CPUS, "vn_crash.cpus_saved", crash.cpus_saved)
        _check(crash.kmsg_len <= abi.VN_KMSG_SIZE, "vn_crash.kmsg_len", crash.kmsg_len)
        return crash

    def crash_frame(self, cpu: int) -> abi.Frame | None:
        """Registers of a CPU at the crash, None when they were not saved."""
        return self._frame(abi.VN_BR_CRASH_REGS, cpu)

    def sample_frame(self, cpu: int) -> abi.Frame | None:
        """Registers of a CPU when it was last sampled, None when it never was."""
        return self._frame(abi.VN_BR_SAMPLES, cpu)

    def debug_frame(self, cpu: int) -> abi.Frame | None:
        """Registers of a CPU for its last debug request, None when there are none."""
        return self._frame(abi.VN_BR_DEBUG_REGS, cpu)

    def _frame(self, area: int, cpu: int) -> abi.Frame | None:
        return _frame_at(self.view, area + _cpu(cpu) * abi.FRAME.size)

    def kmsg(self) -> str:
        """The kernel log's tail in the crash record, printable lines; "" when there is none."""
        crash = self.crash()
        if crash is None:
            return ""
        tail = bytes(self.view[abi.VN_BR_KMSG : abi.VN_BR_KMSG + crash.kmsg_len])
        return printable(tail, keep="\n\t")

    def debug(self, cpu: int) -> abi.Debug:
        """The debug mailbox of a CPU."""
        mailbox: abi.Debug = _unpack(abi.DEBUG, self.view, mailbox_at(cpu))
        _check(mailbox.state <= abi.VN_DBG_PARKED, "vn_debug.state", mailbox.state)
        return mailbox

    def debug_progress(self, cpu: int) -> tuple[int, int, int]:
        """`state`, `done` and `stops` of a CPU's debug mailbox: debug() in a tenth of the time."""
        at = mailbox_at(cpu) + _DEBUG_STATE
        state, done, _saved, _cause, stops = _PROGRESS.unpack_from(self.view, at)
        _check(state <= abi.VN_DBG_PARKED, "vn_debug.state", state)
        return state, done, stops

    def control(self) -> abi.Control:
        """A debugger's hold on the vnode, as its agent sees it."""
        control: abi.Control = abi.CONTROL.unpack(self.view, abi.VN_BR_CONTROL)
        return control

    def console_reader(self) -> "ConsoleReader":
        """A reader of the vnode's console output with a position of its own."""
        return ConsoleReader(self.view)

    # The root's writers

    def init(self, side: abi.RootSide, *, empty: bool = False) -> None:
        """Writes the root's half into an empty bridge, its magic last; `empty`: it is already."""
        if not empty:
            fill(self.view, 0, abi.VN_BRIDGE_SIZE)
        ring = abi.RING
        ring.put(self.view, abi.VN_BR_CONSOLE_OUT, "size", abi.VN_CONSOLE_OUT_BYTES)
        ring.put(self.view, abi.VN_BR_CONSOLE_IN, "size", abi.VN_CONSOLE_IN_BYTES)
        data = abi.ROOT_SIDE.pack(side._replace(magic=0))
        self.view[abi.VN_BR_ROOT : abi.VN_BR_ROOT + len(data)] = data
        abi.ROOT_SIDE.put(self.view, abi.VN_BR_ROOT, "magic", abi.VN_BRIDGE_MAGIC)

    def stamp_start(self, tsc: int, wall_ns: int) -> None:
        """Writes when this incarnation was started."""
        abi.ROOT_SIDE.put(self.view, abi.VN_BR_ROOT, "start_tsc", tsc)
        abi.ROOT_SIDE.put(self.view, abi.VN_BR_ROOT, "wall_ns", wall_ns)

    def command(self, cmd: abi.Cmd, arg: int = 0) -> int:
        """Writes a command; the caller then rings the portal (Machine.ipi).  Its number."""
        number = abi.ROOT_SIDE.get(self.view, abi.VN_BR_ROOT, "cmd_seq") + 1 & _MASK32
        abi.ROOT_SIDE.put(self.view, abi.VN_BR_ROOT, "cmd", cmd)
        abi.ROOT_SIDE.put(self.view, abi.VN_BR_ROOT, "cmd_arg", arg)
        abi.ROOT_SIDE.put(self.view, abi.VN_BR_ROOT, "cmd_seq", number)
        return int(number)

    def command_result(self, number: int) -> int | None:
        """0 or a positive errno of the command `number`.

        None while the agent has not taken it, and again once it has taken a later one.
        """
        side = self.vnode_side()
        return side.cmd_result if side is not None and side.cmd_done == number else None

    def grant(self, table: Sequence[tuple[abi.Grant, abi.Status]], root_pa: int = 0) -> bool:
        """Writes which vnodes this one may look at; the caller then rings the portal.

        `root_pa`: the root bridge, for the successor, which may look at the root as well.  False,
        and nothing is written, when just that stands there.
        """
        if len(table) > abi.VN_MAX_GRANTS:
            raise BridgeError(f"{len(table)} grants for a vnode, at most {abi.VN_MAX_GRANTS} fit")
        written = [abi.GRANTS.get(self.view, abi.VN_BR_GRANTS, key) for key in ("n", "root_pa")]
        if not table and written == [0, root_pa]:
            return False
        spare = abi.VN_MAX_GRANTS - len(table)
        value = abi.Grants(
            seq=abi.GRANTS.get(self.view, abi.VN_BR_GRANTS, "seq"),
            n=len(table),
            root_pa=root_pa,
            grant=(*(grant for grant, _ in table), *[_NO_GRANT] * spare),
            status=(*(status for _, status in table), *[_NO_STATUS] * spare),
        )
        end = abi.VN_BR_GRANTS + abi.GRANTS.size
        if value.seq % 2 == 0 and abi.GRANTS.pack(value) == self.view[abi.VN_BR_GRANTS : end]:
            return False
        seq_write(abi.GRANTS, self.view, abi.VN_BR_GRANTS, value)
        return True

    def grants_taken(self) -> bool:
        """Whether the agent goes by what was granted last; it is not there yet: it will."""
        side = self.vnode_side()
        seq = abi.GRANTS.get(self.view, abi.VN_BR_GRANTS, "seq")
        return side is None or side.grants_done == seq

    def asked(self) -> int:
        """Number of the request that waits for an answer; 0 when none does."""
        seq = int(abi.ASK.get(self.view, abi.VN_BR_ASK, "seq"))
        return 0 if seq == abi.ASK.get(self.view, abi.VN_BR_ASK, "done") else seq

    def ask(self) -> tuple[abi.Ask, bytes]:
        """The request as it stands there now, with the bytes of a poke; BridgeError."""
        request: abi.Ask = _unpack(abi.ASK, bytes(self.view[abi.VN_BR_ASK :][: abi.ASK.size]), 0)
        if request.op is not abi.AskOp.POKE:
            return request, b""
        _check(0 < request.number <= abi.VN_ASK_DATA_MAX, "vn_ask.number", request.number)
        return request, bytes(self.view[abi.VN_BR_ASK_DATA :][: request.number])

    def answer(self, seq: int, error: int, holder: int = 0, until_tsc: int = 0) -> None:
        """Answers request `seq`: an errno, 0 = done; for a lease also who has it until when."""
        for key, value in (("error", error), ("holder", holder), ("until_tsc", until_tsc)):
            abi.ASK.put(self.view, abi.VN_BR_ASK, key, value)
        abi.ASK.put(self.view, abi.VN_BR_ASK, "done", seq)

    def ask_registers(self, cpu: int) -> int:
        """Asks a CPU to save its registers; the caller then sends the NMI (Machine.nmi).

        The request's number: Debug.saved once it is done.
        """
        at = mailbox_at(cpu)
        number = abi.DEBUG.get(self.view, at, "save_seq") + 1 & _MASK32
        abi.DEBUG.put(self.view, at, "save_seq", number)
        abi.DEBUG.put(self.view, at, "nmi", 1)
        return int(number)

    def console_write(self, data: bytes) -> int:
        """Puts what fits into the console input ring; the number of bytes taken, 0 when full."""
        at = abi.VN_BR_CONSOLE_IN
        size = abi.VN_CONSOLE_IN_BYTES
        head = abi.RING.get(self.view, at, "head")
        used = head - abi.RING.get(self.view, at, "tail") & _MASK32
        _check(used <= size, "fill of the console input ring", used)
        start = at + abi.RING.size
        taken = data[: size - used]
        first = min(len(taken), size - head % size)
        self.view[start + head % size : start + head % size + first] = taken[:first]
        self.view[start : start + len(taken) - first] = taken[first:]
        abi.RING.put(self.view, at, "head", head + len(taken) & _MASK32)
        return len(taken)


def _cpus(ncpus: int) -> int:
    if not 0 <= ncpus <= abi.VN_MAX_CPUS:
        raise BridgeError(f"{ncpus} CPUs asked for, a vnode has at most {abi.VN_MAX_CPUS}")
    return ncpus


def _cpu(cpu: int) -> int:
    if not 0 <= cpu < abi.VN_MAX_CPUS:
        raise BridgeError(f"CPU {cpu} asked for, a vnode's CPUs are 0..{abi.VN_MAX_CPUS - 1}")
    return cpu


def _frame_at(view: memoryview, at: int) -> abi.Frame | None:
    """A struct vn_frame, None when nobody has saved registers there."""
    frame: abi.Frame = seq_read(abi.FRAME, view, at)
    return frame if frame.flags & abi.VN_FRAME_GP else None


def mailbox_at(cpu: int) -> int:
    """Offset of a CPU's debug mailbox in the bridge."""
    return abi.VN_BR_DEBUG + _cpu(cpu) * abi.DEBUG.size


class Output(NamedTuple):
    """A piece of console output."""

    data: bytes
    """As the vnode wrote it, terminal escapes and all: see adeos.text before showing it."""
    lost: int
    """Bytes before it that were overwritten before they were read."""


class ConsoleReader:
    """Reads a console output ring that overwrites; begins with the oldest byte that is there."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        head = self._head()
        # Until the ring is full for the first time, the bytes behind head are no output.
        self._position = max(0, head - abi.VN_CONSOLE_OUT_BYTES)

    def _head(self) -> int:
        return int(abi.RING.get(self._view, abi.VN_BR_CONSOLE_OUT, "head"))

    def read(self) -> Output:
        """What came since the last call; empty data when nothing did."""
        size = abi.VN_CONSOLE_OUT_BYTES
        head = self._head()
        fresh = head - self._position & _MASK32
        lost = max(0, fresh - size)
        fresh -= lost
        start = abi.VN_BR_CONSOLE_OUT + abi.RING.size
        ring = self._view[start : start + size]
        begin = head - fresh & _MASK32
        first = min(fresh, size - begin % size)
        data = bytes(ring[begin % size : begin % size + first]) + bytes(ring[: fresh - first])
        # Bytes that the producer overwrote during the copy are no longer what they were.
        torn = max(0, (self._head() - begin & _MASK32) - size) if fresh else 0
        torn = min(torn, fresh)
        self._position = head
        return Output(data[torn:], lost + torn)


class RootBridge:
    """The root bridge over `view` (VN_ROOT_SIZE bytes): the daemon's word, for observers."""

    def __init__(self, view: memoryview) -> None:
        if len(view) < abi.VN_ROOT_SHADOW + abi.VN_MAX_VNODES * abi.STATUS.size:
            raise BridgeError(f"root bridge of {len(view):#x} bytes is too small")
        self.view = view

    @classmethod
    def open(cls, machine: Machine, *, writable: bool = False) -> "RootBridge":
        """The root bridge of `machine`."""
        base = machine.info().root_pa
        return cls(machine.view(base, abi.VN_ROOT_SIZE, writable=writable))

    def head(self) -> abi.RootHead | None:
        """The daemon's signs of life, None when no daemon has run since the machine booted."""
        head: abi.RootHead = abi.ROOT_HEAD.unpack(self.view, 0)
        if head.magic == 0:
            return None
        _check(head.magic == abi.VN_ROOT_MAGIC, "vn_root_head.magic", head.magic)
        _check(head.abi == abi.VN_ABI_VERSION, "vn_root_head.abi", head.abi)
        return head

    def status(self, vnode: int) -> abi.Status | None:
        """What the daemon says of a vnode, None when it knows none of that id."""
        status: abi.Status = seq_read(abi.STATUS, self.view, _entry(vnode))
        if status.id == 0:
            return None
        _check(status.id == vnode, f"vn_status.id of vnode {vnode}", status.id)
        _check(status.ncpus <= abi.VN_MAX_CPUS, "vn_status.ncpus", status.ncpus)
        return status

    def statuses(self) -> list[abi.Status]:
        """All vnodes the daemon knows, by id."""
        every = (self.status(vnode) for vnode in range(1, abi.VN_MAX_VNODES))
        return [status for status in every if status is not None]

    def last(self) -> abi.Last | None:
        """The kernel's signs of life, None where kmb.ko gives none.  `range`: the valid ones."""
        if abi.LAST.get(self.view, abi.VN_ROOT_LAST, "magic") != abi.VN_LAST_MAGIC:
            return None
        last: abi.Last = _unpack(abi.LAST, bytes(self.view[abi.VN_ROOT_LAST :][: abi.LAST.size]), 0)
        _check(last.abi == abi.VN_ABI_VERSION, "vn_last.abi", last.abi)
        _check(last.nranges <= abi.VN_LAST_RANGES, "vn_last.nranges", last.nranges)
        _check(last.cpu < _MAX_ROOT_CPUS, "vn_last.cpu", last.cpu)
        _check(last.successor < abi.VN_MAX_VNODES, "vn_last.successor", last.successor)
        _check(last.vmcoreinfo_size <= _MAX_NOTE, "vn_last.vmcoreinfo_size", last.vmcoreinfo_size)
        return last._replace(range=last.range[: last.nranges])

    def last_frame(self) -> abi.Frame | None:
        """Registers of the root's CPU that panicked, None when none did."""
        return _frame_at(self.view, abi.VN_ROOT_LAST_REGS)

    # The daemon's writers

    def init(self, head: abi.RootHead, *, keep: bool = False) -> int:
        """Takes the root bridge over: empty table, `head`, magic last.  The new epoch.

        `keep`: the table of an earlier daemon stays as it is at every moment, for whoever is
        killed here must leave it to the next.  An entry that it was killed over is made whole.
        """
        old = abi.ROOT_HEAD.unpack(self.view, 0)
        known = old.magic == abi.VN_ROOT_MAGIC
        epoch = old.epoch + 1 & _MASK32 if known else 1
        if keep and known:
            self._mend()
        else:
            table = abi.VN_MAX_VNODES * abi.STATUS.size
            for start, end in (
                (0, abi.VN_ROOT_TABLE + table),
                (abi.VN_ROOT_SHADOW, abi.VN_ROOT_SHADOW + table),
            ):
                self.view[start:end] = bytes(end - start)
        magic = abi.VN_ROOT_MAGIC if keep and known else 0
        head = head._replace(magic=magic, abi=abi.VN_ABI_VERSION, epoch=epoch)
        self.view[: abi.ROOT_HEAD.size] = abi.ROOT_HEAD.pack(head)
        abi.ROOT_HEAD.put(self.view, 0, "magic", abi.VN_ROOT_MAGIC)
        return epoch

    def beat(self, count: int, tsc: int, late_ticks: int) -> None:
        """Writes a watch tick."""
        abi.ROOT_HEAD.put(self.view, 0, "late_ticks", late_ticks)
        abi.ROOT_HEAD.put(self.view, 0, "beat_tsc", tsc)
        abi.ROOT_HEAD.put(self.view, 0, "beat", count)

    def farewell(self) -> None:
        """The daemon ends in order: nobody is to take over from it."""
        abi.ROOT_HEAD.put(self.view, 0, "pid", 0)

    def publish(self, status: abi.Status) -> None:
        """Writes a vnode's entry (its `seq` is kept here)."""
        self._write(status.id, status)

    def retract(self, vnode: int) -> None:
        """Empties a vnode's entry."""
        self._write(vnode, abi.STATUS.unpack(bytes(abi.STATUS.size)))

    def _write(self, vnode: int, status: abi.Status) -> None:
        """Both copies, one after the other: a kill at any moment leaves one of them whole."""
        data = bytearray(abi.STATUS.pack(status))  # 0.1 ms under emulation, four times a restart
        seq_store(abi.STATUS, self.view, _shadow(vnode), data)
        seq_store(abi.STATUS, self.view, _entry(vnode), data)

    def _mend(self) -> None:
        """Finishes or undoes the write that an earlier daemon was killed over."""
        for vnode in range(1, abi.VN_MAX_VNODES):
            copies = (_entry(vnode), _shadow(vnode))
            odd = [bool(abi.STATUS.get(self.view, at, "seq") & 1) for at in copies]
            if odd == [True, False]:
                whole, torn = copies[1], copies[0]
            elif odd == [False, True]:
                whole, torn = copies
            else:
                continue
            try:
                status = abi.STATUS.unpack(self.view, whole)
                if status.id in (0, vnode):
                    seq_write(abi.STATUS, self.view, torn, status)
            except ValueError:
                continue  # scribbled over: left to whoever reads it


def _entry(vnode: int) -> int:
    if not 0 < vnode < abi.VN_MAX_VNODES:
        raise BridgeError(f"vnode {vnode} asked for, ids are 1..{abi.VN_MAX_VNODES - 1}")
    return abi.VN_ROOT_TABLE + vnode * abi.STATUS.size


def _shadow(vnode: int) -> int:
    """Offset of the other copy of a vnode's entry, which nobody but a next daemon reads."""
    return _entry(vnode) - abi.VN_ROOT_TABLE + abi.VN_ROOT_SHADOW
