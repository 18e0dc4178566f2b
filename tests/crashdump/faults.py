# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults of tests/introspect/crasher, what each needs, and what its analysis must say."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.introspect.guest import initramfs, running, wait_for

MEMORY = 192  # MiB
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
cd /proc/sys
SETUP
echo FAULT-BEGINS >/dev/ttyS0
/bin/busybox taskset MASK /bin/busybox insmod /crasher.ko fault=NAME &
exec /bin/busybox sleep 100000
"""
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
        setup="echo 1 >kernel/hung_task_panic; echo 2 >kernel/hung_task_timeout_secs",
    ),
    "spin": Fault("hang in crasher_spin (interrupts off)", "crasher_spin", until=b""),
    "softlockup": Fault(
        "BUG: soft lockup in crasher_loop",
        "crasher_loop",
        setup="echo 1 >kernel/softlockup_panic; echo 1 >kernel/watchdog_thresh",
    ),
    "oom": Fault(
        "kernel panic: Out of memory: system-wide panic_on_oom is enabled",
        "crasher_hog",
        setup="echo 1 >vm/panic_on_oom",
    ),
    "stale": Fault(
        "BUG kmalloc-64: Poison overwritten, freed in crasher_free",
        "crasher_free",
        cmdline="slub_debug=FPZU,kmalloc-64",
        until=b"FIX kmalloc-64",  # the kernel lives on
    ),
}
# For PREEMPT_RT alone; which of the tasks is reported first differs
RT_FAULTS = {"rtlocks": Fault("", "", setup=FAULTS["deadlock"].setup)}


def build(directory: Path, headers: Path) -> bytes:
    """The module of tests/introspect/crasher, built for the kernel of these headers."""
    source = Path(__file__).resolve().parent.parent / "introspect" / "crasher"
    for name in ("crasher.c", "Makefile"):
        shutil.copy(source / name, directory)
    command = ["make", "-C", str(headers), f"M={directory}", "modules"]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return (directory / "crasher.ko").read_bytes()


def crash(
    name: str,
    directory: Path,
    kernel: Path,
    module: bytes,
    *,
    kaslr: bool = False,
    cpu: int = 0,
    patience: float = 240,
) -> Path:
    """The vmcore, by QEMU, of a guest that has failed; its RAM lies beside it as ram.raw."""
    fault = (FAULTS | RT_FAULTS)[name]
    words = {"SETUP": fault.setup, "MASK": f"{1 << cpu:x}", "NAME": name}
    init = INIT
    for word, text in words.items():
        init = init.replace(word, text)
    archive = initramfs([], "", {"crasher.ko": module, "init": init.encode()})
    line = f"panic=0 oops=panic {fault.cmdline} {'' if kaslr else 'nokaslr'}"
    core = directory / "vmcore.elf"
    with running(directory, kernel, archive, cmdline=line, memory=MEMORY, cpu="qemu64") as (
        qmp, _, process,
    ):  # fmt: skip
        wait_for(directory / "console", fault.until or b"FAULT-BEGINS", process, patience)
        if not fault.until:
            time.sleep(1.5)  # it will say nothing
        qmp.command("stop")
        qmp.command("dump-guest-memory", paging=False, protocol=f"file:{core}")
    return core
