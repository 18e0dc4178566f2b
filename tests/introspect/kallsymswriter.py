# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes kallsyms tables in each layout the kernel has had."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from introspect.kallsyms import Tables

BASE = 0xFFFF_FFFF_8100_0000


def token_list() -> list[bytes]:
    """One token for each byte, but a few that stand for whole words, as the compressor makes."""
    tokens = [bytes([i]) if 32 < i < 127 else b"" for i in range(256)]
    tokens[1], tokens[2], tokens[200] = b"Tfun", b"ction", b"_number_"
    return tokens


def encode(name: str) -> bytes:
    """A name as tokens, with its length before it."""
    for token, word in ((1, "Tfun"), (2, "ction"), (200, "_number_")):
        name = name.replace(word, chr(token))
    data = name.encode("latin-1")
    size = len(data)
    return (bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])) + data


def pad(data: bytes, align: int = 8) -> bytes:
    return data + bytes(-len(data) % align)


def write(
    symbols: Sequence[tuple[str, int]], layout: str = "4.6", va: int = BASE, lead: int = 4096
) -> tuple[bytes, Tables]:
    """An image of `lead` bytes and the tables of (type + name, address), in address order.

    layout  "4.6", "6.2", "6.4", "6.15" (no absolute symbols) or "7.2" (place-relative)
    """
    names = b"".join(encode(name) for name, _ in symbols)
    markers, at = [], 0
    for index, (name, _) in enumerate(symbols):
        if index % 256 == 0:
            markers.append(at)
        at += len(encode(name))
    tokens = token_list()
    table = b"".join(token + b"\0" for token in tokens)
    starts, at = [], 0
    for token in tokens:
        starts.append(at)
        at += len(token) + 1
    align = 4 if layout == "7.2" else 8
    unpadded = {
        "num_syms": struct.pack("<I", len(symbols)),
        "names": names,
        "markers": struct.pack(f"<{len(markers)}I", *markers),
        "seqs": bytes(3 * len(symbols)),
        "token_table": table,
        "token_index": struct.pack("<256H", *starts),
        "offsets": bytes(4 * len(symbols)),
        "relative_base": struct.pack("<Q", BASE),
    }
    parts = {name: pad(data, align) for name, data in unpadded.items()}
    head = ["num_syms", "names", "markers"]
    token = ["token_table", "token_index"]
    order = {
        "4.6": ["offsets", "relative_base", *head, *token],
        "6.2": ["offsets", "relative_base", *head, "seqs", *token],
        "6.4": [*head, *token, "offsets", "relative_base", "seqs"],
        "6.15": [*head, *token, "offsets", "relative_base", "seqs"],
        "7.2": [*head, *token, "offsets", "seqs"],
    }[layout]
    where, at = {}, lead
    for part in order:
        where[part], at = at, at + len(parts[part])
    raw = []
    for index, (_, address) in enumerate(symbols):
        if layout == "7.2":
            raw.append(address - (va + where["offsets"] + 4 * index))
        elif layout == "6.15":
            raw.append(address - BASE)
        else:
            raw.append(address if address < 1 << 31 else -1 - (address - BASE))
    parts["offsets"] = pad(struct.pack(f"<{len(raw)}i", *raw), align)
    image = bytes(lead) + b"".join(parts[part] for part in order)
    base = where.get("relative_base")
    tables = Tables(
        where["names"], where["num_syms"], where["token_table"], where["token_index"],
        where["offsets"], base, va + where["offsets"] if base is None else 0,
    )  # fmt: skip
    return image, tables


def sample(count: int = 600, absolute: int = 3) -> list[tuple[str, int]]:
    """`absolute` per-CPU symbols, then text, one with a name of more than 127 tokens."""
    percpu = [(f"Apercpu_number_{i}", 0x1000 * i) for i in range(absolute)]
    text = [(f"Tfunction_number_{i}", BASE + 16 * i) for i in range(count - absolute)]
    text[5] = ("t" + "x" * 300, text[5][1])
    text[7] = ("Talias", text[6][1])
    return percpu + text
