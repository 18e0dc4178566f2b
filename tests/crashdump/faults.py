# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults of tests/introspect/crasher, what each needs, and what its analysis must say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from tests.introspect.guest import Guest, initramfs, parse_truth, running, wait_for

ENDED = b"end Kernel panic"


class Fault(NamedTuple):
    """`setup`: shell lines before the module is loaded; `until`: what its console says last, b""
    when it says nothing and is captured from outside."""

    title: str
    culprit: str
    cmdline: str = ""
    setup: str = ""
    until: bytes = ENDED


FAULTS = {
    "null": Fault(
        "BUG: unable to handle kernel NULL pointer dereference in crasher_write", "crasher_write"
    ),
    "timer": Fault("kernel BUG in crasher_tick", "crasher_tick"),
    "stack": Fault("BUG: stack guard page was hit in crasher_recurse", "crasher_recurse"),
    "deadlock": Fault(
        "INFO: task hung in crasher_ab",
        "crasher_ab",
        setup="cd /proc/sys/kernel; echo 1 >hung_task_panic; echo 2 >hung_task_timeout_secs; cd /",
    ),
    "spin": Fault("hang in crasher_spin (interrupts off)", "crasher_spin", until=b""),
    "softlockup": Fault(
        "BUG: soft lockup in crasher_loop",
        "crasher_loop",
        setup="cd /proc/sys/kernel; echo 1 >softlockup_panic; echo 1 >watchdog_thresh; cd /",
    ),
    "oom": Fault(
        "kernel panic: Out of memory: system-wide panic_on_oom is enabled",
        "crasher_hog",
        setup="echo 1 >/proc/sys/vm/panic_on_oom",
    ),
    "stale": Fault(
        "BUG kmalloc-64: Poison overwritten, freed in crasher_free",
        "crasher_free",
        cmdline="slub_debug=FPZU,kmalloc-64 panic_on_taint=0x20",
    ),
}


def crash(
    name: str, directory: Path, kernel: Path, module: bytes, *, kaslr: bool = False, cpu: int = 0
) -> Guest:
    """A guest that has failed, frozen: raw memory, and directory/vmcore.elf by QEMU."""
    fault = FAULTS[name]
    after = f"""{fault.setup}
echo FAULT-BEGINS >/dev/ttyS0
taskset {1 << cpu:x} insmod /crasher.ko fault={name} &
"""
    line = f"panic=0 oops=panic softlockup_all_cpu_backtrace=0 {fault.cmdline}"
    line += "" if kaslr else " nokaslr"
    elf = directory / "vmcore.elf"
    archive = initramfs([], after, {"crasher.ko": module})
    with running(directory, kernel, archive, cmdline=line, memory=192, cpu="qemu64") as (
        qmp, raw, process,
    ):  # fmt: skip
        wait_for(directory / "console", fault.until or b"FAULT-BEGINS", process)
        if not fault.until:
            time.sleep(1)  # it will say nothing
        qmp.command("stop")
        qmp.command("dump-guest-memory", paging=False, protocol=f"file:{elf}")
    truth = parse_truth((directory / "truth.gz").read_bytes())
    return Guest(raw, truth, directory / "console", 192 << 20)
