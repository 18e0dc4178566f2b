# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's ACPI tables, and what of them reaches a vnode's command line."""

from __future__ import annotations

import struct

import pytest

from adeos import cmdline, firmware


def fadt(size: int = 244, port: int = 0, space: int = 0, extended: int = 0) -> bytes:
    table = bytearray(size)
    struct.pack_into("<I", table, 76, port)
    if size >= 220:
        struct.pack_into("<BBBBQ", table, 208, space, 32, 0, 3, extended)
    return bytes(table)


@pytest.mark.parametrize(
    ("table", "port"),
    [
        (fadt(port=0x608), 0x608),
        (fadt(port=0x608, space=1, extended=0x1808), 0x1808),
        (fadt(port=0x608, space=0, extended=0xFED40000), 0x608),  # in memory: not for pmtmr=
        (fadt(116, port=0x408), 0x408),  # ACPI 1.0
        (fadt(), 0),  # hardware-reduced
        (fadt(port=0x10000), 0),
        (b"FACP", 0),
        (b"", 0),
    ],
)
def test_the_port_of_the_timer(table: bytes, port: int) -> None:
    assert firmware.fadt_pm_timer(table) == port


@pytest.mark.parametrize(("port", "word"), [(0x608, ["pmtmr=0x608"]), (0, [])])
def test_a_vnode_is_told_the_port(
    monkeypatch: pytest.MonkeyPatch, port: int, word: list[str]
) -> None:
    monkeypatch.setattr(firmware, "pm_timer", lambda: port)
    words = cmdline.compose(1000000, "quiet", 4096).rstrip(b"\0").decode().split()
    assert [one for one in words if one.startswith("pmtmr")] == word
    assert words[-1] == "quiet"
