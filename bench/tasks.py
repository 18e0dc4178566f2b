# SPDX-License-Identifier: GPL-2.0-or-later
"""What tasks as threads cost: gdb on a running kernel with many tasks, with and without them.

    .venv/bin/python -m bench.tasks [--sleepers 240] [--gdb gdb] [--json]

A stock kernel in QEMU with `sleepers` more processes; each figure is the median
of seven runs of the real gdb, symbols from a warm cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from bench import rsp_guest
from bench.rsp_guest import Guest
from debugger import gdb, handlers
from debugger.server import Server
from debugger.session import Reply, Session

RUNS = 7
SCRIPTS = {"connect": (), "info threads": ("info threads",), "all stacks": ("thread apply all bt",)}


def session(guest: Guest, program: str, commands: Sequence[str], *, tasks: bool) -> float:
    """Seconds of one gdb."""
    target = guest.target(tasks=tasks)
    path = guest.directory / "rsp.sock"
    server = Server(lambda: target, path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    setup = gdb.commands(target.kernel, volatile=True)
    args = ["-nx", "--batch", *(word for command in commands for word in ("-ex", command))]
    start = time.perf_counter()
    subprocess.run(
        gdb.command_line(program, path, setup, args), capture_output=True, timeout=120, check=True
    )
    server.close()
    return time.perf_counter() - start


def walk(guest: Guest) -> tuple[int, float]:
    """(tasks, seconds to list them all)."""
    target = guest.target()
    target.tasks()
    target.refresh()
    start = time.perf_counter()
    tasks, _ = target.tasks()
    return len(tasks), time.perf_counter() - start


class Packets:
    """Counts what clients ask."""

    def __init__(self) -> None:
        self.count = 0
        self._dispatch = handlers.dispatch
        handlers.dispatch = self._counted

    def _counted(self, session: Session, payload: bytes) -> Reply:
        self.count += 1
        return self._dispatch(session, payload)


def measure(guest: Guest, program: str) -> dict[str, dict[str, float]]:
    """Medians by what gdb does; all kinds in turn, so that noise meets them alike."""
    packets = Packets()
    session(guest, program, (), tasks=False)  # makes the symbols
    spent: dict[str, list[tuple[float, int]]] = {}
    kinds = [(name, tasks) for name in SCRIPTS for tasks in (False, True)]
    for number in range(RUNS):
        for name, tasks in kinds if number % 2 else kinds[::-1]:
            before = packets.count
            seconds = session(guest, program, SCRIPTS[name], tasks=tasks)
            label = f"{name}, {'tasks' if tasks else 'CPUs alone'}"
            spent.setdefault(label, []).append((seconds, packets.count - before))
    return {
        label: {
            "s": statistics.median(seconds for seconds, _ in rows),
            "packets": statistics.median(count for _, count in rows),
        }
        for label, rows in sorted(spent.items())
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleepers", type=int, default=240)
    parser.add_argument("--gdb", default="gdb")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if rsp_guest.missing():
        print(f"bench: {rsp_guest.missing()}", file=sys.stderr)
        return 5
    with rsp_guest.alone() as guest:
        os.environ["VNODE_DEBUG_CACHE"] = str(guest.directory)
        guest.fill(options.sleepers)
        rows = measure(guest, options.gdb)
        count, seconds = walk(guest)
    if options.json:
        print(json.dumps({"rows": rows, "tasks": count, "walk_s": seconds}))
        return 0
    for label, row in rows.items():
        print(f"{label:28} {row['s'] * 1e3:8.0f} ms {row['packets']:8.0f} packets")
    print(f"{f'listing {count} tasks':28} {seconds * 1e3:8.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
