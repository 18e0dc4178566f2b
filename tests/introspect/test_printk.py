# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.errors import Corrupt, IntrospectError, MemoryFault, NotFound
from introspect.memory import BufferMemory
from introspect.printk import LogRecord, lines, printable, read_log
from introspect.vmcoreinfo import VmcoreInfo, parse

LAYOUT = b"""OSRELEASE=test
SYMBOL(prb)=1000
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=48
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
SIZE(prb_desc)=24
OFFSET(prb_desc.state_var)=0
OFFSET(prb_desc.text_blk_lpos)=8
SIZE(printk_info)=88
OFFSET(printk_info.seq)=0
OFFSET(printk_info.ts_nsec)=8
OFFSET(printk_info.text_len)=16
OFFSET(printk_info.caller_id)=20
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
"""
COUNT_BITS, SIZE_BITS = 3, 8
DESCS, INFOS, DATA = 0x2000, 0x3000, 0x4000


def ring(
    records: list[tuple[int, int, int, int, bytes]], *, head: int, tail: int
) -> tuple[bytearray, VmcoreInfo]:
    """Memory of a ring with (id, state, begin, next, text), and its VMCOREINFO."""
    memory = bytearray(0x5000)
    struct.pack_into("<Q", memory, 0x1000, 0x1100)
    struct.pack_into("<I4xQQQQ", memory, 0x1100, COUNT_BITS, DESCS, INFOS, head, tail)
    struct.pack_into("<I4xQ", memory, 0x1100 + 48, SIZE_BITS, DATA)
    for number, state, begin, end, text in records:
        index = number % (1 << COUNT_BITS)
        struct.pack_into("<QQQ", memory, DESCS + 24 * index, number | state << 62, begin, end)
        struct.pack_into(
            "<QQHBBI", memory, INFOS + 88 * index,
            number, number * 10**9, len(text), 0, 6 << 5, 1 << 31 | 3,
        )  # fmt: skip
        mask = (1 << SIZE_BITS) - 1
        start = begin & mask
        if begin >> SIZE_BITS != end >> SIZE_BITS and end & mask:
            start = 0
        if not begin & 1:
            memory[DATA + start + 8 : DATA + start + 8 + len(text)] = text
    return memory, parse(LAYOUT)


def read(memory: bytearray, info: VmcoreInfo) -> list[LogRecord]:
    return list(read_log(BufferMemory([(0, bytes(memory))]).read, info))


def test_records_levels_callers_and_wrapped_blocks() -> None:
    records = [
        (9, 2, 0, 32, b"reused"),
        (10, 2, 32, 64, b"first"),
        (11, 1, 64, 96, b"committed"),
        (12, 0, 96, 128, b"still written"),
        (13, 3, 128, 160, b"given up"),
        (14, 2, 1, 1, b"no text"),
        (15, 2, 240, 256 + 32, b"wrapped"),
        (16, 2, 256 + 224, 512, b"to the edge"),
    ]
    got = read(*ring(records, head=16, tail=10))
    assert [record.text for record in got] == ["first", "committed", "", "wrapped", "to the edge"]
    assert got[0] == LogRecord(10, 10 * 10**9, 6, "C3", "first")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(0x1100, 60, r"2\^60"), (0x1100 + 48, 0, r"2\^0"), (0x1100 + 48, 29, r"2\^29")],
)
def test_absurd_sizes_are_corrupt(at: int, value: int, said: str) -> None:
    memory, info = ring([], head=0, tail=0)
    struct.pack_into("<I", memory, at, value)
    with pytest.raises(Corrupt, match=said):
        read(memory, info)


def test_no_log_is_said() -> None:
    with pytest.raises(NotFound, match="no kernel log"):
        read(bytearray(16), parse(b"OSRELEASE=x\n"))


def test_a_log_page_that_was_filtered_out_reads_as_zeros() -> None:
    memory, info = ring([(1, 2, 0, 32, b"kept"), (2, 2, 32, 64, b"lost")], head=2, tail=1)
    parts = BufferMemory([(0, bytes(memory[:DATA]))])
    texts = [record.text for record in read_log(parts.read, info)]
    assert texts == ["\0" * 4, "\0" * 4]
    descs_gone = BufferMemory([(0, bytes(memory[:DESCS]))])
    with pytest.raises(MemoryFault):
        list(read_log(descs_gone.read, info))


@given(st.data())
def test_mutated_rings_end(data: st.DataObject) -> None:
    memory, info = ring([(i, 2, 32 * i, 32 * i + 32, b"x" * 20) for i in range(8)], head=7, tail=0)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.sampled_from([0x1000, 0x1100, DESCS, INFOS])) + data.draw(
            st.integers(0, 200)
        )
        memory[at] = data.draw(st.integers(0, 255))
    try:
        assert len(read(memory, info)) <= 8
    except IntrospectError:
        pass


def old_log(records: list[tuple[int, bytes]], size: int = 4096) -> tuple[bytearray, VmcoreInfo]:
    memory = bytearray(0x3000)
    at = 0
    for ts, text in records:
        length = (16 + len(text) + 7) & -8
        struct.pack_into("<QHHHBB", memory, 0x2000 + at, ts, length, len(text), 0, 0, 4 << 5)
        memory[0x2010 + at : 0x2010 + at + len(text)] = text
        at += length
    struct.pack_into("<QIII", memory, 0x1000, 0x2000, size, 0, at)
    info = b"OSRELEASE=x\nSYMBOL(log_buf)=1000\nSYMBOL(log_buf_len)=1008\nSIZE(printk_log)=16\n"
    info += b"SYMBOL(log_first_idx)=100c\nSYMBOL(log_next_idx)=1010\n"
    return memory, parse(info)


def test_log_buf_of_old_kernels() -> None:
    got = read(*old_log([(5, b"one"), (7, b"two")]))
    assert got == [LogRecord(0, 5, 4, "", "one"), LogRecord(1, 7, 4, "", "two")]


@given(st.binary(max_size=400), st.integers(0, 5000), st.integers(0, 5000))
def test_random_log_buf_ends(blob: bytes, first: int, end: int) -> None:
    memory, info = old_log([])
    memory[0x2000 : 0x2000 + len(blob)] = blob
    struct.pack_into("<II", memory, 0x100C, first, end)
    try:
        assert len(read(memory, info)) <= 4096
    except IntrospectError:
        pass


@given(st.text())
def test_printable_text_cannot_drive_a_terminal(text: str) -> None:
    for out in (printable(text), *lines(LogRecord(0, 0, 0, "", text))):
        assert out.replace("\t", "").isprintable()


def test_escapes_are_removed_whole() -> None:
    assert printable("\x1b[31mred\x1b[0m \x1b]0;title\x07x\u202ey") == "red x?y"
    # zero width, line separator, unassigned (found by fuzzing titles), lone surrogate
    assert printable("\u200b\u2028\u07fc\ud800 é\t语") == "???? é\t语"
