# SPDX-License-Identifier: GPL-2.0-or-later
"""How long reading a dump takes, side by side with drgn when debuginfo is at hand.

    python bench/introspect.py DUMP [--vmlinux DEBUGINFO-VMLINUX] [--runs 5]

Each run is a new process; ours and drgn's take turns on the same file.  What is timed is
opening, the log, the task list and the stack of every task that does not run.  "cold" runs
have no symbol cache.  Memory is the peak resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def ours(dump: str) -> dict[str, float]:
    started = time.perf_counter()
    from introspect.kernel import Kernel
    from introspect.memory import open_image
    from introspect.stack import describe

    marks = {"import": time.perf_counter()}
    kernel = Kernel.find(open_image(dump))
    marks["find"] = time.perf_counter()
    log = sum(1 for _ in kernel.log())
    marks["log"] = time.perf_counter()
    kernel.symbols.address("init_task")
    marks["symbols"] = time.perf_counter()
    tasks = list(kernel.tasks())
    marks["types and tasks"] = time.perf_counter()
    frames = sum(
        len(describe(kernel, kernel.backtrace(task))) for task in tasks if not task.running
    )
    marks["stacks"] = time.perf_counter()
    return result(started, marks, log=log, tasks=len(tasks), frames=frames)


def locating(dump: str) -> dict[str, float]:
    """Finding the kernel without VMCOREINFO: both ways over all of memory."""
    from introspect import locate
    from introspect.memory import open_image

    memory = open_image(dump)
    started = time.perf_counter()
    by_text = list(locate.kernel_texts(memory))
    marks = {"by text": time.perf_counter()}
    by_table = list(locate.texts_by_page_table(memory))
    marks["by page table"] = time.perf_counter()
    return result(started, marks, kernels=len(set(by_text) | set(by_table)))


def drgn(dump: str, vmlinux: str) -> dict[str, float]:
    started = time.perf_counter()
    import drgn as library
    from drgn.helpers.linux.pid import for_each_task
    from drgn.helpers.linux.printk import get_printk_records

    marks = {"import": time.perf_counter()}
    prog = library.Program()
    prog.set_core_dump(dump)
    prog.load_debug_info([vmlinux])
    marks["find"] = time.perf_counter()
    log = len(get_printk_records(prog))
    marks["log"] = time.perf_counter()
    tasks = list(for_each_task(prog))
    marks["types and tasks"] = time.perf_counter()
    frames = 0
    for task in tasks:
        try:
            frames += sum(1 for frame in prog.stack_trace(task) if frame.name)
        except ValueError:
            continue
    marks["stacks"] = time.perf_counter()
    return result(started, marks, log=log, tasks=len(tasks), frames=frames)


def result(started: float, marks: dict[str, float], **counts: int) -> dict[str, float]:
    out: dict[str, float] = {}
    before = started
    for name, at in marks.items():
        out[f"{name} ms"] = 1000 * (at - before)
        before = at
    out["total ms"] = 1000 * (before - started)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    out["peak MiB"] = int(peak.split()[1]) / 1024
    return {**out, **counts}


def child(kind: str, arguments: list[str], cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", kind, *arguments]
    environment = {**os.environ, "VNODE_DEBUG_CACHE": cache}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{kind}: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def with_vmcoreinfo(dump: str, out: Path) -> str:
    """The same memory as a vmcore that drgn opens: it needs the VMCOREINFO note."""
    from introspect.elfcore import PT_LOAD, PT_NOTE
    from introspect.kernel import Kernel
    from introspect.memory import open_image
    from tests.introspect.elfwriter import elf_core, elf_note

    memory = open_image(dump)
    note = elf_note(b"VMCOREINFO", 0, Kernel.find(memory).vmcoreinfo_raw)
    loads = [(PT_LOAD, start, memory.read(start, size)) for start, size in memory.ranges]
    out.write_bytes(elf_core([(PT_NOTE, 0, note), *loads]))
    return str(out)


def measure(dump: str, vmlinux: str | None, runs: int) -> dict[str, list[dict[str, float]]]:
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as warm:
        if vmlinux:
            dump = with_vmcoreinfo(dump, Path(warm) / "vmcore")
        child("ours", [dump], warm)
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as cold:
                rows.setdefault("introspect, cold", []).append(child("ours", [dump], cold))
            rows.setdefault("introspect, cached", []).append(child("ours", [dump], warm))
            rows.setdefault("locate", []).append(child("locating", [dump], warm))
            if vmlinux:
                rows.setdefault("drgn, debuginfo", []).append(child("drgn", [dump, vmlinux], warm))
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        run = {"ours": ours, "drgn": drgn, "locating": locating}[sys.argv[2]]
        print(json.dumps(run(*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("dump")
    parser.add_argument("--vmlinux")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for name, rows in measure(options.dump, options.vmlinux, options.runs).items():
        print(f"\n{name} (median of {len(rows)}, best in brackets)")
        for key in rows[0]:
            values = [row[key] for row in rows]
            print(f"  {key:<20} {statistics.median(values):10.1f}  [{min(values):.1f}]")


if __name__ == "__main__":
    main()
