# SPDX-License-Identifier: GPL-2.0-or-later
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashdump.errors import BadSegment
from crashdump.facts import MAX_RUNS, Run, Segment, clip, find, merge, ordered


@pytest.mark.parametrize("hint", ["agent", "none", "wrong"])
def test_a_kernel_is_found(synthetic_kernel, hint: str) -> None:
    kernel = synthetic_kernel
    note = {"agent": kernel.note_pa, "none": 0, "wrong": kernel.base + 0x3000}[hint]
    facts = find(kernel.segments, note)
    assert facts.remark == ""
    assert facts.release == "6.1.0-test"
    assert facts.vmcoreinfo.rstrip() == kernel.info.rstrip()
    assert (facts.phys_base, facts.page_offset) == (kernel.phys_base, kernel.page_offset)
    assert facts.image == (Run(kernel.text, kernel.image_pa, 4 * 4096),)
    assert facts.others == (
        Run(kernel.vmalloc, kernel.base + 0x300000, 4096),
        Run(kernel.vmalloc + 4096, kernel.base + 0x310000, 4096),
    )


def test_page_tables_in_a_loop_end(synthetic_kernel) -> None:
    kernel = synthetic_kernel
    every = struct.pack("<Q", kernel.root | 3) * 512
    kernel.poke(kernel.root, every)  # every entry leads back to the top table
    facts = find(kernel.segments, kernel.note_pa)
    assert len(facts.image) <= MAX_RUNS
    assert len(facts.others) <= MAX_RUNS
    assert facts.remark


def test_no_kernel_is_no_error() -> None:
    facts = find([Segment(0x1000, memoryview(bytes(1 << 20)))])
    assert facts.vmcoreinfo == b""
    assert facts.remark.startswith("no kernel found")


@given(st.binary(min_size=1, max_size=200), st.integers(0, 4000))
def test_a_damaged_note_is_no_error(damage: bytes, at: int) -> None:
    from tests.crashdump.conftest import SyntheticKernel

    kernel = SyntheticKernel()
    kernel.poke(kernel.note_pa + at, damage)
    find(kernel.segments, kernel.note_pa)
    kernel.poke(kernel.root + at // 8 * 8, damage)
    find(kernel.segments, kernel.note_pa)


@pytest.mark.parametrize(
    "segments",
    [
        [(0x1000, 0x2000), (0x2000, 0x1000)],
        [(0x1001, 0x1000)],
        [(0x1000, 0x1001)],
        [(0x1000, 0)],
    ],
)
def test_bad_segments_are_refused(segments: list[tuple[int, int]]) -> None:
    with pytest.raises(BadSegment, match="whole pages"):
        ordered([Segment(pa, memoryview(bytes(size))) for pa, size in segments])


def test_runs_are_clipped_to_the_memory() -> None:
    ranges = [(0x1000, 0x1000), (0x4000, 0x2000)]
    assert list(clip(ranges, Run(0xF000, 0, 0x5000))) == [
        Run(0x10000, 0x1000, 0x1000),
        Run(0x13000, 0x4000, 0x1000),
    ]


def test_merging_is_bounded() -> None:
    runs = [Run(i * 0x2000, i * 0x2000, 0x1000) for i in range(10)]
    assert merge(runs, limit=4) == (runs[:4], True)
    assert merge([Run(0, 0x5000, 4096), Run(4096, 0x6000, 4096)]) == ([Run(0, 0x5000, 8192)], False)
