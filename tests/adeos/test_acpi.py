# SPDX-License-Identifier: GPL-2.0-or-later
import re
import shutil
import struct
import subprocess

import pytest

from adeos import abi, acpi
from adeos.errors import PlacementError

BASE = 0x140080000


def composed(**changes):
    options = {
        "apicids": (2, 3),
        "boot_apicid": 0,
        "ioapic_address": 0x17000,
        "bridge_address": 0x140090000,
    }
    return acpi.compose(BASE, **(options | changes))


def tables_of(data, base=BASE):
    """Signature -> bytes, found as a kernel finds them: RSDP, XSDT, entries, FADT's DSDT."""

    def at(address):
        start = address - base
        size = struct.unpack_from("<I", data, start + 4)[0]
        table = data[start : start + size]
        assert len(table) == size and sum(table) & 0xFF == 0
        return table

    assert data[:8] == b"RSD PTR " and data[15] == 2
    assert sum(data[:20]) & 0xFF == 0 and sum(data[:36]) & 0xFF == 0
    xsdt = at(struct.unpack_from("<Q", data, 24)[0])
    found = {b"XSDT": xsdt}
    for (address,) in struct.iter_unpack("<Q", xsdt[36:]):
        table = at(address)
        found[table[:4]] = table
    found[b"DSDT"] = at(struct.unpack_from("<Q", found[b"FACP"], 140)[0])
    return found


def test_a_kernel_finds_every_table():
    found = tables_of(composed())
    assert set(found) == {b"XSDT", b"FACP", b"APIC", b"VNBR", b"DSDT"}
    assert len(found[b"DSDT"]) == 36
    assert len(found[b"FACP"]) == 276
    bridge = struct.unpack_from("<QII", found[b"VNBR"], 36)
    assert bridge == (0x140090000, abi.VN_BRIDGE_SIZE, abi.VN_ABI_VERSION)


def test_the_madt_lists_the_boot_cpu_then_the_vnodes_own():
    madt = tables_of(composed())[b"APIC"]
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 0)
    entries = [struct.unpack_from("<BBBBI", madt, 44 + 8 * n) for n in range(3)]
    assert entries == [(0, 8, 0xFE, 0, 2), (0, 8, 0, 2, 1), (0, 8, 1, 3, 1)]
    assert struct.unpack_from("<BBBBII", madt, 68) == (1, 12, 15, 0, 0x17000, 0)
    assert len(madt) == 80


def test_below_4_gib_the_32_bit_dsdt_address_is_set():
    low = acpi.compose(
        0x20080000, apicids=(1,), boot_apicid=0, ioapic_address=0x17000, bridge_address=0x20090000
    )
    fadt = tables_of(low, 0x20080000)[b"FACP"]
    assert struct.unpack_from("<I", fadt, 40)[0] == struct.unpack_from("<Q", fadt, 140)[0]
    assert struct.unpack_from("<I", tables_of(composed())[b"FACP"], 40)[0] == 0


def test_apic_ids_beyond_the_madt_entry_are_refused():
    with pytest.raises(PlacementError, match="APIC id 255"):
        composed(apicids=(255,))


def test_the_tables_fit_their_place():
    everything = composed(apicids=tuple(range(1, 17)))
    assert len(everything) <= abi.VN_OFF_BRIDGE - abi.VN_OFF_ACPI


@pytest.mark.skipif(shutil.which("iasl") is None, reason="acpica-tools is not installed")
@pytest.mark.parametrize("signature", ["FACP", "APIC", "DSDT", "XSDT"])
def test_iasl_disassembles_the_table(tmp_path, signature):
    path = tmp_path / f"{signature.lower()}.aml"
    path.write_bytes(tables_of(composed())[signature.encode()])
    out = subprocess.run(
        ["iasl", "-d", path.name], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not re.search(r"(?i)\b(error|warning|incorrect)\b", out.stderr + out.stdout)
    listing = path.with_suffix(".dsl").read_text()
    assert "Incorrect checksum" not in listing
    expected = {
        "FACP": ["Hardware Reduced (V5) : 1", "Use APIC Physical Destination Mode (V4) : 1"],
        "APIC": ["Local Apic ID : 03", "Interrupt : 00000000"],
        "DSDT": ["DefinitionBlock"],
        "XSDT": ["ACPI Table Address"],
    }
    for words in expected[signature]:
        assert words in listing
