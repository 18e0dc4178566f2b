# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads over the GDB protocol: our server against the one inside QEMU, by bench/rsp.py."""

from __future__ import annotations

import statistics

from bench import rsp
from bench.peers.table import NotHere, Take
from bench.rsp_guest import alone, missing

NAMES = {
    "ours": "**ours**, the guest runs meanwhile",
    "qemu": "QEMU's gdb stub, the guest stands still",
}
UNITS = {"64 B": 1e6, "4 KiB": 1e6, "64 KiB": 1e3, "16 MiB": 1e3}
"""To microseconds or milliseconds."""


def measure(rounds: int) -> dict[str, list[Take]]:
    """By server: a take is the medians of one round's reads."""
    if why := missing():
        raise NotHere(why)
    found: dict[str, list[Take]] = {server: [] for server in NAMES}
    with alone() as guest:
        for _ in range(rounds):
            by_size = rsp.samples(guest, guest.directory, 1)
            for server, takes in found.items():
                takes.append(
                    {
                        size: UNITS[size] * statistics.median(row[server])
                        for size, row in by_size.items()
                    }
                )
    return found
