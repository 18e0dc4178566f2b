# SPDX-License-Identifier: GPL-2.0-or-later
"""script/bench: ours and its peers in turns; writes docs/benchmarks.md.

The takes are kept in build/bench/results.json.  Ctrl-C ends all that was started.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import vnode_debug
from bench.peers import run
from bench.peers.guest import kernel
from bench.peers.table import Table, from_json, page, render
from bench.peers.texts import INTRO, SECTIONS
from box import cache

PARTS = ("restart", "dump", "triage", "reads")
HOME = cache.REPOSITORY / "build" / "bench"
RESULTS = HOME / "results.json"
PAGE = cache.REPOSITORY / "docs" / "benchmarks.md"
Found = list[tuple[str, Table]]
VERSIONS = {  # of what prints it
    "QEMU": ("qemu-system-x86_64", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "makedumpfile": ("makedumpfile", "-v"),
    "gdb": ("gdb", "--version"),
}


def tables(plan: run.Plan, parts: Sequence[str]) -> Iterator[tuple[str, Table]]:
    """All that is asked for, each as soon as it is there; the longest last."""
    if "reads" in parts:
        yield "reads", run.reads(plan)
    if "dump" in parts or "triage" in parts:
        yield from run.dumping(plan, parts)
    if "restart" in parts:
        for table in run.restarts(plan):
            yield "restart", table


def said(command: Sequence[str | Path]) -> str:
    """The version number in what a program says; "" when it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    return found[0] if found else ""


def versions() -> str:
    """A line with all that was measured."""
    found = {"vnode-debug": vnode_debug.__version__, "kernel": kernel().version}
    found |= {name: said(command) for name, command in VERSIONS.items()}
    from tests.crashdump import oracle

    if (oracle.CACHE / "crash-trixie/usr/bin/crash").exists():
        found["crash"] = said([*oracle.crash_command(), "--version"])
    try:
        import drgn

        found["drgn"] = str(drgn.__version__)
    except ImportError:
        pass
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)


def facts() -> dict[str, Any]:
    """What the page says of the run."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    git = ["git", "-C", str(cache.REPOSITORY), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True) if shutil.which("git") else None
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu[1].strip() if cpu else "unknown",
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
        "commit": done.stdout.strip() if done else "",
        "versions": versions(),
    }


def kept() -> Found:
    """The tables of earlier runs."""
    try:
        rows = json.loads(RESULTS.read_bytes())["tables"]
    except (OSError, ValueError, LookupError):
        return []
    return [(part, from_json(table)) for part, table in rows]


def save(found: Found) -> None:
    """Keeps tables in place of those of the same part and title."""
    names = {(part, table.title) for part, table in found}
    merged = [one for one in kept() if (one[0], one[1].title) not in names] + found
    merged.sort(key=lambda one: PARTS.index(one[0]))
    HOME.mkdir(parents=True, exist_ok=True)
    rows = [[part, table.json()] for part, table in merged]
    cache.write_atomically(RESULTS, json.dumps({"facts": facts(), "tables": rows}).encode())


def write_page() -> None:
    """docs/benchmarks.md out of build/bench/results.json."""
    about = json.loads(RESULTS.read_bytes())["facts"]
    found = [(SECTIONS[part][0], table) for part, table in kept()]
    text = page(INTRO.format(**about), dict(SECTIONS.values()), found)
    cache.write_atomically(PAGE, text.encode(), 0o644)
    print(f"bench: {PAGE}", file=sys.stderr)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("script/bench", description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=5, help="takes of each (5)")
    parser.add_argument("--quick", action="store_true", help="3 takes, no guest of 4 GiB")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this (repeatable)")
    parser.add_argument("--peer", action="append", default=[], help="only this (repeatable)")
    parser.add_argument("--sizes", default="", help="MiB of the guests (256,1024,4096)")
    parser.add_argument("--page", action="store_true", help="with --only: into the page, too")
    parser.add_argument("--minutes", type=float, default=0, help="fewer takes after so long")
    options = parser.parse_args(argv)
    try:
        options.sizes = [int(word) for word in options.sizes.split(",") if word]
    except ValueError:
        parser.error(f"--sizes {options.sizes}: give MiB, like 256,1024")
    if any(not 256 <= size <= 65536 or size % 2 for size in options.sizes) or options.n < 1:
        parser.error("sizes are even numbers from 256 on, -n is 1 or more")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sizes = options.sizes or ([256, 1024] if options.quick else [256, 1024, 4096])
    plan = run.Plan(3 if options.quick else options.n, sizes, set(options.peer))
    if options.minutes:
        plan.until = time.monotonic() + 60 * options.minutes
    part_only = options.only or options.peer or options.sizes
    if not part_only and not options.page:
        RESULTS.unlink(missing_ok=True)
    found: Found = []
    try:
        for part, table in tables(plan, options.only or PARTS):
            found.append((part, table))
            print(render(table), flush=True)
            if options.page or not part_only:
                save(found)
    except KeyboardInterrupt:
        plan.say("interrupted; the page is as it was")
        return 130
    if options.page or not part_only:
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
