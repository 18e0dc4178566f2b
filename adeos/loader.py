# SPDX-License-Identifier: GPL-2.0-or-later
"""Composes a vnode in memory: kernel, initrd, boot_params, ACPI tables, page tables, bridge.

An Image is staged once (files read, checked, digests taken) and loaded at every start.  `plan` says
what goes where and checks that it fits; `load` writes that.  `preload` writes the greater part of
it ahead, into a region that is free still.  The trampoline is kmb.ko's.
Limits: the vnode's CPUs must be parked; memory is not cleared beyond the first MiB of the region,
so pages of the predecessor stay until the kernel uses them.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from adeos import abi, acpi, bootparams, cmdline, paging
from adeos.abi import Range, RootInfo
from adeos.bootparams import E820, BzImage
from adeos.bridge import Bridge
from adeos.copying import CHUNK, copy_in, fill
from adeos.errors import ImageError, PlacementError
from adeos.files import read_regular
from adeos.initrd import check_initrd
from adeos.machine import Machine
from adeos.pool import size_text
from adeos.vmlinux import Flat, flatten

_OFF_SETUP_DATA: Final = 0x12000  # the free part of the region's first 512 KiB
_INITRD_ALIGN: Final = 0x100000
_CMDLINE_PAGE: Final = 0x1000
_MIN_FREE: Final = 16 << 20
"""Memory a kernel wants beside itself and its initrd before it can say that it lacks some."""


class Image(NamedTuple):
    """A kernel, its initrd and the user's command line, kept ready in memory."""

    kernel: bytes
    initrd: bytes
    cmdline: str
    header: BzImage
    kernel_sha256: str
    initrd_sha256: str
    name: str
    flat: Flat | None = None
    """The kernel unpacked; it is started as this then."""
    flat_sha256: str = ""

    @classmethod
    def stage(cls, kernel: Path, initrd: Path | None, cmdline: str = "") -> "Image":
        """Reads and checks the files; ImageError says which is wrong and why."""
        data = _read(kernel, "kernel")
        ramdisk = _read(initrd, "initrd") if initrd is not None else b""
        if initrd is not None:
            check_initrd(ramdisk, str(initrd))
        return cls.of(data, ramdisk, cmdline, str(kernel))

    @classmethod
    def of(cls, kernel: bytes, initrd: bytes, cmdline: str, name: str = "kernel") -> "Image":
        """An image of bytes that are in memory already."""
        header = bootparams.parse_bzimage(kernel, name)
        _compose_cmdline(header, cmdline, 0)
        return cls(kernel, initrd, cmdline, header, _sha256(kernel), _sha256(initrd), name)

    def unpacked(self, vmlinux: bytes) -> "Image":
        """The same, to be started as the `vmlinux` that its kernel would unpack.  ImageError."""
        flat = flatten(vmlinux, self.name)
        if len(flat.data) > self.header.init_size:
            raise ImageError(
                f"{self.name}: its vmlinux takes {len(flat.data)} bytes, more than the"
                f" {self.header.init_size} of its header",
                "boot it without fast_boot",
            )
        return self._replace(flat=flat, flat_sha256=_sha256(flat.data))

    @property
    def digests(self) -> tuple[str, str]:
        """SHA-256 of what lies in memory when it is started: kernel and initrd."""
        return self.flat_sha256 or self.kernel_sha256, self.initrd_sha256

    def verify(self) -> None:
        """ImageError when the bytes kept are no longer those that were staged."""
        kernel = self.flat.data if self.flat else self.kernel
        for what, data, digest in (
            ("kernel", kernel, self.digests[0]),
            ("initrd", self.initrd, self.digests[1]),
        ):
            if _sha256(data) != digest:
                raise ImageError(f"{self.name}: the staged {what} was altered", "stage it again")


class Placement(NamedTuple):
    """Where a vnode goes and who it is."""

    vnode: int
    name: str
    region: Range
    slot: Range
    apicids: tuple[int, ...]
    """Of its CPUs, the boot CPU first."""
    incarnation: int
    vector: int
    """Root vector of its portal, and the APIC id it goes to (Binding)."""
    dest_apicid: int
    period_us: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Wanted beat period of each abi.Layer, microseconds."""
    flags: int = 0
    """abi.VN_F_*"""


class Entry(NamedTuple):
    """What Machine.start needs."""

    cr3: int
    entry: int
    rsi: int


class Piece(NamedTuple):
    """Something that goes into memory: `place.size` bytes of `data` from `start` on."""

    what: str
    place: Range
    data: bytes
    start: int = 0


class Plan(NamedTuple):
    """What goes where, without having touched any memory."""

    pieces: tuple[Piece, ...]
    entry: Entry
    cmdline: str
    memory: tuple[tuple[Range, E820], ...]
    """The vnode's e820 map."""


def plan(image: Image, placement: Placement, info: RootInfo) -> Plan:
    """What `load` will write; PlacementError or ImageError when it does not fit."""
    region, slot = placement.region, placement.slot
    header = image.header
    payload = _payload(image, region)
    load_address = region.base + abi.VN_OFF_KERNEL
    initrd = _initrd_place(image, region)
    line = _compose_cmdline(header, image.cmdline, info.tsc_khz)
    text = line.rstrip(b"\0").decode()
    ioapic = slot.base + abi.VN_SLOT_IOAPIC
    needed = abi.VN_OFF_KERNEL + header.init_size
    cr3, tables = paging.identity_map(slot.base, region, needed)
    acpi_base = region.base + abi.VN_OFF_ACPI
    memory = _memory_map(region, slot)
    setup_data = region.base + _OFF_SETUP_DATA
    zero_page = bootparams.boot_params(
        header,
        load_address=load_address,
        initrd=initrd,
        cmdline_address=region.base + abi.VN_OFF_CMDLINE,
        rsdp_address=acpi_base,
        setup_data_address=setup_data,
        memory=memory,
        kaslr=image.flat is not None and "nokaslr" not in text.split(),
    )
    acpi_tables = acpi.compose(
        acpi_base,
        apicids=placement.apicids,
        boot_apicid=info.boot_apicid,
        ioapic_address=ioapic,
        bridge_address=region.base + abi.VN_OFF_BRIDGE,
    )
    parts = [
        ("page tables", cr3, tables),
        ("IOAPIC that is not there", ioapic, b"\xff" * paging.PAGE),
        ("boot_params", region.base + abi.VN_OFF_BOOT_PARAMS, zero_page),
        ("command line", region.base + abi.VN_OFF_CMDLINE, line),
        ("random seed", setup_data, bootparams.rng_seed(os.urandom(32))),
        ("ACPI tables", acpi_base, acpi_tables),
    ]
    pieces = [Piece(what, Range(at, len(data)), data) for what, at, data in parts if data]
    start = image.flat.entry if image.flat else bootparams.ENTRY_64
    entry = Entry(cr3, load_address + start, region.base + abi.VN_OFF_BOOT_PARAMS)
    return Plan((*pieces, *payload), entry, text, memory)


def _payload(image: Image, region: Range) -> tuple[Piece, ...]:
    """Initrd and kernel: the same for whoever is started in `region`."""
    _check_region(image.header, image.name, region)
    initrd, part, data = _initrd_place(image, region), image.header.payload, image.kernel
    if image.flat is not None:
        data = image.flat.data
        part = Range(0, len(data))
    kernel = Piece("kernel", Range(region.base + abi.VN_OFF_KERNEL, part.size), data, part.base)
    return (Piece("initrd", initrd, image.initrd), kernel) if image.initrd else (kernel,)


def preload(
    machine: Machine, image: Image, region: Range, cancelled: Callable[[], bool] = lambda: False
) -> bool:
    """Writes ahead what `load` then need not: an empty first MiB, initrd and kernel.

    The caller owns the machine and sees to it that nobody uses the region.  False when `cancelled`
    said so, which is asked every few milliseconds: what is there then is worth nothing.
    """
    payload = _payload(image, region)
    view = machine.view(region.base, region.size, writable=True)
    fill(view, 0, abi.VN_OFF_RAM)
    for piece in payload:
        for done in range(0, piece.place.size, CHUNK):
            if cancelled():
                return False
            at, size = piece.place.base - region.base + done, min(CHUNK, piece.place.size - done)
            copy_in(view, at, piece.data, piece.start + done, size)
    return not cancelled()


def load(
    machine: Machine,
    image: Image,
    placement: Placement,
    *,
    preloaded: bool = False,
    ahead: Plan | None = None,
) -> Entry:
    """Composes the vnode in its region and slot; what Machine.start then needs.

    The caller owns the machine, has bound the vnode there and parked its CPUs.
    `preloaded`: `preload` of this image was the last to write the region.  `ahead`: the plan, made
    earlier for the same image, region, slot and CPUs; for one start only, it has a random seed.
    """
    todo = ahead or plan(image, placement, machine.info())
    region, slot = (machine.view(*part, writable=True) for part in placement[2:4])
    write(machine, image, placement, todo, (region, slot), preloaded=preloaded)
    return todo.entry


def write(
    machine: Machine,
    image: Image,
    placement: Placement,
    todo: Plan,
    memory: tuple[memoryview, memoryview],
    *,
    preloaded: bool = False,
) -> None:
    """What `load` does, into `memory`: that of the region and the slot, or what stands for it."""
    views = ((placement.region, memory[0]), (placement.slot, memory[1]))
    pieces = todo.pieces
    if preloaded:
        pieces = pieces[: -len(_payload(image, placement.region))]
    else:
        fill(views[0][1], 0, abi.VN_OFF_RAM)
    fill(views[1][1], abi.VN_SLOT_PAGE_TABLES, abi.VN_SLOT_RAM - abi.VN_SLOT_PAGE_TABLES)
    for piece in pieces:
        for given, view in views:
            if given.contains(piece.place):
                at = piece.place.base - given.base
                copy_in(view, at, piece.data, piece.start, piece.place.size)
    bridge = Bridge(memory[0][abi.VN_OFF_BRIDGE : abi.VN_OFF_RAM])
    bridge.init(_root_side(placement, machine.info(), machine.tsc()), empty=True)


def rejoin(machine: Machine, placement: Placement) -> None:
    """Writes an empty bridge for a vnode whose memory is its own, frozen, and will be resumed."""
    bridge = Bridge.open(machine, placement.region, writable=True)
    bridge.init(_root_side(placement, machine.info(), machine.tsc()))


def _check_region(header: BzImage, name: str, region: Range) -> None:
    if region.base % abi.VN_REGION_ALIGN or region.size < abi.VN_REGION_MIN:
        raise PlacementError(
            f"region {size_text(region.size)} at {region.base:#x} is misaligned or too small",
            f"2 MiB aligned, at least {size_text(abi.VN_REGION_MIN)}",
        )
    if header.alignment > abi.VN_REGION_ALIGN and (
        (region.base + abi.VN_OFF_KERNEL) % header.alignment
    ):
        raise PlacementError(f"{name} wants an alignment of {size_text(header.alignment)}")
    if region.end > 1 << 32 and not header.above_4g:
        raise ImageError(
            f"{name} cannot be loaded above 4 GiB", "give it memory below, or a newer kernel"
        )


def _initrd_place(image: Image, region: Range) -> Range:
    """At the region's top; ImageError when the kernel has no room below it."""
    kernel_end = region.base + abi.VN_OFF_KERNEL + image.header.init_size
    size = len(image.initrd)
    base = (region.end - size) // _INITRD_ALIGN * _INITRD_ALIGN
    if base < kernel_end + _MIN_FREE:
        wanted = kernel_end + _MIN_FREE + size - region.base
        wanted = -(-wanted // abi.VN_REGION_ALIGN) * abi.VN_REGION_ALIGN
        raise ImageError(
            f"{image.name} ({size_text(image.header.init_size)}) and its initrd"
            f" ({size_text(size)}) do not fit into a region of {size_text(region.size)}",
            f"give the vnode at least {size_text(wanted)}",
        )
    return Range(base, size)


def _memory_map(region: Range, slot: Range) -> tuple[tuple[Range, E820], ...]:
    """The e820 map.  The slot's own pages stay out: the 6.1 decompressor wipes low memory that it
    is given (find_trampoline_placement) while it still runs on the page tables there."""

    def part(start: int, end: int) -> Range:
        return Range(region.base + start, end - start)

    return (
        (Range(slot.base + abi.VN_SLOT_RAM, slot.size - abi.VN_SLOT_RAM), E820.RAM),
        (part(0, abi.VN_OFF_ACPI), E820.RAM),
        (part(abi.VN_OFF_ACPI, abi.VN_OFF_BRIDGE), E820.ACPI),
        (part(abi.VN_OFF_BRIDGE, abi.VN_OFF_RAM), E820.RESERVED),
        (part(abi.VN_OFF_RAM, region.size), E820.RAM),
    )


def _root_side(placement: Placement, info: RootInfo, tsc: int) -> abi.RootSide:
    return abi.RootSide(
        magic=abi.VN_BRIDGE_MAGIC,
        abi=abi.VN_ABI_VERSION,
        size=abi.VN_BRIDGE_SIZE,
        vnode_id=placement.vnode,
        incarnation=placement.incarnation,
        region_base=placement.region.base,
        region_size=placement.region.size,
        slot_base=placement.slot.base,
        slot_size=placement.slot.size,
        ncpus=len(placement.apicids),
        flags=placement.flags,
        apicid=placement.apicids,
        root_apicid=placement.dest_apicid,
        root_vector=placement.vector,
        tsc_khz=info.tsc_khz,
        start_tsc=tsc,
        wall_ns=time.time_ns(),
        period_us=placement.period_us,
        name=placement.name,
        seed=os.urandom(32),
        cmd_seq=0,
        cmd=abi.Cmd.NONE,
        cmd_arg=0,
    )


def _compose_cmdline(header: BzImage, user: str, tsc_khz: int) -> bytes:
    return cmdline.compose(tsc_khz, user, min(header.cmdline_size + 1, _CMDLINE_PAGE))


def _read(path: Path, what: str) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ImageError(f"{what} {path}: {error.strerror}") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
