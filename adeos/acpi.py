# SPDX-License-Identifier: GPL-2.0-or-later
"""The ACPI tables that tell a vnode which hardware it owns, as bytes.

ACPI Specification 6.3, chapter 5.2.  A hardware-reduced machine without devices, with the vnode's
local APICs and nothing else; VNBR, a table of our own, tells where the bridge is.
Limits: APIC ids below 255 (no x2APIC entries).
"""

import struct
from collections.abc import Sequence
from typing import Final

from adeos import abi
from adeos.errors import PlacementError

LAPIC_ADDRESS: Final = 0xFEE00000
_HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
_OEM: Final = (b"VNODE ", b"VNODEDBG", 1, b"VNDB", 1)
_IOAPIC_ID: Final = 0x0F

# FADT: IA-PC boot architecture flags, table 5-10
_NO_VGA, _NO_MSI, _NO_CMOS_RTC = 1 << 2, 1 << 3, 1 << 5
# FADT: fixed feature flags, table 5-9
_WBINVD, _NO_POWER_BUTTON, _NO_SLEEP_BUTTON = 1 << 0, 1 << 4, 1 << 5
_PHYSICAL_APIC, _HW_REDUCED = 1 << 19, 1 << 20
# MADT: local APIC flags, table 5-22
_ENABLED, _ONLINE_CAPABLE = 1 << 0, 1 << 1


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table with its header and checksum."""
    size = _HEADER.size + len(body)
    head = _HEADER.pack(signature, size, revision, 0, *_OEM)
    return checksummed(head + body, 9)


def checksummed(data: bytes, at: int, size: int | None = None) -> bytes:
    """`data` with the byte at `at` set so that the first `size` bytes sum to 0."""
    out = bytearray(data)
    out[at] = 0
    out[at] = -sum(out[:size]) & 0xFF
    return bytes(out)


def dsdt() -> bytes:
    """A DSDT with no devices: its header alone."""
    return table(b"DSDT", 2, b"")


def fadt(dsdt_address: int) -> bytes:
    """FADT 6.3; only from this version on Linux heeds "online capable" in the MADT."""
    body = bytearray(276 - _HEADER.size)

    def put(fmt: str, offset: int, value: int) -> None:
        struct.pack_into("<" + fmt, body, offset - _HEADER.size, value)

    put("I", 40, dsdt_address if dsdt_address < 1 << 32 else 0)
    put("H", 109, _NO_VGA | _NO_MSI | _NO_CMOS_RTC)  # 8042 and legacy devices clear
    # Physical destination: flat logical ids would collide with the root's CPUs.
    flags = _WBINVD | _NO_POWER_BUTTON | _NO_SLEEP_BUTTON | _PHYSICAL_APIC | _HW_REDUCED
    put("I", 112, flags)
    put("B", 131, 3)
    put("Q", 140, dsdt_address)
    return table(b"FACP", 6, bytes(body))


def madt(apicids: Sequence[int], boot_apicid: int, ioapic_address: int) -> bytes:
    """MADT: the machine's boot CPU, not to be used, then the vnode's own CPUs, boot CPU first.

    Since 6.12 Linux takes the first entry for the machine's boot CPU, and a kernel that runs on
    another CPU for a crash kernel to be limited to one.  The IOAPIC entry leads to a page of 0xff
    ("registers return all ones, skipping"): without one, kernels with CONFIG_X86_MPPARSE look for
    the firmware's MP table and take the real IOAPIC.
    """
    for apicid in (boot_apicid, *apicids):
        if apicid >= 255:
            raise PlacementError(f"APIC id {apicid}", "vnodes need CPUs with APIC ids below 255")
    body = struct.pack("<II", LAPIC_ADDRESS, 0)  # PCAT_COMPAT 0: no 8259
    body += struct.pack("<BBBBI", 0, 8, 0xFE, boot_apicid, _ONLINE_CAPABLE)
    for uid, apicid in enumerate(apicids):
        body += struct.pack("<BBBBI", 0, 8, uid, apicid, _ENABLED)
    body += struct.pack("<BBBBII", 1, 12, _IOAPIC_ID, 0, ioapic_address, 0)
    return table(b"APIC", 5, body)


def vnbr(bridge_address: int) -> bytes:
    """VNBR: where the bridge is (adeos/include/vnode_abi.h)."""
    body = struct.pack("<QII", bridge_address, abi.VN_BRIDGE_SIZE, abi.VN_ABI_VERSION)
    return table(abi.VN_ACPI_SIGNATURE.encode(), 1, body)


def rsdp(xsdt_address: int) -> bytes:
    """RSDP, revision 2."""
    data = struct.pack("<8sB6sBIIQB3s", b"RSD PTR ", 0, _OEM[0], 2, 0, 36, xsdt_address, 0, b"")
    return checksummed(checksummed(data, 8, 20), 32)


def compose(
    base: int, *, apicids: Sequence[int], boot_apicid: int, ioapic_address: int, bridge_address: int
) -> bytes:
    """All tables, to be placed at `base`, where the RSDP then is."""
    out = bytearray(64)

    def add(data: bytes) -> int:
        address = base + len(out)
        out.extend(data + bytes(-len(data) % 16))
        return address

    tables = [
        add(fadt(add(dsdt()))),
        add(madt(apicids, boot_apicid, ioapic_address)),
        add(vnbr(bridge_address)),
    ]
    xsdt = add(table(b"XSDT", 1, struct.pack(f"<{len(tables)}Q", *tables)))
    head = rsdp(xsdt)
    out[: len(head)] = head
    return bytes(out)
