# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.elfcore import ElfMemory
from introspect.errors import BadImage, IntrospectError, MemoryFault, ToolMissing
from introspect.kdump import LZO, ZLIB, ZSTD, KdumpMemory, plain_reader
from introspect.kernel import Kernel
from introspect.memory import PAGE, open_image
from introspect.registers import from_pt_regs
from tests.introspect.conftest import stock_kernel
from tests.introspect.guest import READY, initramfs, running, wait_for

INFO = b"OSRELEASE=6.1-test\n"


def kdump(pages: dict[int, bytes], flags: int = ZLIB) -> bytes:
    """A kdump-compressed file with these pages."""
    head = bytearray(PAGE)
    head[:8] = b"KDUMP   "
    struct.pack_into("<iiI", head, 428, PAGE, 1, 2)
    sub = bytearray(PAGE)
    struct.pack_into("<qqqq", sub, 32, PAGE + 256, len(INFO), 0, 0)
    sub[256 : 256 + len(INFO)] = INFO
    bitmap = bytearray(PAGE)
    for number in pages:
        bitmap[number >> 3] |= 1 << (number & 7)
    pack = {ZLIB: zlib.compress, 0: bytes, LZO: bytes}.get(flags) or pytest.importorskip(
        "zstandard"
    ).compress
    descriptors, data = b"", b""
    start = 4 * PAGE + 24 * len(pages)
    for number in sorted(pages):
        packed = pack(pages[number])
        descriptors += struct.pack("<qIIQ", start + len(data), len(packed), flags, 0)
        data += packed
    return bytes(head + sub + bitmap + bitmap) + descriptors + data


def flattened(data: bytes, chunk: int = 3000) -> bytes:
    out = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    out = out.ljust(4096, b"\0")
    for at in range(0, len(data), chunk):
        piece = data[at : at + chunk]
        out += struct.pack(">qq", at, len(piece)) + piece
    return out + struct.pack(">qq", -1, -1)


PAGES = {n: bytes([n % 251]) * PAGE for n in [1, 2, 3, 9, 16, *range(5000, 5100)]}


@pytest.mark.parametrize("flags", [0, ZLIB, ZSTD])
@pytest.mark.parametrize("flat", [False, True])
def test_pages_ranges_and_vmcoreinfo(tmp_path: Path, flags: int, flat: bool) -> None:
    path = tmp_path / "dump"
    data = kdump(PAGES, flags)
    path.write_bytes(flattened(data) if flat else data)
    memory = open_image(path)
    assert isinstance(memory, KdumpMemory)
    assert memory.vmcoreinfo_raw == INFO
    assert memory.ranges == [
        (PAGE, 3 * PAGE), (9 * PAGE, PAGE), (16 * PAGE, PAGE), (5000 * PAGE, 100 * PAGE),
    ]  # fmt: skip
    for number, page in PAGES.items():
        assert memory.read(number * PAGE, PAGE) == page
    assert memory.read(2 * PAGE - 2, 4) == b"\1\1\2\2"
    for pa, size in ((0, 1), (3 * PAGE, PAGE + 1), (1 << 40, 8), (-1, 1), (PAGE, 1 << 40)):
        with pytest.raises(MemoryFault):
            memory.read(pa, size)


def test_lzo_names_the_tool() -> None:
    memory = KdumpMemory(plain_reader(kdump(PAGES, LZO)), "dump")
    with pytest.raises(ToolMissing, match="makedumpfile -c"):
        memory.read(PAGE, 8)


@given(st.data())
def test_mutated_dumps_raise_only_our_errors(data: st.DataObject) -> None:
    file = bytearray(kdump({1: bytes(PAGE), 2: b"x" * PAGE, 70: b"y" * PAGE}))
    places = st.one_of(st.integers(424, 464), st.integers(PAGE, PAGE + 104),
                       st.integers(2 * PAGE, len(file) - 1))  # fmt: skip
    for _ in range(data.draw(st.integers(1, 5))):
        file[data.draw(places)] = data.draw(st.integers(0, 255))
    file = file[: data.draw(st.integers(0, len(file)))]
    try:
        memory = KdumpMemory(plain_reader(bytes(file)), "dump")
        assert memory.vmcoreinfo_raw is None or isinstance(memory.registers, list)
        for start, _ in memory.ranges:
            assert len(memory.read(start, PAGE)) == PAGE
    except IntrospectError:
        pass


@pytest.mark.box
def test_qemus_kdump_and_makedumpfiles_read_as_the_elf_does(tmp_path: Path) -> None:
    if not shutil.which("makedumpfile"):
        pytest.skip("needs makedumpfile (package makedumpfile)")
    image, _ = stock_kernel()
    files = {"elf": tmp_path / "elf", "kdump": tmp_path / "flat"}
    with running(tmp_path, image, initramfs([])) as (qmp, _, process):
        wait_for(tmp_path / "console", READY, process)
        qmp.command("stop")
        qmp.command("dump-guest-memory", paging=False, protocol=f"file:{files['elf']}")
        qmp.command(
            "dump-guest-memory", paging=False, protocol=f"file:{files['kdump']}",
            format="kdump-zlib",
        )  # fmt: skip
    with files["kdump"].open("rb") as flat:
        plain = tmp_path / "plain"
        subprocess.run(["makedumpfile", "-R", plain], stdin=flat, check=True, timeout=60,
                       capture_output=True)  # fmt: skip
    elf = open_image(files["elf"])
    truth = Kernel.find(elf)
    for path in (files["kdump"], plain):
        memory = open_image(path)
        kernel = Kernel.find(memory)
        assert kernel.layout == truth.layout
        assert list(kernel.log()) == list(truth.log())
        assert list(kernel.tasks()) == list(truth.tasks())
        assert isinstance(memory, KdumpMemory) and isinstance(elf, ElfMemory)
        assert [from_pt_regs(r) for r in memory.registers] == [
            from_pt_regs(r) for r in elf.registers
        ]
    cut = tmp_path / "cut"
    cut.write_bytes(plain.read_bytes()[: 1 << 20])
    with pytest.raises(BadImage, match="truncated"):
        Kernel.find(open_image(cut))
    whole = plain.read_bytes()
    cut.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(BadImage, match="truncated"):
        open_image(cut)
    part = open_image(cut, partial=True)
    assert isinstance(part, KdumpMemory) and 0 < part.missing < 256 << 20
    low = open_image(plain).ranges[0][0]
    assert part.read(low, 4096) == open_image(plain).read(low, 4096)
    last = part.ranges[-1]
    with pytest.raises(MemoryFault, match="truncated"):
        part.read(last[0] + last[1] - 4096, 4096)
    flat = files["kdump"].read_bytes()
    cut.write_bytes(flat[: len(flat) * 9 // 10])
    with pytest.raises(BadImage, match="truncated"):
        open_image(cut)
    flattened = open_image(cut, partial=True)
    assert isinstance(flattened, KdumpMemory) and flattened.missing
