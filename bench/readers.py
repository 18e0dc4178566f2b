# SPDX-License-Identifier: GPL-2.0-or-later
"""The readers that bench/introspect.py times, each in a process of its own.

    python bench/readers.py introspect|locate|drgn|crash DUMP [VMLINUX]

Each opens the dump and reads the log, the task list and the stack of every task, and prints as
JSON how long each part took (ms), CPU time, the peak of its resident memory (MiB) and what it
counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Row = dict[str, float]


def ours(dump: str) -> Row:
    started = time.perf_counter()
    from introspect.kernel import Kernel
    from introspect.memory import open_image
    from introspect.stack import describe

    marks = {"import": time.perf_counter()}
    kernel = Kernel.find(open_image(dump))
    marks["find"] = time.perf_counter()
    kernel.symbols.address("init_task")
    marks["symbols"] = time.perf_counter()
    opened = time.process_time()
    log = sum(1 for _ in kernel.log())
    marks["log"] = time.perf_counter()
    tasks = list(kernel.tasks())
    marks["types and tasks"] = time.perf_counter()
    frames = sum(
        len(describe(kernel, kernel.backtrace(task))) for task in tasks if not task.running
    )
    marks["stacks"] = time.perf_counter()
    row = result(started, marks, log=log, tasks=len(tasks), frames=frames)
    open_ms = 1000 * (marks["symbols"] - started)
    return {"open ms": open_ms, "open CPU ms": 1000 * opened, **row}


def locating(dump: str) -> Row:
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


def drgn(dump: str, vmlinux: str) -> Row:
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


def crash(dump: str, vmlinux: str) -> Row:
    """crash starts, does the same and ends: its parts cannot be told apart from outside."""
    from tests.crashdump.oracle import crash_command

    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "commands"
        outputs = [Path(place) / name for name in ("log", "ps", "bt")]
        wanted = zip(("log", "ps", "foreach bt"), outputs, strict=True)
        script.write_text("".join(f"{command} > {out}\n" for command, out in wanted) + "quit\n")
        command = [*crash_command(), "-s", "-i", script, vmlinux, dump]
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = time.perf_counter()
        if process.returncode:
            raise SystemExit(errors.decode(errors="replace"))
        log, ps, bt = (out.read_text(errors="replace") for out in outputs)
    row = result(started, {"all": ended}, log=len(log.splitlines()), tasks=len(ps.splitlines()) - 1)
    row["frames"] = len(re.findall(r"^ *#\d+ \[", bt, re.MULTILINE))
    row["CPU ms"] = 1000 * (usage.ru_utime + usage.ru_stime)
    row["peak MiB"] = usage.ru_maxrss / 1024
    return row


def result(started: float, marks: dict[str, float], **counts: int) -> Row:
    out: Row = {}
    before = started
    for name, at in marks.items():
        out[f"{name} ms"] = 1000 * (at - before)
        before = at
    out["total ms"] = 1000 * (before - started)
    out["CPU ms"] = 1000 * time.process_time()  # the start of Python included
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    out["peak MiB"] = int(peak.split()[1]) / 1024
    return {**out, **counts}


READERS: dict[str, Callable[..., Row]] = {
    "introspect": ours,
    "locate": locating,
    "drgn": drgn,
    "crash": crash,
}


def run(kind: str, *arguments: str, cache: str) -> Row:
    """The row of one reader, run in a new process; `cache` is for decoded symbols."""
    command = [sys.executable, __file__, kind, *arguments]
    environment = {**os.environ, "VNODE_DEBUG_CACHE": cache}
    if kind == "crash":  # whose place is the oracle's cache
        environment = dict(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{kind}: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(READERS[sys.argv[1]](*sys.argv[2:])))
