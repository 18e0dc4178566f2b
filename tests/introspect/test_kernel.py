# SPDX-License-Identifier: GPL-2.0-or-later
"""A real kernel's memory against what the kernel said about itself."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from introspect.errors import Corrupt, MemoryFault, NotFound
from introspect.kernel import Kernel
from introspect.memory import BufferMemory, open_image
from tests.introspect.guest import Guest


def truth_symbols(guest: Guest) -> list[tuple[int, str, str]]:
    rows = (line.split() for line in guest.truth["kallsyms"].splitlines() if "[" not in line)
    return [(int(row[0], 16), row[1], row[2]) for row in rows]


@pytest.mark.box
def test_every_symbol_equals_proc_kallsyms(guest: Guest, guest_kernel: Kernel) -> None:
    table = guest_kernel.symbols.table
    ours = [(table.address_at(i), table.type_at(i), table.name_at(i)) for i in range(len(table))]
    assert ours == truth_symbols(guest)
    assert len(ours) > 50_000


@pytest.mark.box
def test_release_and_facts(guest: Guest, guest_kernel: Kernel) -> None:
    banner = next(iter(guest_kernel.log())).text
    assert banner.startswith(f"Linux version {guest_kernel.release} ")
    symbols = guest_kernel.symbols
    assert guest_kernel.page_offset == guest_kernel.u64(symbols.address("page_offset_base"))
    assert guest_kernel.phys_base % (2 << 20) == 0
    assert re.fullmatch("[0-9a-f]{40}", guest_kernel.build_id)


@pytest.mark.box
def test_log_equals_dmesg(guest: Guest, guest_kernel: Kernel) -> None:
    # syslog(2) repeats the time on every line of a record, dmesg(1) and we indent
    ours = [
        f"<{record.level}>[{record.ts_ns // 10**9:5d}.{record.ts_ns // 1000 % 10**6:06d}] {line}"
        for record in guest_kernel.log()
        for line in record.text.split("\n")
    ]
    theirs = [
        re.sub(r"^<(\d+)>", lambda m: f"<{int(m[1]) & 7}>", line)
        for line in guest.truth["dmesg"].splitlines()
    ]
    assert len(theirs) > 100
    assert [line.rstrip() for line in ours[: len(theirs)]] == [line.rstrip() for line in theirs]
    last = [record for record in guest_kernel.log() if record.text == "introspect test guest"]
    assert [(record.level, record.caller) for record in last] == [(4, "T1")]


@pytest.mark.box
def test_elf_vmcore_and_raw_image_agree(guest: Guest, guest_kernel: Kernel) -> None:
    other = Kernel.find(open_image(guest.raw.with_name("vmcore.elf")))
    assert other.layout == guest_kernel.layout
    assert list(other.log()) == list(guest_kernel.log())


@pytest.mark.box
def test_vmcoreinfo_pa_may_name_note_or_text(guest: Guest, guest_kernel: Kernel) -> None:
    for symbol in ("vmcoreinfo_data", "vmcoreinfo_note"):
        va = guest_kernel.u64(guest_kernel.symbols.address(symbol))
        pa = guest_kernel.translate(va)
        kernel = Kernel.find(guest_kernel.memory, vmcoreinfo_pa=pa)
        assert kernel.layout == guest_kernel.layout
        assert kernel.vmcoreinfo_raw.startswith(b"OSRELEASE=")
    with pytest.raises(Corrupt):
        Kernel.find(guest_kernel.memory, vmcoreinfo_pa=guest_kernel.root_pgt)


@pytest.mark.box
def test_direct_map_image_and_walk_agree(guest_kernel: Kernel) -> None:
    image = guest_kernel.symbols.address("linux_banner")
    pa = guest_kernel.translate(image)
    direct = guest_kernel.page_offset + pa
    assert guest_kernel.read(image, 64) == guest_kernel.read(direct, 64)
    for va in (image, direct):
        leaf = guest_kernel.tables.walk(va)
        assert leaf.pa + va - leaf.va == pa


@pytest.mark.box
def test_user_addresses_fault(guest_kernel: Kernel) -> None:
    with pytest.raises(MemoryFault) as caught:
        guest_kernel.read(0x10, 8)
    assert caught.value.virtual


def test_memory_without_a_kernel_says_so() -> None:
    with pytest.raises(NotFound, match="no Linux kernel"):
        Kernel.find(BufferMemory([(0, bytes(1 << 20))]))


@pytest.mark.parametrize("kind", ["text", "random", "pattern"])
def test_files_without_a_kernel_say_so(tmp_path: Path, kind: str) -> None:
    data = {
        "text": b"OSRELEASE=6.1\nNUMBER(phys_base)=0\nSYMBOL(swapper_pg_dir)=ffffffff82410000\n"
        * 9000,
        "random": random.Random(1).randbytes(4 << 20),
        "pattern": b"\x23\xff" * (2 << 20),
    }[kind]
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(NotFound, match="no Linux kernel"):
        Kernel.find(open_image(path))
    assert list(Kernel.find_all(open_image(path))) == []
