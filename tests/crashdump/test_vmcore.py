# SPDX-License-Identifier: GPL-2.0-or-later
"""The written file: content, holes, atomicity, limits."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashdump import sparse, vmcore
from crashdump.errors import DiskFull
from crashdump.facts import KernelFacts, Segment, find
from crashdump.notes import CpuState
from crashdump.sparse import CHUNK, PAGE, nonzero_runs

EMPTY = KernelFacts()


def memory_of(pages: list[int]) -> bytearray:
    """One page each: 0 = zeros, n = its n-th byte is set."""
    data = bytearray(len(pages) * PAGE)
    for index, page in enumerate(pages):
        if page:
            data[index * PAGE + page - 1] = 0xFF
    return data


@given(st.lists(st.sampled_from([0, 0, 0, 1, PAGE]), max_size=70))
def test_runs_are_exactly_the_pages_that_are_not_zero(pages: list[int]) -> None:
    runs = list(nonzero_runs(memoryview(memory_of(pages))))
    found = {page for start, end in runs for page in range(start // PAGE, -(-end // PAGE))}
    assert found == {index for index, page in enumerate(pages) if page}
    assert all(start < end and start % PAGE == 0 for start, end in runs)


def test_runs_are_split() -> None:
    runs = list(nonzero_runs(memoryview(b"x" * (3 * sparse.BATCH))))
    assert [end - start for start, end in runs] == [sparse.BATCH] * 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.sampled_from([0, 1, 17, PAGE]), min_size=1, max_size=40))
def test_the_file_holds_the_memory(tmp_path: Path, pages: list[int]) -> None:
    data = memory_of(pages)
    segments = [
        Segment(0x100000, memoryview(data)),
        Segment(0x8000, memoryview(b"\1" * PAGE)),
    ]
    summary = vmcore.write(tmp_path / "vmcore", segments, [], EMPTY)
    assert summary.size == vmcore.HEADER_SPACE + len(data) + PAGE
    with (tmp_path / "vmcore").open("rb") as file:
        loads = [(s["p_paddr"], s.data()) for s in ELFFile(file).iter_segments("PT_LOAD")]
    assert loads == [(0x8000, b"\1" * PAGE), (0x100000, bytes(data))]


def test_every_mapping_reads_as_the_memory(
    synthetic_kernel, two_cpus: list[CpuState], tmp_path: Path
) -> None:
    kernel = synthetic_kernel
    facts = find(kernel.segments, kernel.note_pa)
    out = tmp_path / "vmcore"
    summary = vmcore.write(out, kernel.segments, two_cpus, facts)
    with out.open("rb") as file:
        loads = list(ELFFile(file).iter_segments("PT_LOAD"))
        by_address = {s["p_vaddr"]: s.data() for s in loads}
    assert summary.loads == len(loads) == 4
    assert list(by_address)[-1] == kernel.page_offset + kernel.base
    assert by_address[kernel.text].startswith(b"text page 0")
    assert by_address[kernel.page_offset + kernel.base] == bytes(kernel.memory)
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.stat().st_blocks * 512 < summary.size / 2
    assert [path.name for path in tmp_path.iterdir()] == ["vmcore"]


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "budget", lambda path, *_: sparse.Budget(path, 1 << 20))
    with pytest.raises(DiskFull):
        vmcore.write(tmp_path / "v", [Segment(0, memoryview(b"x" * (4 << 20)))], [], EMPTY)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v").write_bytes(b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sparse, "write_at", interrupt)
    with pytest.raises(KeyboardInterrupt):
        vmcore.write(tmp_path / "v", [Segment(0, memoryview(b"x" * CHUNK))], [], EMPTY)
    assert (tmp_path / "v").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "reserve", [64 << 20, 0, -(64 << 20)], ids=["before", "counted", "by the kernel"]
)
def test_a_full_disk_leaves_nothing(small_disk: Path, reserve: int) -> None:
    segments = [Segment(0, memoryview(b"x" * (8 << 20)))]
    with pytest.raises(DiskFull, match="no space left"):
        vmcore.write(small_disk / "vmcore", segments, [], EMPTY, reserve=reserve)
    assert not list(small_disk.iterdir())


def test_killed_at_any_moment_no_half_file_has_the_name(tmp_path: Path) -> None:
    data = memoryview(os.urandom(1 << 20) * 16)
    whole = vmcore.write(tmp_path / "whole", [Segment(0, data)], [], EMPTY)
    rng = random.Random(2)
    for _ in range(25):
        out = tmp_path / "vmcore"
        out.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            vmcore.write(out, [Segment(0, data)], [], EMPTY)
            os._exit(0)
        time.sleep(rng.uniform(0, 1.5 * whole.seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if out.exists():
            assert out.read_bytes() == (tmp_path / "whole").read_bytes()
