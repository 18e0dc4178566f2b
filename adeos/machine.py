# SPDX-License-Identifier: GPL-2.0-or-later
"""The narrow interface to a machine's CPUs and memory, and what passes through it.

Implementations: adeos.kmb (the real one, /dev/kmb), adeos.peers (in a vnode, what it was granted)
and adeos.fake (for tests).  Addresses are physical and in bytes, times are TSC cycles, CPUs are
Linux CPU numbers in the root except where an index within the vnode is named.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from adeos.abi import KmbCpu, KmbFire, Range, RootInfo

__all__ = ["NO_FACTS", "Binding", "Event", "KernelFacts", "Machine", "Range"]


class Binding(NamedTuple):
    """A vnode and what it owns."""

    vnode: int
    cpus: tuple[int, ...]
    """Linux CPU numbers in the root, the vnode's boot CPU first."""
    region: Range
    slot: Range
    vector: int
    """Root vector of this vnode's portal, and the APIC id it goes to."""
    dest_apicid: int
    started: int
    """CPUs that run the vnode, 0 = all parked."""
    rings: int
    """Doorbells rung by the vnode since it was bound."""
    start_tsc: int
    """TSC of the last start of the boot CPU."""
    holder: int = 0
    """The process that controls it (Machine.control), 0 = none; and until when, or when that
    ended, TSC."""
    held_until: int = 0


class KernelFacts(NamedTuple):
    """Addresses in a vnode's kernel that its agent needs for a debugger, 0 = unknown.

    Bounds of the entry code, and the chain of exception notifiers (struct vn_control).
    """

    entry_start: int = 0
    entry_end: int = 0
    die_chain: int = 0


NO_FACTS = KernelFacts()


class ArmedPiece(NamedTuple):
    """Part of a vnode that an in-kernel fire starts.

    `data`: what the machine is to keep and to put into `place` then; None: it lies there already.
    """

    place: Range
    sha256: bytes
    data: bytes | None = None


class Arming(NamedTuple):
    """What to start by itself when the daemon is silent (struct kmb_arm)."""

    incarnation: int
    """That is watched, and that which is started."""
    successor: int
    silence_ms: int
    limit_ms: tuple[int, int, int]
    """A layer's, 0 = its silence is no failure."""
    cookie: int
    region: Range
    cr3: int
    entry: int
    rsi: int
    pieces: tuple[ArmedPiece, ...]


class Event(NamedTuple):
    """A vnode rang its portal."""

    vnode: int
    rings: int
    """Since this reader last read them."""
    tsc: int
    last_tsc: int


class Machine(Protocol):
    """A machine with CPUs and memory given to vnodes.

    All methods may raise MachineMissing; those that change something want the owner and raise
    OwnerError for anyone else.
    """

    def info(self) -> RootInfo:
        """Facts of the machine; `range` holds the valid entries only."""
        ...

    def cpus(self) -> tuple[KmbCpu, ...]:
        """The CPUs given to vnodes."""
        ...

    def tsc(self) -> int:
        """The TSC now."""
        ...

    def claim(self) -> None:
        """Become the owner; OwnerError when another process is."""
        ...

    def view(self, base: int, size: int, *, writable: bool = False) -> memoryview:
        """Memory given to vnodes, mapped (and cached); PlacementError when it is not given."""
        ...

    def bind(self, vnode: int, cpus: Sequence[int], region: Range, slot: Range) -> Binding:
        """Give CPUs, region and slot to a vnode, or move a parked one; PlacementError."""
        ...

    def unbind(self, vnode: int) -> None:
        """Take everything back from a parked vnode."""
        ...

    def query(self, vnode: int) -> Binding | None:
        """What a vnode owns, None when it is not bound."""
        ...

    def start(self, vnode: int, *, cr3: int, entry: int, rsi: int, wait_us: int = 0) -> int:
        """Boot a parked vnode's first CPU; the TSC just before its SIPI.

        FenceError when the CPU does not come: within `wait_us` microseconds, it has to be parked
        anew then; with 0 it is waited for and tried some times, which may take seconds.
        """
        ...

    def resume(self, vnode: int, *, cr3: int, entry: int, cr4: int, wait_us: int = 0) -> int:
        """Set a frozen vnode's first CPU going where it parked; else as `start`."""
        ...

    def park(self, vnode: int, timeout_ms: int = 100) -> int:
        """INIT all CPUs of a vnode; the TSC when the last confirmed, FenceError if one does not."""
        ...

    def nmi(self, vnode: int, cpu: int) -> None:
        """NMI to a CPU, by its index within the vnode."""
        ...

    def control(self, vnode: int, lease_ms: int, facts: KernelFacts = NO_FACTS) -> int:
        """Take control of a started vnode; the TSC until which it is had.

        It ends by itself when it is not renewed, when the machine is closed and when the vnode is
        parked.  HeldError when another process has it.
        """
        ...

    def renew(self, vnode: int, lease_ms: int) -> int:
        """Keep control on; HeldError when it has ended."""
        ...

    def release(self, vnode: int) -> None:
        """Give control back: breakpoints go, parked CPUs run."""
        ...

    def poke(self, vnode: int, base: int, data: bytes) -> None:
        """Write into the memory of a vnode under control."""
        ...

    def set_break(self, vnode: int, va: int, pa: int) -> None:
        """Put a breakpoint at a kernel address, which lies at `pa`; under control."""
        ...

    def clear_break(self, vnode: int, pa: int) -> None:
        """Take it away again."""
        ...

    def successor(self, vnode: int) -> None:
        """Name the vnode that may read the root and keeps its panic from a reset; 0 = none."""
        ...

    def arm(self, vnode: int, arming: Arming) -> None:
        """Have a started vnode restarted by the kernel when it dies and nobody is there to do it.

        Once, in the place of what was armed before.  PlacementError.
        """
        ...

    def disarm(self, vnode: int) -> None:
        """Not any more."""
        ...

    def fire(self, vnode: int) -> KmbFire | None:
        """A vnode's arming or what became of it, None where the kernel has none to tell of."""
        ...

    def fire_kept(self, vnode: int) -> bytes:
        """What a fire kept of the predecessor: the head of its bridge, the RAM of its low slot."""
        ...

    def settle(self, vnode: int) -> None:
        """What became of the arming is recorded elsewhere: the kernel may forget it."""
        ...

    def ipi(self, vnode: int, cpu: int, vector: int) -> None:
        """Fixed interrupt to a CPU, by its index within the vnode."""
        ...

    def clear(self, base: int, size: int) -> None:
        """Fill given memory of no running vnode with zeros."""
        ...

    def put_back(self, region: Range, image: Range, spans: bytes) -> int:
        """Write the pages that differ from those in an image; how many.  PlacementError.

        The region is of no running vnode, the image in other memory that is given to vnodes.
        `spans`: an array of struct kmb_span.
        """
        ...

    def fileno(self) -> int:
        """Readable when a portal has rung; -1 where nothing tells."""
        ...

    def events(self) -> list[Event]:
        """Portals that rang since the last call; never blocks."""
        ...

    def close(self) -> None:
        """Release the device and all views."""
        ...
