# SPDX-License-Identifier: GPL-2.0-or-later
"""From a dump to a stack of each CPU and the kernel log: crash, drgn, gdb, and ours.

python -m bench.peers.triage drgn|gdb|crash DUMP VMLINUX    # what a peer is asked for
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.peers.table import NotHere, Take
from introspect.kernel import Kernel
from introspect.memory import open_image

HERE = Path(__file__).resolve().parents[2]
Command = Sequence[str | Path]
PROOF = (b"sysrq_handle_crash",)
LOG = b"Kernel panic - not syncing"


def timed(command: Command, environment: dict[str, str], proof: Sequence[bytes]) -> Take:
    """Wall and CPU seconds and the peak of resident memory of a process; its output must prove
    that it did its work."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "PYTHONPATH": str(HERE), "TERM": "dumb", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=HERE,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        spent = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    lacking = [one for one in proof if one not in text]
    if process.returncode or lacking:
        raise RuntimeError(f"exit code {process.returncode}, no {lacking}: {text[-300:]!r}")
    return {
        "s": spent,
        "CPU": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss / 1024,
    }


def crash(dump: str, vmlinux: str) -> None:
    from tests.crashdump.oracle import crash_command

    with tempfile.NamedTemporaryFile("w", suffix=".crash") as script:
        script.write("bt -a\nlog\nquit\n")
        script.flush()
        command = [*crash_command(), "-s", "-i", script.name, vmlinux, dump]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def drgn(dump: str, vmlinux: str) -> None:
    import drgn as library
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.printk import get_dmesg
    from drgn.helpers.linux.sched import cpu_curr

    prog = library.Program()
    prog.set_core_dump(dump)
    prog.load_debug_info([vmlinux])
    for cpu in for_each_online_cpu(prog):
        print(prog.stack_trace(cpu_curr(prog, cpu)))
    print(get_dmesg(prog).decode(errors="replace"))


def gdb(dump: str, vmlinux: str) -> None:
    offset = Kernel.find(open_image(dump)).kaslr_offset
    command = ["gdb", "-nx", "-batch", "-ex", f"symbol-file -o {offset:#x} {vmlinux}"]
    command += ["-ex", f"core-file {dump}", "-ex", "thread apply all bt"]
    os.execvp("gdb", command)


def contenders(dump: Path, cold: Path, warm: Path) -> dict[str, Callable[[], Take]]:
    """A measurement by name of each; the first is ours.  `warm` is a cache that stays."""
    python = sys.executable
    analyze: list[str | Path] = [python, HERE / "vnode_debug.py", "analyze", dump]
    parts = [word for part in ("reason", "backtrace", "cpus", "log") for word in ("-M", part)]

    def ours(command: Command, cache: Path, *, empty: bool = False) -> Take:
        with tempfile.TemporaryDirectory(dir=cold) as fresh:
            place = fresh if empty else str(cache)
            return timed(command, {"VNODE_DEBUG_CACHE": place}, [*PROOF, LOG])

    def theirs(kind: str) -> Take:
        command: list[str | Path] = [python, "-m", "bench.peers.triage", kind, dump]
        command.append(debuginfo(dump))
        return timed(command, {}, PROOF if kind == "gdb" else [*PROOF, LOG])

    return {
        "**ours**, the same parts, no debuginfo": lambda: ours([*analyze, *parts], warm),
        "**ours**, the same parts, first look at this kernel": lambda: ours(
            [*analyze, *parts], warm, empty=True
        ),
        "**ours**, all of `analyze`: also locks, hung tasks, run queues, RCU, memory, all tasks": (
            lambda: ours(analyze, warm)
        ),
        "crash, debuginfo": lambda: theirs("crash"),
        "drgn, debuginfo": lambda: theirs("drgn"),
        "gdb, debuginfo; no log: it knows no kernel": lambda: theirs("gdb"),
    }


def debuginfo(dump: Path) -> str:
    """The vmlinux with debuginfo for a dump, fetched on its first use (283 MB)."""
    from tests.crashdump import oracle

    release = Kernel.find(open_image(dump)).release
    try:
        oracle.crash_command()
        return str(oracle.vmlinux(release))
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        text = re.sub(r"\s+", " ", str(error))[-120:]
        raise NotHere(f"debuginfo or crash cannot be fetched ({text})") from error


if __name__ == "__main__":
    {"crash": crash, "drgn": drgn, "gdb": gdb}[sys.argv[1]](*sys.argv[2:])
