# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of the peers: the vnode's kernel, a busybox, one emulated CPU; and their panic."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bench import stock
from bench.peers.table import NotHere, Take
from bench.rsp_guest import Console, missing
from box.kernels import KernelImage, module_bytes
from box.qemu import CPU_MODEL

CPU = CPU_MODEL
"""The box's: `max` would have the kernel do more at its boot."""
WORDS = "no_timer_check"
"""On a busy host the kernel else takes the emulated timer for a dead one, and dies of it."""
FAULT = b"FAULT-NOW"
PATIENCE_S = 300.0
MIB = 1 << 20


def kernel() -> KernelImage:
    """The newest cloud kernel at hand, which is what the box's vnodes boot."""
    if why := missing():
        raise NotHere(why)
    vmlinuz = stock.kernels("cloud-")[-1]
    return KernelImage(vmlinuz.name.removeprefix("vmlinuz-"), vmlinuz.parents[1])


def modules(names: Sequence[str]) -> dict[str, bytes]:
    """Modules with what they need, as files whose names sort in the order to load them."""
    found = kernel().load_order(list(names))
    return {
        f"{place:02}-{path.name.removesuffix('.xz')}": module_bytes(path)
        for place, path in enumerate(found)
    }


def crash(console: Console) -> float:
    """Panics the guest through its shell; Unix time just before the kernel does."""
    console.line(f"echo {FAULT.decode()} >/dev/ttyS0; echo c >/proc/sysrq-trigger")
    console.expect(FAULT, PATIENCE_S)
    return time.time()


def stored(path: Path) -> int:
    """Bytes of a file without its holes."""
    return path.stat().st_blocks * 512


def figures(fault: float, safe: float, running: float, dump: Path) -> Take:
    """Of a dump that is safe once it is a file; Unix times."""
    return {
        "safe": safe - fault,
        "file": safe - fault,
        "running": running - fault,
        "MiB": stored(dump) / MIB,
    }


def check_elf(path: Path, memory: int) -> None:
    """A dump that is none must not count as a fast one."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"\x7fELF" or path.stat().st_size < memory:
        raise RuntimeError(f"{path.name}: no dump of {memory >> 20} MiB")
