# SPDX-License-Identifier: GPL-2.0-or-later
"""The real machine: /dev/kmb of kmb.ko, by ioctl, mmap and read.

Limits: one descriptor an instance; the kernel log has kmb.ko's own words on why it refused.
"""

import array
import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Any, Final

from adeos import abi
from adeos.abi import KmbCpu, KmbFire, Range, RootInfo
from adeos.errors import (
    AdeosError,
    FenceError,
    HeldError,
    MachineMissing,
    OwnerError,
    ParkedError,
    PlacementError,
)
from adeos.layout import Layout
from adeos.machine import NO_FACTS, Arming, Binding, Event, KernelFacts

DEVICE: Final = "/dev/kmb"
_LOG: Final = "see `dmesg | grep kmb`"
_NOT_BOUND: Final = (PlacementError, "is not bound", "bind CPUs and memory to it first")
_NOT_OWNER: Final = (OwnerError, "this process does not own the machine", "claim it first")

_Cause = tuple[type[AdeosError], str, str]
_NOT_HELD: Final = (HeldError, "this process has no control of it any more", "take it again")
_NO_BREAK: Final = (PlacementError, "breakpoints lie in its region", "")
_ANY: Final[dict[int, _Cause]] = {
    errno.EACCES: _NOT_OWNER,
    errno.EBADF: (MachineMissing, "the device is closed", ""),
    errno.ENOMEM: (MachineMissing, "the root kernel is out of memory", ""),
    errno.ENOTTY: (MachineMissing, "kmb.ko does not know this command", "load the matching kmb.ko"),
}
_CAUSES: Final[dict[int, dict[int, _Cause]]] = {
    abi.KMB_CLAIM: {
        errno.EACCES: (OwnerError, "opened as an observer", "open the machine writable"),
        errno.EBUSY: (OwnerError, "another process owns the machine", ""),
    },
    abi.KMB_BIND: {
        errno.EINVAL: (PlacementError, "CPUs, region or slot are misaligned or malformed", _LOG),
        errno.EPERM: (PlacementError, "region or slot are not given to vnodes", _LOG),
        errno.ENODEV: (PlacementError, "a CPU of the machine is missing", _LOG),
        errno.EBUSY: (PlacementError, "CPU or memory is taken, or the vnode runs", _LOG),
        errno.ETIMEDOUT: (FenceError, "a CPU did not confirm its parking", _LOG),
    },
    abi.KMB_UNBIND: {
        errno.ENOENT: _NOT_BOUND,
        errno.EBUSY: (PlacementError, "has CPUs that are not parked", "park it first"),
    },
    abi.KMB_START: {
        errno.ENOENT: _NOT_BOUND,
        errno.EINVAL: (
            PlacementError,
            "page tables or entry lie outside its slot and region, or the wait is too long",
            "",
        ),
        errno.EBUSY: (PlacementError, "has CPUs that are not parked", "park it first"),
        errno.ETIMEDOUT: (FenceError, "its boot CPU does not start", _LOG),
    },
    abi.KMB_RESUME: {
        errno.ENOENT: _NOT_BOUND,
        errno.EINVAL: (PlacementError, "resume state is not of its kernel", "freeze it anew"),
        errno.EBUSY: (PlacementError, "has CPUs that are not parked", "park it first"),
        errno.ETIMEDOUT: (FenceError, "its boot CPU does not start", _LOG),
    },
    abi.KMB_PARK: {
        errno.ENOENT: _NOT_BOUND,
        errno.EINVAL: (PlacementError, "the time limit for parking is 1..1000 ms", ""),
        errno.EBUSY: (PlacementError, "is being parked or started by another call", "try again"),
        errno.ETIMEDOUT: (FenceError, "a CPU did not confirm its parking", _LOG),
    },
    abi.KMB_NMI: {
        errno.ENOENT: _NOT_BOUND,
        errno.EINVAL: (PlacementError, "has no such CPU", ""),
        errno.EHOSTDOWN: (ParkedError, "that CPU is parked", ""),
    },
    abi.KMB_IPI: {
        errno.ENOENT: _NOT_BOUND,
        errno.EINVAL: (PlacementError, "has no such CPU, or the vector is not 0x20..0xff", ""),
        errno.EHOSTDOWN: (ParkedError, "that CPU is parked", ""),
    },
    abi.KMB_CONTROL: {
        errno.ENOENT: _NOT_BOUND,
        errno.EACCES: (OwnerError, "opened as an observer", "open the machine writable"),
        errno.ETIME: _NOT_HELD,
        errno.EBUSY: (HeldError, "another debugger controls it", ""),
        errno.EHOSTDOWN: (ParkedError, "its CPUs are parked", "start it first"),
        errno.EINVAL: (PlacementError, f"a lease has 1..{abi.KMB_LEASE_MAX_MS} ms", ""),
    },
    abi.KMB_POKE: {
        errno.EACCES: _NOT_HELD,
        errno.EPERM: (PlacementError, "that is no memory of its own", ""),
    },
    abi.KMB_BREAK: {
        errno.EACCES: _NOT_HELD,
        errno.EPERM: _NO_BREAK,
        errno.EINVAL: _NO_BREAK,
        errno.EEXIST: (PlacementError, "there is a breakpoint already", ""),
        errno.ENOENT: (PlacementError, "there is no breakpoint", ""),
        errno.ENOSPC: (PlacementError, f"has {abi.VN_MAX_BREAKPOINTS} breakpoints", "delete some"),
    },
    abi.KMB_SUCCESSOR: {
        errno.EINVAL: (PlacementError, f"cannot succeed: ids are 1..{abi.VN_MAX_VNODES - 1}", ""),
    },
    abi.KMB_ARM: {
        errno.ENOENT: _NOT_BOUND,
        errno.EHOSTDOWN: (ParkedError, "its CPUs are parked", "start it first"),
        errno.EINVAL: (PlacementError, "cannot be armed with these pieces", _LOG),
        errno.EPERM: (PlacementError, "region or slot are not given to vnodes", _LOG),
        errno.E2BIG: (PlacementError, "has more to keep than fits", "give it a spare region"),
        errno.EBADMSG: (PlacementError, "has pieces that are not of their digest", ""),
        errno.EBUSY: (PlacementError, "region is taken, or a fire of it is not settled", _LOG),
    },
    abi.KMB_PUT_BACK: {
        errno.EINVAL: (PlacementError, "cannot be filled with these pages", ""),
        errno.EPERM: (PlacementError, "or its image is not given to vnodes", ""),
        errno.EBUSY: (PlacementError, "is of a running vnode, or being cleared", "park it first"),
    },
    abi.KMB_CLEAR: {
        errno.EINVAL: (PlacementError, "memory to clear is not aligned to 4 KiB", ""),
        errno.EPERM: (PlacementError, "memory to clear is not given to vnodes", ""),
        errno.EBUSY: (PlacementError, "memory to clear is of a running vnode", "park it first"),
    },
}


def _error(command: int, number: int, subject: str) -> AdeosError:
    cause = _CAUSES.get(command, {}).get(number) or _ANY.get(number)
    if cause is None:
        return MachineMissing(f"{subject}: {os.strerror(number)}", _LOG)
    kind, what, hint = cause
    return kind(f"{subject}: {what}" if kind is not PlacementError else f"{subject} {what}", hint)


class KmbMachine:
    """The machine behind `path`; an observer unless `writable`, an owner after claim()."""

    def __init__(self, path: str = DEVICE, *, writable: bool = False) -> None:
        mode = os.O_RDWR if writable else os.O_RDONLY
        try:
            self._fd = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MachineMissing(f"there is no {path}", "load kmb.ko") from None
        except PermissionError:
            raise MachineMissing(f"{path}: permission denied", "become root") from None
        except OSError as error:
            raise MachineMissing(f"{path}: {error.strerror}") from None
        self._path = path
        self._views: dict[tuple[int, int, bool], memoryview] = {}
        self._info = bytearray(abi.ROOT_INFO.size)
        self._facts: RootInfo | None = None
        """All of it but TSC and owner stays as it is while the device is open."""
        version = self.info().abi
        if version != abi.VN_ABI_VERSION:
            self.close()
            raise MachineMissing(
                f"kmb.ko speaks ABI {version}, this toolkit {abi.VN_ABI_VERSION}",
                "load the matching kmb.ko",
            )

    def info(self) -> RootInfo:
        self._ioctl(abi.KMB_INFO, self._info, self._path)
        if self._facts is None:
            info = abi.ROOT_INFO.unpack(self._info)
            self._facts = info._replace(range=info.range[: info.nranges])
        tsc, owner = (abi.ROOT_INFO.get(self._info, 0, name) for name in ("tsc", "owner_pid"))
        return self._facts._replace(tsc=tsc, owner_pid=owner)

    def cpus(self) -> tuple[KmbCpu, ...]:
        buffer = bytearray(abi.CPUS.size)
        self._ioctl(abi.KMB_CPUS, buffer, self._path)
        cpus = abi.CPUS.unpack(buffer)
        return cpus.cpu[: cpus.n]

    def tsc(self) -> int:
        self._ioctl(abi.KMB_INFO, self._info, self._path)
        return int(abi.ROOT_INFO.get(self._info, 0, "tsc"))

    def claim(self) -> None:
        self._ioctl(abi.KMB_CLAIM, None, self._path)

    def view(self, base: int, size: int, *, writable: bool = False) -> memoryview:
        key = (base, size, writable)
        if key not in self._views:
            self._views[key] = self._map(base, size, writable)
        return self._views[key]

    def _map(self, base: int, size: int, writable: bool) -> memoryview:
        where = f"{size:#x} bytes at {base:#x}"
        if size <= 0 or base < 0:
            raise PlacementError(f"{where} are no memory")
        start = base & -mmap.PAGESIZE
        end = base + size + mmap.PAGESIZE - 1 & -mmap.PAGESIZE
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            mapping = mmap.mmap(self._fd, end - start, mmap.MAP_SHARED, prot, offset=start)
        except OSError as error:
            if error.errno == errno.EACCES:
                raise OwnerError("only the owner maps memory writable", "claim it first") from None
            if error.errno in (errno.EPERM, errno.EINVAL):
                raise PlacementError(f"{where} are not given to vnodes") from None
            raise MachineMissing(f"{where} cannot be mapped: {error.strerror}") from None
        except (OverflowError, ValueError):
            raise PlacementError(f"{where} are not given to vnodes") from None
        return memoryview(mapping)[base - start : base - start + size]

    def bind(self, vnode: int, cpus: Sequence[int], region: Range, slot: Range) -> Binding:
        request = abi.KmbBind(
            vnode, len(cpus), tuple(cpus), region.base, region.size, slot.base, slot.size
        )
        try:
            return _binding(self._call(abi.KMB_BIND, abi.BIND, request, vnode))
        except PlacementError:
            self._blame_cpus(vnode, cpus)
            raise

    def _blame_cpus(self, vnode: int, cpus: Sequence[int]) -> None:
        """PlacementError with the CPU that cannot be bound, if it is a CPU's fault."""
        given = {cpu.cpu: cpu for cpu in self.cpus()}
        for cpu in cpus:
            if cpu not in given:
                numbers = ", ".join(map(str, given)) or "none"
                what = f"vnode {vnode}: CPU {cpu} is not given to vnodes"
                raise PlacementError(what, f"given are: {numbers}") from None
            owner = given[cpu].vnode
            if owner not in (0, vnode):
                raise PlacementError(f"vnode {vnode}: CPU {cpu} belongs to vnode {owner}") from None

    def unbind(self, vnode: int) -> None:
        self._number(abi.KMB_UNBIND, vnode)

    def query(self, vnode: int) -> Binding | None:
        buffer = bytearray(abi.BIND.pack(abi.KmbBind(vnode)))
        try:
            fcntl.ioctl(self._fd, abi.KMB_QUERY, buffer)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise _error(abi.KMB_QUERY, error.errno or 0, f"vnode {vnode}") from None
        return _binding(abi.BIND.unpack(buffer))

    def start(self, vnode: int, *, cr3: int, entry: int, rsi: int, wait_us: int = 0) -> int:
        request = abi.KmbStart(vnode, wait_us, cr3, entry, rsi)
        return int(self._call(abi.KMB_START, abi.START, request, vnode).tsc)

    def resume(self, vnode: int, *, cr3: int, entry: int, cr4: int, wait_us: int = 0) -> int:
        request = abi.KmbResume(vnode, wait_us, cr3, entry, cr4)
        return int(self._call(abi.KMB_RESUME, abi.RESUME, request, vnode).tsc)

    def park(self, vnode: int, timeout_ms: int = 100) -> int:
        request = abi.KmbPark(vnode, timeout_ms)
        return int(self._call(abi.KMB_PARK, abi.PARK, request, vnode).tsc)

    def nmi(self, vnode: int, cpu: int) -> None:
        self._call(abi.KMB_NMI, abi.IPI, abi.KmbIpi(vnode, cpu), vnode)

    def control(self, vnode: int, lease_ms: int, facts: KernelFacts = NO_FACTS) -> int:
        buffer = bytearray(abi.KMB_HOLD.pack(abi.KmbControl(vnode, lease_ms, 0, 0, 0, *facts)))
        try:
            fcntl.ioctl(self._fd, abi.KMB_CONTROL, buffer)
        except OSError as error:
            subject = f"vnode {vnode}"
            if error.errno == errno.EBUSY:
                holder = abi.KMB_HOLD.unpack(buffer).holder
                raise HeldError(
                    f"{subject}: process {holder} controls it", "end that debugger, or watch"
                ) from None
            raise _error(abi.KMB_CONTROL, error.errno or 0, subject) from None
        return int(abi.KMB_HOLD.unpack(buffer).until_tsc)

    def renew(self, vnode: int, lease_ms: int) -> int:
        return self.control(vnode, lease_ms | abi.KMB_LEASE_RENEW)

    def release(self, vnode: int) -> None:
        self._call(abi.KMB_CONTROL, abi.KMB_HOLD, abi.KmbControl(vnode, 0), vnode)

    def poke(self, vnode: int, base: int, data: bytes) -> None:
        for at in range(0, len(data), abi.KMB_POKE_MAX):
            piece = array.array("B", data[at : at + abi.KMB_POKE_MAX])
            address, size = piece.buffer_info()
            self._call(abi.KMB_POKE, abi.POKE, abi.KmbPoke(vnode, size, base + at, address), vnode)

    def set_break(self, vnode: int, va: int, pa: int) -> None:
        self._call(abi.KMB_BREAK, abi.BREAK, abi.KmbBreak(vnode, 1, va, pa), vnode)

    def clear_break(self, vnode: int, pa: int) -> None:
        self._call(abi.KMB_BREAK, abi.BREAK, abi.KmbBreak(vnode, 0, 0, pa), vnode)

    def successor(self, vnode: int) -> None:
        self._number(abi.KMB_SUCCESSOR, vnode)

    def arm(self, vnode: int, arming: Arming) -> None:
        kept = [array.array("B", one.data or b"") for one in arming.pieces]
        addresses = [data.buffer_info()[0] if data else 0 for data in kept]
        self._call(abi.KMB_ARM, abi.ARM, arm_request(vnode, arming, addresses), vnode)

    def disarm(self, vnode: int) -> None:
        self._number(abi.KMB_DISARM, vnode)

    def fire(self, vnode: int) -> KmbFire | None:
        found: KmbFire = self._call(abi.KMB_FIRE, abi.FIRE, KmbFire(vnode), vnode)
        return found if found.state else None

    def fire_kept(self, vnode: int) -> bytes:
        found = self.fire(vnode)
        room = array.array("B", bytes(found.size if found is not None else 0))
        address, size = room.buffer_info()
        if size:
            request = KmbFire(vnode, data=address, size=size)
            self._call(abi.KMB_FIRE, abi.FIRE, request, vnode)
        return room.tobytes()

    def settle(self, vnode: int) -> None:
        self._number(abi.KMB_SETTLE, vnode)

    def ipi(self, vnode: int, cpu: int, vector: int) -> None:
        self._call(abi.KMB_IPI, abi.IPI, abi.KmbIpi(vnode, cpu, vector), vnode)

    def clear(self, base: int, size: int) -> None:
        buffer = bytearray(abi.RANGE.pack(Range(base, size)))
        self._ioctl(abi.KMB_CLEAR, buffer, f"{size:#x} bytes at {base:#x}:")

    def put_back(self, region: Range, image: Range, spans: bytes) -> int:
        kept = array.array("B", spans)
        address, size = kept.buffer_info()
        request = abi.KmbPutBack(*region, *image, address, size // abi.SPAN.size)
        buffer = bytearray(abi.PUT_BACK.pack(request))
        self._ioctl(abi.KMB_PUT_BACK, buffer, f"{region}:")
        return int(abi.PUT_BACK.unpack(buffer).written)

    def fileno(self) -> int:
        return self._fd

    def events(self) -> list[Event]:
        size = abi.EVENT.size
        try:
            data = os.read(self._fd, size * abi.VN_MAX_VNODES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise _error(0, error.errno or 0, self._path) from None
        return [Event(*abi.EVENT.unpack(data, at)) for at in range(0, len(data), size)]

    def close(self) -> None:
        # A mapping goes when the last view of it does; with it goes the ownership.
        self._views.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _call(self, command: int, layout: Layout[Any], request: Any, vnode: int) -> Any:
        buffer = bytearray(layout.pack(request))
        self._ioctl(command, buffer, f"vnode {vnode}")
        return layout.unpack(buffer)

    def _number(self, command: int, vnode: int) -> None:
        """A command that takes the vnode's id alone."""
        self._ioctl(command, bytearray(vnode.to_bytes(4, "little")), f"vnode {vnode}")

    def _ioctl(self, command: int, buffer: bytearray | None, subject: str) -> None:
        try:
            fcntl.ioctl(self._fd, command, buffer if buffer is not None else 0)
        except OSError as error:
            raise _error(command, error.errno or 0, subject) from None


def arm_request(vnode: int, arming: Arming, addresses: Sequence[int]) -> abi.KmbArm:
    """`addresses`: of the pieces' bytes in this process, 0 = they lie in place."""
    pieces = [
        abi.KmbPiece(*one.place, address, one.sha256)
        for one, address in zip(arming.pieces, addresses, strict=True)
    ]
    unused = [abi.KmbPiece(0, 0, 0, bytes(32))] * (abi.KMB_ARM_PIECES - len(pieces))
    return abi.KmbArm(
        vnode,
        len(pieces),
        arming.incarnation,
        arming.successor,
        arming.silence_ms,
        arming.limit_ms,
        arming.cookie,
        *arming.region,
        arming.cr3,
        arming.entry,
        arming.rsi,
        (*pieces, *unused),
    )


def _binding(bind: abi.KmbBind) -> Binding:
    return Binding(
        bind.vnode,
        bind.cpu[: bind.ncpus],
        Range(bind.region_base, bind.region_size),
        Range(bind.slot_base, bind.slot_size),
        bind.vector,
        bind.dest_apicid,
        bind.started,
        bind.rings,
        bind.start_tsc,
        bind.holder,
        bind.held_until,
    )
