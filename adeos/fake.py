# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine in memory for tests, with vnodes that play their agents over real bridges.

FakeMachine keeps the rules of /dev/kmb: claims, bounds, one owner a CPU, parked before started.
Limits: no kernel runs and no code is executed; the TSC is the clock given; a hung vnode is parked
at once unless its CPU is in `unparkable`.
"""

import mmap
import os
import time
from collections.abc import Callable, Sequence

from adeos import abi
from adeos.abi import KmbCpu, Range, RootInfo
from adeos.copying import move, same
from adeos.errors import FenceError, HeldError, OwnerError, ParkedError, PlacementError
from adeos.fake_agent import FakeVnode
from adeos.fake_fire import FakeFires
from adeos.fake_root import FakeRoot
from adeos.machine import NO_FACTS, Binding, Event, KernelFacts

__all__ = ["TSC_KHZ", "FakeMachine", "FakeVnode", "root_side"]

TSC_KHZ = 1_000_000
"""So that a TSC cycle of the default clock is a nanosecond."""

FIRST_VECTOR = 0x70
_PAGE = 0x1000


class FakeMachine(FakeFires, FakeRoot):
    """CPUs 1..`ncpus` (APIC ids the same) and memory given to vnodes; owned by whoever claims it.

    `clock` returns the TSC.  With `boots`, a start makes the vnode's kernel come up to its agent
    at once; `vnodes` holds the FakeVnode of each vnode that was started.
    """

    def __init__(
        self,
        ncpus: int = 3,
        ranges: Sequence[Range] = (Range(0x20000000, 0x20000000), Range(0x140000000, 0x20000000)),
        low: Range = Range(0x10000, 0x80000),  # noqa: B008  (a NamedTuple, immutable)
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        boots: bool = True,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.boots = boots
        self.low = low
        self.root_pa = ranges[0].base
        first = Range(ranges[0].base + abi.VN_ROOT_SIZE, ranges[0].size - abi.VN_ROOT_SIZE)
        self.ranges = (first, *ranges[1:])
        self._memory = [(r, _anonymous(r.size)) for r in (*ranges, low)]
        self._cpus = {n: KmbCpu(n, n, abi.KMB_CPU_IDLE, 0) for n in range(1, ncpus + 1)}
        self._bound: dict[int, Binding] = {}
        self._rings: dict[int, Event] = {}
        self._claimed = False
        self._held: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        """When control of a vnode ended last, TSC."""
        self._broken: dict[int, dict[int, tuple[int, int]]] = {}
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.resumes = True
        """False: a vnode that is resumed from its image says nothing."""
        self.vnodes: dict[int, FakeVnode] = {}
        self.unparkable: set[int] = set()
        """CPUs that will not confirm a parking."""
        self._write_last(abi.LAST.unpack(bytes(abi.LAST.size)))
        self.foreign_owner = 0
        """When not 0, the pid of a process that owns the machine, so that claim() fails."""
        self.foreign_holder = 0
        """When not 0, the pid of a process that controls the vnodes, so that control() fails."""

    def info(self) -> RootInfo:
        return RootInfo(
            abi=abi.VN_ABI_VERSION,
            x2apic=0,
            tsc_khz=TSC_KHZ,
            tsc=self.tsc(),
            boot_apicid=0,
            nranges=len(self.ranges),
            low_base=self.low.base,
            low_size=self.low.size,
            root_pa=self.root_pa,
            owner_pid=self.foreign_owner or (os.getpid() if self._claimed else 0),
            ncpus=len(self._cpus),
            range=self.ranges,
        )

    def cpus(self) -> tuple[KmbCpu, ...]:
        return tuple(self._cpus.values())

    def tsc(self) -> int:
        return self.clock()

    def claim(self) -> None:
        if self.foreign_owner:
            raise OwnerError(f"process {self.foreign_owner} owns the machine")
        self._claimed = True

    def view(self, base: int, size: int, *, writable: bool = False) -> memoryview:
        if writable:
            self._owned()
        wanted = Range(base, size)
        for given, memory in self._memory:
            if size > 0 and given.contains(wanted):
                part = memory[base - given.base : base - given.base + size]
                return part if writable else part.toreadonly()
        raise PlacementError(f"{size:#x} bytes at {base:#x} are not given to vnodes")

    def bind(self, vnode: int, cpus: Sequence[int], region: Range, slot: Range) -> Binding:
        self._owned()
        self._check_bind(vnode, cpus, region, slot)
        old = self._bound.get(vnode)
        if old is not None and (old.started or old.cpus != tuple(cpus)):
            raise PlacementError(f"vnode {vnode} runs or has other CPUs", "park and unbind it")
        for cpu in cpus:
            self._cpus[cpu] = self._cpus[cpu]._replace(state=abi.KMB_CPU_PARKED, vnode=vnode)
        vector = old.vector if old else FIRST_VECTOR + vnode
        binding = Binding(vnode, tuple(cpus), region, slot, vector, 0, 0, 0, 0)
        self._bound[vnode] = binding
        self.drop_arming(vnode)
        self.drop_armings(region)
        return binding

    def _check_bind(self, vnode: int, cpus: Sequence[int], region: Range, slot: Range) -> None:
        if not 0 < vnode < abi.VN_MAX_VNODES:
            raise PlacementError(f"vnode {vnode}: ids are 1..{abi.VN_MAX_VNODES - 1}")
        if not 0 < len(cpus) <= abi.VN_MAX_CPUS or len(set(cpus)) != len(cpus):
            raise PlacementError(f"vnode {vnode}: CPUs {list(cpus)} are none, too many or repeated")
        for cpu in cpus:
            if cpu not in self._cpus or self._cpus[cpu].vnode not in (0, vnode):
                raise PlacementError(f"vnode {vnode}: CPU {cpu} is not given to vnodes, or taken")
        misaligned = (region.base | region.size) % abi.VN_REGION_ALIGN
        if misaligned or region.size < abi.VN_REGION_MIN:
            raise PlacementError(f"vnode {vnode}: region {region} is misaligned or too small")
        if not any(given.contains(region) for given in self.ranges):
            raise PlacementError(f"vnode {vnode}: region {region} is not given to vnodes")
        misaligned = (slot.base | slot.size) % _PAGE
        if misaligned or slot.size < abi.VN_SLOT_SIZE or not self.low.contains(slot):
            raise PlacementError(f"vnode {vnode}: slot {slot} is not in the low memory")
        for other in self._bound.values():
            clash = other.region.overlaps(region) or other.slot.overlaps(slot)
            if other.vnode != vnode and clash:
                raise PlacementError(f"vnode {vnode}: memory of vnode {other.vnode}")

    def unbind(self, vnode: int) -> None:
        self._owned()
        binding = self._parked(vnode)
        for cpu in binding.cpus:
            self._cpus[cpu] = self._cpus[cpu]._replace(state=abi.KMB_CPU_IDLE, vnode=0)
        del self._bound[vnode]
        self.drop_arming(vnode)
        self.vnodes.pop(vnode, None)

    def query(self, vnode: int) -> Binding | None:
        binding = self._bound.get(vnode)
        until = self._held.get(vnode, 0)
        if binding is None:
            return None
        if until <= self.tsc():
            return binding._replace(held_until=self._ended.get(vnode, until))
        return binding._replace(holder=os.getpid(), held_until=until)

    def start(self, vnode: int, *, cr3: int, entry: int, rsi: int, wait_us: int = 0) -> int:
        self._owned()
        binding = self._parked(vnode)
        if not binding.slot.base + _PAGE <= cr3 < binding.slot.end or cr3 % _PAGE:
            raise PlacementError(f"vnode {vnode}: page tables at {cr3:#x} are not in its slot")
        if not all(binding.region.base <= pa < binding.region.end for pa in (entry, rsi)):
            raise PlacementError(f"vnode {vnode}: entry or boot_params are not in its region")
        return self._run(binding, resumed=False)

    def resume(self, vnode: int, *, cr3: int, entry: int, cr4: int, wait_us: int = 0) -> int:
        self._owned()
        binding = self._parked(vnode)
        inside = binding.slot.contains(Range(cr3 - _PAGE, 2 * _PAGE))
        if not inside or cr3 % _PAGE or entry >> 56 != 0xFF:
            raise PlacementError(f"vnode {vnode}: resume state is not of its kernel")
        if cr4 & ~0x1020 or not cr4 & 0x20:
            raise PlacementError(f"vnode {vnode}: CR4 {cr4:#x} is none to resume with")
        return self._run(binding, resumed=True)

    def _run(self, binding: Binding, *, resumed: bool) -> int:
        tsc = self.tsc()
        self._bound[binding.vnode] = binding._replace(started=1, start_tsc=tsc)
        self._set_cpus(binding, abi.KMB_CPU_STARTED)
        vnode = self.vnodes[binding.vnode] = FakeVnode(self, binding.vnode)
        if resumed and self.resumes:
            vnode.resume()
        elif self.boots and not resumed:
            vnode.boot()
        return tsc

    def park(self, vnode: int, timeout_ms: int = 100) -> int:
        self._owned()
        self.drop_arming(vnode)
        return self.park_now(vnode, timeout_ms)

    def park_now(self, vnode: int, timeout_ms: int = 100) -> int:
        """Whoever owns the machine, as the kernel itself parks."""
        binding = self._binding(vnode)
        lost = self.unparkable.intersection(binding.cpus)
        for cpu in binding.cpus:
            state = abi.KMB_CPU_LOST if cpu in lost else abi.KMB_CPU_PARKED
            self._cpus[cpu] = self._cpus[cpu]._replace(state=state)
        if lost:
            raise FenceError(f"vnode {vnode}: CPU {min(lost)} not parked within {timeout_ms} ms")
        self._end_control(vnode)
        self._bound[vnode] = binding._replace(started=0)
        if vnode in self.vnodes:
            self.vnodes[vnode].alive = False
        return self.tsc()

    def start_in(self, vnode: int, region: Range) -> int:
        """A parked vnode in that region, whoever owns the machine."""
        self._bound[vnode] = self._parked(vnode)._replace(region=region)
        return self._run(self._bound[vnode], resumed=False)

    def nmi(self, vnode: int, cpu: int) -> None:
        if vnode not in self._held:
            self._owned()
        self._index(vnode, cpu)
        if vnode in self.vnodes:
            self.vnodes[vnode].on_nmi(cpu)

    def control(self, vnode: int, lease_ms: int, facts: KernelFacts = NO_FACTS) -> int:
        if not self._binding(vnode).started:
            raise ParkedError(f"vnode {vnode}: its CPUs are parked")
        if self.foreign_holder:
            raise HeldError(f"vnode {vnode}: process {self.foreign_holder} controls it")
        until = self._held[vnode] = self.tsc() + lease_ms * TSC_KHZ
        self._broken.setdefault(vnode, {})
        self._publish_control(vnode)
        return until

    def renew(self, vnode: int, lease_ms: int) -> int:
        self._controlled(vnode)
        return self.control(vnode, lease_ms)

    def release(self, vnode: int) -> None:
        self._end_control(vnode)
        if vnode in self.vnodes:
            self.vnodes[vnode].let_run()

    def poke(self, vnode: int, base: int, data: bytes) -> None:
        binding = self._controlled(vnode)
        wanted = Range(base, len(data))
        if not (binding.region.contains(wanted) or binding.slot.contains(wanted)):
            raise PlacementError(f"vnode {vnode}: {wanted} is no memory of its own")
        self.raw(base, len(data))[:] = data
        self.vnodes[vnode].obey()

    def set_break(self, vnode: int, va: int, pa: int) -> None:
        self._controlled(vnode)
        if pa in self._broken[vnode]:
            raise PlacementError(f"vnode {vnode}: there is a breakpoint already")
        byte = self.raw(pa, 1)
        self._broken[vnode][pa] = va, byte[0]
        byte[0] = 0xCC
        self._publish_control(vnode)

    def clear_break(self, vnode: int, pa: int) -> None:
        self._controlled(vnode)
        if pa not in self._broken[vnode]:
            raise PlacementError(f"vnode {vnode}: there is no breakpoint")
        self.raw(pa, 1)[0] = self._broken[vnode].pop(pa)[1]
        self._publish_control(vnode)

    def _controlled(self, vnode: int) -> Binding:
        if self._held.get(vnode, 0) <= self.tsc():
            raise HeldError(f"vnode {vnode}: this process has no control of it any more")
        return self._binding(vnode)

    def _end_control(self, vnode: int) -> None:
        for pa, (_, byte) in self._broken.pop(vnode, {}).items():
            self.raw(pa, 1)[0] = byte
        if vnode in self._held:
            self._ended[vnode] = self.tsc()
            del self._held[vnode]
            self._publish_control(vnode)

    def _publish_control(self, vnode: int) -> None:
        """What the agent sees of it."""
        broken = tuple(va for va, _ in self._broken.get(vnode, {}).values())
        control = abi.Control(self._held.get(vnode, 0), len(broken), 0, 0, 0, 0, broken)
        at = self._binding(vnode).region.base + abi.VN_OFF_BRIDGE + abi.VN_BR_CONTROL
        self.raw(at, abi.CONTROL.size)[:] = abi.CONTROL.pack(control)

    def ipi(self, vnode: int, cpu: int, vector: int) -> None:
        self._owned()
        self._index(vnode, cpu)
        if not 0x20 <= vector <= 0xFF:
            raise PlacementError(f"vnode {vnode}: vector {vector:#x} is not in 0x20..0xff")
        if vnode in self.vnodes:
            self.vnodes[vnode].on_ipi(vector)

    def clear(self, base: int, size: int) -> None:
        self._idle(Range(base, size))
        self.view(base, size, writable=True)[:] = bytes(size)

    def put_back(self, region: Range, image: Range, spans: bytes) -> int:
        if region.overlaps(image) or not 0 < len(spans) <= abi.KMB_MAX_SPANS * abi.SPAN.size:
            raise PlacementError(f"{region} cannot be filled with these pages")
        to, source = self.view(*region, writable=True), self.view(*image, writable=True)
        self._idle(region)
        written = 0
        for at in range(0, len(spans), abi.SPAN.size):
            span = abi.SPAN.unpack(spans, at)
            for page in range(0, span.size, _PAGE):
                where = span.to + page, source, span.source + page, _PAGE
                if not same(to, *where):
                    move(to, *where)
                    written += 1
        return written

    def _idle(self, memory: Range) -> None:
        """Nobody runs there, and what was armed there is none any more.  PlacementError."""
        for binding in self._bound.values():
            if binding.started and (
                binding.region.overlaps(memory) or binding.slot.overlaps(memory)
            ):
                raise PlacementError(f"{memory} is memory of vnode {binding.vnode}, which runs")
        self.drop_armings(memory)

    def fileno(self) -> int:
        return self._eventfd

    def events(self) -> list[Event]:
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return []
        events, self._rings = list(self._rings.values()), {}
        return events

    def close(self) -> None:
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1
        self._claimed = False

    def ring(self, vnode: int) -> None:
        """The portal of `vnode` to the root, as the vnode's agent rings it."""
        now = self.tsc()
        old = self._rings.get(vnode, Event(vnode, 0, now, now))
        self._rings[vnode] = old._replace(rings=old.rings + 1, last_tsc=now)
        binding = self._binding(vnode)
        self._bound[vnode] = binding._replace(rings=binding.rings + 1)
        os.eventfd_write(self._eventfd, 1)

    def raw(self, base: int, size: int) -> memoryview:
        """Writable memory for the vnodes' own side: no owner needed, the same bounds."""
        for given, memory in self._memory:
            if given.contains(Range(base, size)):
                return memory[base - given.base : base - given.base + size]
        raise PlacementError(f"{size:#x} bytes at {base:#x} are not given to vnodes")

    def _owned(self) -> None:
        if not self._claimed:
            raise OwnerError("this process does not own the machine", "claim it first")

    def _binding(self, vnode: int) -> Binding:
        if vnode not in self._bound:
            raise PlacementError(f"vnode {vnode} is not bound")
        return self._bound[vnode]

    def _parked(self, vnode: int) -> Binding:
        binding = self._binding(vnode)
        if any(self._cpus[cpu].state != abi.KMB_CPU_PARKED for cpu in binding.cpus):
            raise PlacementError(f"vnode {vnode} has CPUs that are not parked", "park it first")
        return binding

    def _index(self, vnode: int, cpu: int) -> None:
        if not 0 <= cpu < len(self._binding(vnode).cpus):
            raise PlacementError(f"vnode {vnode} has no CPU {cpu}")
        if self._cpus[self._binding(vnode).cpus[cpu]].state != abi.KMB_CPU_STARTED:
            raise ParkedError(f"vnode {vnode}: CPU {cpu} is parked")

    def _set_cpus(self, binding: Binding, state: int) -> None:
        for cpu in binding.cpus:
            self._cpus[cpu] = self._cpus[cpu]._replace(state=state)


def root_side(vnode: int, incarnation: int, ncpus: int = 2, **more: object) -> abi.RootSide:
    """The root's half of a vnode's bridge, for Bridge.init(); what is not named is 0."""
    blank: abi.RootSide = abi.ROOT_SIDE.unpack(bytes(abi.ROOT_SIDE.size))
    return blank._replace(
        magic=abi.VN_BRIDGE_MAGIC,
        abi=abi.VN_ABI_VERSION,
        size=abi.VN_BRIDGE_SIZE,
        vnode_id=vnode,
        incarnation=incarnation,
        ncpus=ncpus,
        **more,  # type: ignore[arg-type]
    )


def _anonymous(size: int) -> memoryview:
    """Zeroed memory that costs nothing until it is written (and nothing to read)."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, size, flags=flags))
