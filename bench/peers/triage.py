# SPDX-License-Identifier: GPL-2.0-or-later
"""From a dump to a stack of each CPU and the kernel log: crash, drgn, gdb, and ours.

python -m bench.peers.triage drgn|gdb|crash DUMP VMLINUX    # what a peer is asked for
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.peers.table import Contender, NotHere, Take
from introspect.kernel import Kernel
from introspect.memory import open_image

HERE = Path(__file__).resolve().parents[2]
Command = Sequence[str | Path]
PROOF = b"sysrq_handle_crash"
LOG = b"Kernel panic - not syncing"


RUNNER = """import json, os, sys, time
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
took = [time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
with open(sys.argv[1], "w") as file:
    json.dump(took, file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A process counts as its own the memory of the one it was forked from, so that must be small."""


def timed(command: Command, environment: dict[str, str], proof: Sequence[bytes]) -> Take:
    """Wall and CPU seconds and the peak of resident memory of a process; its output must prove
    that it did its work."""
    with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile("r") as figures:
        process = subprocess.Popen(
            [sys.executable, "-SE", "-c", RUNNER, figures.name, *(str(word) for word in command)],
            env={**os.environ, "PYTHONPATH": str(HERE), "TERM": "dumb", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=HERE,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        text = output.read()
        lacking = [one for one in proof if one not in text]
        if code or lacking:
            raise RuntimeError(f"exit code {code}, no {lacking}: {text[-300:]!r}")
        spent, cpu, peak = json.load(figures)
    return {"s": spent, "CPU": cpu, "peak": peak}


def crash(dump: str, vmlinux: str) -> None:
    from tests.crashdump.oracle import crash_command

    script = Path(f"{dump}.crash")
    script.write_text("bt -a\nlog\nquit\n")
    command = [str(word) for word in crash_command()]
    os.execvp(command[0], [*command, "-s", "-i", str(script), vmlinux, dump])


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


def contenders(dump: Path) -> list[Contender]:
    """The first is ours; its cache, and what crash reads, lie beside the dump."""
    warm = dump.with_name("cache")
    warm.mkdir()
    python = sys.executable
    analyze: list[str | Path] = [python, HERE / "vnode_debug.py", "analyze", dump]
    parts = [word for part in ("reason", "backtrace", "cpus", "log") for word in ("-M", part)]

    def ours(more: Sequence[str], empty: bool) -> Take:
        with tempfile.TemporaryDirectory() as fresh:
            cache = fresh if empty else str(warm)
            return timed([*analyze, *more], {"VNODE_DEBUG_CACHE": cache}, [PROOF, LOG])

    def theirs(kind: str) -> Take:
        command: list[str | Path] = [python, "-m", "bench.peers.triage", kind, dump]
        command.append(debuginfo(dump))
        return timed(command, {}, [PROOF] if kind == "gdb" else [PROOF, LOG])

    return [
        Contender("ours", "**ours**, the same parts", partial(ours, parts, False)),
        Contender("ours", "**ours**, the same, a kernel new to it", partial(ours, parts, True)),
        Contender("ours", "**ours**, all of `analyze`", partial(ours, [], False)),
        Contender("crash", "crash", partial(theirs, "crash")),
        Contender("drgn", "drgn", partial(theirs, "drgn")),
        Contender("gdb", "gdb, stacks only: it has no word for the log", partial(theirs, "gdb")),
    ]


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
