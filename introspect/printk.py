# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log: the lockless ring buffer of 5.10 and later, and log_buf before.

Offsets come from VMCOREINFO, which every kernel of either kind writes, so
neither symbols nor types are needed.  Sources: kernel/printk/printk_ringbuffer.c
(6.1), kernel/printk/printk.c (4.19).

Text is raw: what user space wrote to /dev/kmsg is in it, terminal escapes
included.  `printable` makes a line fit for a terminal.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from introspect.btf import Btf
from introspect.errors import Corrupt, MemoryFault, NotFound
from introspect.kallsyms import SymbolTable
from introspect.memory import PAGE
from introspect.vmcoreinfo import VmcoreInfo

Reader = Callable[[int, int], bytes]

COMMITTED, FINALIZED = 1, 2  # enum desc_state
ID_MASK = (1 << 62) - 1
MAX_COUNT_BITS = 22
MAX_SIZE_BITS = 28  # CONFIG_LOG_BUF_SHIFT ends at 25; log_buf_len= may say more
CALLER_IS_CPU = 1 << 31
_U64 = struct.Struct("<Q")
_LPOS = struct.Struct("<QQ")
_OLD_RECORD = struct.Struct("<QHHHBB")  # ts_nsec len text_len dict_len facility flags:5,level:3
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -~])")


class LogRecord(NamedTuple):
    """One record; `caller` is "T<pid>" or "C<cpu>" or "" when the kernel keeps none."""

    seq: int
    ts_ns: int
    level: int
    caller: str
    text: str


def printable(text: str) -> str:
    """`text` without terminal escapes; "?" for control, invisible and unassigned characters."""
    if text.isprintable():
        return text
    plain = _ESCAPE.sub("", text)
    return "".join(c if c == "\t" or c.isprintable() else "?" for c in plain)


def lines(record: LogRecord) -> Iterator[str]:
    """The record as dmesg prints it, a line each, printable."""
    prefix = f"[{record.ts_ns // 10**9:5d}.{record.ts_ns // 1000 % 10**6:06d}] "
    for number, line in enumerate(record.text.split("\n")):
        yield (prefix if not number else " " * len(prefix)) + printable(line)


def read_log(read: Reader, info: VmcoreInfo) -> Iterator[LogRecord]:
    """The records, oldest first; NotFound when VMCOREINFO tells of no log."""
    if "SYMBOL(prb)" in info:
        yield from _read_ring(read, info)
    elif "SYMBOL(log_buf)" in info:
        yield from _read_log_buf(read, info)
    else:
        raise NotFound("VMCOREINFO names neither prb nor log_buf: no kernel log to read")


_NEEDED = {
    "printk_ringbuffer": ("desc_ring", "text_data_ring"),
    "prb_desc_ring": ("count_bits", "descs", "infos", "head_id", "tail_id"),
    "prb_desc": ("state_var", "text_blk_lpos"),
    "prb_data_ring": ("size_bits", "data"),
    "printk_info": ("seq", "ts_nsec", "text_len", "caller_id"),
}


def info_from_types(btf: Btf, symbols: SymbolTable) -> VmcoreInfo:
    """The VMCOREINFO fields that read_log needs, from BTF: for kernels without VMCOREINFO."""
    info = VmcoreInfo()
    info["SYMBOL(prb)"] = f"{symbols.address('prb'):x}"
    for name, members in _NEEDED.items():
        kind = btf.struct(name)
        info[f"SIZE({name})"] = str(kind.size)
        for member in members:
            info[f"OFFSET({name}.{member})"] = str(kind.offset(member))
    return info


@dataclass(frozen=True)
class _Ring:
    """struct printk_ringbuffer, its three arrays copied."""

    count: int
    size_bits: int
    head: int
    tail: int
    descs: bytes
    infos: bytes
    text: bytes


def _read_ring(read: Reader, info: VmcoreInfo) -> Iterator[LogRecord]:
    ring, descs_va = _copy_ring(read, info)
    desc_size, info_size = info.size("prb_desc"), info.size("printk_info")
    state_at = info.offset("prb_desc.state_var")
    lpos_at = info.offset("prb_desc.text_blk_lpos")
    # A writer that was at work while we copied shows as a changed state
    again = read(descs_va, desc_size * ring.count)
    at = ring.tail
    for _ in range(ring.count):
        index = at % ring.count
        (state,) = _U64.unpack_from(ring.descs, index * desc_size + state_at)
        same = (
            again[index * desc_size : (index + 1) * desc_size]
            == (ring.descs[index * desc_size : (index + 1) * desc_size])
        )
        if same and state & ID_MASK == at and state >> 62 in (COMMITTED, FINALIZED):
            begin, end = _LPOS.unpack_from(ring.descs, index * desc_size + lpos_at)
            record = ring.infos[index * info_size : (index + 1) * info_size]
            yield _record(info, record, ring, begin, end)
        if at == ring.head:
            break
        at = (at + 1) & ID_MASK


def _copy_ring(read: Reader, info: VmcoreInfo) -> tuple[_Ring, int]:
    """The ring and the virtual address of its descriptors; Corrupt when sizes are absurd."""

    def word(at: int) -> int:
        return int.from_bytes(read(at, 8), "little")

    def bits(at: int, most: int) -> int:
        value = int.from_bytes(read(at, 4), "little")
        if not 0 < value <= most:
            raise Corrupt(f"the log claims 2^{value} entries", at)
        return value

    rb = word(info.symbol("prb"))
    desc_ring = rb + info.offset("printk_ringbuffer.desc_ring")
    text_ring = rb + info.offset("printk_ringbuffer.text_data_ring")
    count = 1 << bits(desc_ring + info.offset("prb_desc_ring.count_bits"), MAX_COUNT_BITS)
    size_bits = bits(text_ring + info.offset("prb_data_ring.size_bits"), MAX_SIZE_BITS)
    _check_layout(info)
    counter = info.offset("atomic_long_t.counter") if "OFFSET(atomic_long_t.counter)" in info else 0
    descs = word(desc_ring + info.offset("prb_desc_ring.descs"))
    infos = word(desc_ring + info.offset("prb_desc_ring.infos"))
    data = word(text_ring + info.offset("prb_data_ring.data"))
    tail = word(desc_ring + info.offset("prb_desc_ring.tail_id") + counter) & ID_MASK
    head = word(desc_ring + info.offset("prb_desc_ring.head_id") + counter) & ID_MASK
    ring = _Ring(
        count,
        size_bits,
        head,
        tail,
        read(descs, info.size("prb_desc") * count),
        read(infos, info.size("printk_info") * count),
        _read_gaps(read, data, 1 << size_bits),
    )
    return ring, descs


def _check_layout(info: VmcoreInfo) -> None:
    """The member offsets must lie in structures of a sane size."""
    for struct_name, members, width in (
        ("prb_desc", ("state_var", "text_blk_lpos"), 16),
        ("printk_info", ("seq", "ts_nsec", "text_len", "caller_id"), 8),
    ):
        size = info.size(struct_name)
        if not 16 <= size <= 1024 or any(
            not 0 <= info.offset(f"{struct_name}.{member}") <= size - min(width, 4)
            for member in members
        ):
            raise Corrupt(f"VMCOREINFO describes struct {struct_name} absurdly", f"{size} bytes")


def _read_gaps(read: Reader, va: int, size: int) -> bytes:
    """The bytes, with zeros where pages were filtered out of the dump."""
    try:
        return read(va, size)
    except MemoryFault:
        parts = []
        for at in range(va, va + size, PAGE):
            try:
                parts.append(read(at, min(PAGE, va + size - at)))
            except MemoryFault:
                parts.append(bytes(min(PAGE, va + size - at)))
        return b"".join(parts)


def _record(info: VmcoreInfo, raw: bytes, ring: _Ring, begin: int, end: int) -> LogRecord:
    seq = int.from_bytes(_field(info, raw, "seq", 8), "little")
    ts = int.from_bytes(_field(info, raw, "ts_nsec", 8), "little")
    length_at = info.offset("printk_info.text_len")
    length = int.from_bytes(raw[length_at : length_at + 2], "little")
    # struct printk_info: u16 text_len, u8 facility, u8 flags:5 level:3 (no offset is exported)
    level = raw[length_at + 3] >> 5 if length_at + 3 < len(raw) else 0
    caller = int.from_bytes(_field(info, raw, "caller_id", 4), "little")
    text = _block(ring, begin, end)[:length].decode("utf-8", "replace")
    return LogRecord(seq, ts, level, _caller(caller), text)


def _field(info: VmcoreInfo, raw: bytes, name: str, size: int) -> bytes:
    at = info.offset(f"printk_info.{name}")
    return raw[at : at + size]


def _caller(value: int) -> str:
    return f"C{value & ~CALLER_IS_CPU}" if value & CALLER_IS_CPU else f"T{value}"


def _block(ring: _Ring, begin: int, end: int) -> bytes:
    """The text of a data block, without its id word (get_data() of printk_ringbuffer.c)."""
    if begin & 1:  # FAILED_LPOS, EMPTY_LINE_LPOS: no block
        return b""
    mask = (1 << ring.size_bits) - 1
    start, stop = begin & mask, end & mask
    if begin >> ring.size_bits != end >> ring.size_bits:
        if stop:
            start = 0  # did not fit before the edge: stored whole at the start
        else:
            stop = mask + 1
    return ring.text[start + 8 : stop]


def _read_log_buf(read: Reader, info: VmcoreInfo) -> Iterator[LogRecord]:
    """log_buf of 3.5 to 5.9: variable-size struct printk_log; a length of zero wraps."""
    buffer = int.from_bytes(read(info.symbol("log_buf"), 8), "little")
    size = int.from_bytes(read(info.symbol("log_buf_len"), 4), "little")
    if not PAGE // 4 <= size <= 1 << MAX_SIZE_BITS:
        raise Corrupt(f"log_buf_len is {size}", info.symbol("log_buf_len"))
    at = int.from_bytes(read(info.symbol("log_first_idx"), 4), "little")
    end = int.from_bytes(read(info.symbol("log_next_idx"), 4), "little")
    data = _read_gaps(read, buffer, size)
    header = info.size("printk_log")
    text_at = max(header, _OLD_RECORD.size)
    for seq in range(size // _OLD_RECORD.size):
        if at == end or at + _OLD_RECORD.size > size:
            return
        ts, length, text_length, _, _, flags = _OLD_RECORD.unpack_from(data, at)
        if length < _OLD_RECORD.size:
            if at == 0 or length:
                return
            at = 0
            continue
        raw = data[at + text_at : at + min(text_at + text_length, length)]
        caller = ""
        if header >= 20:  # CONFIG_PRINTK_CALLER, since 5.1
            caller = _caller(int.from_bytes(data[at + 16 : at + 20], "little"))
        yield LogRecord(seq, ts, flags >> 5, caller, raw.decode("utf-8", "replace"))
        at += length
