# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect import locate
from introspect.elfcore import build_id
from introspect.errors import BadImage, IntrospectError, NotFound
from introspect.image import KernelImage, extract_vmlinux, open_kernel_image
from introspect.kernel import Kernel
from introspect.memory import BufferMemory, open_image
from tests.introspect.conftest import stock_kernel
from tests.introspect.guest import Guest

PAGE = 4096


def blank_vmcoreinfo(guest: Guest, kernel: Kernel) -> BufferMemory:
    """The guest's memory as if its kernel had been built without VMCOREINFO."""
    data = bytearray(guest.raw.read_bytes())
    for symbol in ("vmcoreinfo_data", "vmcoreinfo_note"):
        pa = kernel.translate(kernel.u64(kernel.symbols.address(symbol)))
        data[pa : pa + PAGE] = bytes(PAGE)
    return BufferMemory([(0, data)])


@pytest.mark.box
def test_a_kernel_without_vmcoreinfo_reads_the_same(guest: Guest, guest_kernel: Kernel) -> None:
    memory = blank_vmcoreinfo(guest, guest_kernel)
    (kernel,) = Kernel.find_all(memory)
    assert kernel.vmcoreinfo == {}
    assert kernel.layout == guest_kernel.layout
    assert (kernel.release, kernel.build_id) == (guest_kernel.release, guest_kernel.build_id)
    assert list(kernel.log()) == list(guest_kernel.log())
    assert list(kernel.tasks()) == list(guest_kernel.tasks())
    assert list(kernel.symbols.items()) == list(guest_kernel.symbols.items())


@pytest.mark.box
def test_text_is_found_by_signature_banner_and_page_table(
    guest: Guest, guest_kernel: Kernel
) -> None:
    text = guest_kernel.translate(guest_kernel.symbols.address("_text"))
    memory = guest_kernel.memory
    vmlinux = open_kernel_image(stock_kernel()[0])
    assert locate.kernel_text(memory, vmlinux.anchor()) == text
    assert list(locate.texts_by_page_table(memory)) == [text]
    assert locate.kernel_text(memory) == text
    jiffies = int.from_bytes(memory.read(text + vmlinux.offset("jiffies_64"), 8), "little")
    assert jiffies == int(guest_kernel.object("jiffies_64"))


@pytest.mark.box
def test_a_kernel_image_holds_what_its_kernel_holds(guest_kernel: Kernel) -> None:
    vmlinux = open_kernel_image(stock_kernel()[0])
    assert (vmlinux.release, vmlinux.build_id) == (guest_kernel.release, guest_kernel.build_id)
    table, live = vmlinux.symbols, guest_kernel.symbols.table
    assert table.names == live.names and table.offsets == live.offsets
    assert len(vmlinux.btf) == len(guest_kernel.btf)
    assert vmlinux.section(".orc_unwind_ip") and vmlinux.section("__ksymtab")


@pytest.mark.box
def test_the_image_file_fills_the_cache_for_its_kernel(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VNODE_DEBUG_CACHE", str(tmp_path))
    assert open_kernel_image(stock_kernel()[0]).symbols
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.stat().st_mtime_ns
    assert len(Kernel.find(open_image(guest.raw)).symbols) > 50_000
    assert [(f, f.stat().st_mtime_ns) for f in tmp_path.iterdir()] == [(file, before)]


@pytest.mark.box
def test_both_kernels_of_one_memory_are_listed(
    guest: Guest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.introspect.guest import boot

    # the second is kept out of the memory that the first has, but for its low megabyte
    directory = tmp_path_factory.mktemp("second")
    cmdline = "memmap=256M$0x100000"
    second = boot(directory, stock_kernel()[0], [], cmdline=cmdline, memory=640)
    other = second.raw.read_bytes()
    start = 257 << 20
    memory = BufferMemory([(0, guest.raw.read_bytes()), (start, other[start:])])
    kernels = list(Kernel.find_all(memory))
    assert len(kernels) == 2
    uptimes = {int(kernel.object("jiffies_64")) for kernel in kernels}
    assert len(uptimes) == 2
    for kernel in kernels:
        assert any(task.comm == "kthreadd" for task in kernel.tasks())


def test_memory_without_kernels_has_none() -> None:
    memory = BufferMemory([(1 << 20, bytes(8 << 20))])
    assert list(Kernel.find_all(memory)) == []
    with pytest.raises(NotFound, match="2 MiB boundary"):
        locate.kernel_text(memory)


def elf(sections: dict[str, bytes], va: int = 0xFFFF_FFFF_8100_0000) -> bytes:
    names, body, rows = b"\0", b"", [bytes(64)]
    for name, data in [*sections.items(), (".shstrtab", b"")]:
        at = len(names)
        names += name.encode() + b"\0"
        if name == ".shstrtab":
            data = names
        rows.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, va, 64 + len(body), len(data), 0, 0, 0, 0))
        body += data
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, 0, 64 + len(body), 0,
        64, 56, 0, 64, len(rows), len(rows) - 1,
    )  # fmt: skip
    return head + body + b"".join(rows)


def lz4_legacy(data: bytes) -> bytes:
    block = pytest.importorskip("lz4.block").compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + len(block).to_bytes(4, "little") + block


PACKERS = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "lz4": lz4_legacy,
    "zstd": lambda data: pytest.importorskip("zstandard").compress(data),
    "plain": lambda data: data,
}


def bzimage(payload: bytes) -> bytes:
    """Setup sectors, then the payload 64 bytes into the protected-mode part."""
    head = bytearray(1024 + 64)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 64, len(payload))
    return bytes(head) + payload


@pytest.mark.parametrize("packer", PACKERS)
def test_every_payload_format_is_unpacked(packer: str) -> None:
    vmlinux = elf({".text": b"code" * 100, ".rodata": b"Linux version 6.1-test (x) #1"})
    size = len(vmlinux).to_bytes(4, "little")
    for file in (bzimage(PACKERS[packer](vmlinux) + size), PACKERS[packer](vmlinux)):
        kernel = KernelImage(extract_vmlinux(file), "test")
        assert kernel.section(".text") == b"code" * 100
        assert kernel.release == "6.1-test"
        assert kernel.read(0xFFFF_FFFF_8100_0004, 4) == b"code"


def test_files_that_are_no_kernel_say_so() -> None:
    for data in (b"", b"hello world" * 100, bzimage(b"junk"), bzimage(gzip.compress(b"x"))):
        with pytest.raises(BadImage):
            extract_vmlinux(data, "file")
    with pytest.raises(BadImage, match="truncated"):
        extract_vmlinux(bzimage(bytes(5000))[:2000], "file")
    with pytest.raises(BadImage, match="No such file"):
        open_kernel_image("/nonexistent/vmlinuz")


@given(st.data())
def test_mutated_images_raise_only_our_errors(data: st.DataObject) -> None:
    packer = data.draw(st.sampled_from(["gzip", "xz", "bzip2", "lz4", "zstd", "plain"]))
    file = bytearray(bzimage(PACKERS[packer](elf({".text": b"x" * 50, ".rodata": b"y"}))))
    for _ in range(data.draw(st.integers(0, 5))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        kernel = KernelImage(
            extract_vmlinux(bytes(file[: data.draw(st.integers(0, len(file)))])), "x"
        )
        for section in kernel.sections:
            kernel.section(section.name)
        assert kernel.release is not None and build_id(kernel.data[:200]) is not None
    except IntrospectError:
        pass


@pytest.mark.box
def test_a_truncated_vmcore_is_refused(
    guest: Guest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "vmcore"
    with guest.raw.with_name("vmcore.elf").open("rb") as file:
        path.write_bytes(file.read(10 << 20))
    with pytest.raises(BadImage, match="truncated"):
        open_image(path)
