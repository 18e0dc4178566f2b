# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user waits for: from `attach` to gdb's prompt, and for `vnode ps` of many tasks.

    .venv/bin/python -m bench.attach [--sleepers 950] [--runs 7] [--json]

The whole command on a terminal of its own, on a stock kernel in QEMU that runs on meanwhile;
nothing but the symbol file comes from a cache.  `first` is the run that makes it.
"""

import argparse
import json
import os
import pty
import select
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench import rsp_guest
from bench.rsp_guest import Guest

PROMPT = b"(gdb) "
PATIENCE = 120.0
ROOT = Path(__file__).parents[1]


class Figures(NamedTuple):
    """Seconds of one session, and how many tasks `vnode ps` listed in it."""

    prompt: float
    ps: float
    tasks: int


class Terminal:
    """A command on a terminal without colours and paging."""

    def __init__(self, line: list[str], cache: Path) -> None:
        self._pid, self._fd = pty.fork()
        if not self._pid:
            words = {"VNODE_DEBUG_CACHE": str(cache), "TERM": "dumb", "PYTHONPATH": str(ROOT)}
            os.execve(line[0], line, os.environ | words)

    def until_prompt(self) -> bytes:
        """What it prints up to the next prompt."""
        seen = b""
        ends = time.monotonic() + PATIENCE
        while not seen.endswith(PROMPT):
            ready, _, _ = select.select([self._fd], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                raise SystemExit(f"bench: no prompt; it said {seen[-300:]!r}")
            seen += os.read(self._fd, 1 << 16)
        return seen

    def enter(self, command: bytes) -> bytes:
        os.write(self._fd, command + b"\n")
        return self.until_prompt()

    def close(self) -> None:
        os.kill(self._pid, signal.SIGTERM)
        os.close(self._fd)
        os.waitpid(self._pid, 0)


def session(guest: Guest, cache: Path) -> Figures:
    """One `attach`, used and left."""
    place = f"qemu:{guest.ram},qmp={guest.directory / 'second.sock'}"
    line = [sys.executable, str(ROOT / "vnode_debug.py"), "attach", place, "-nx"]
    start = time.perf_counter()
    terminal = Terminal(line, cache)
    try:
        terminal.until_prompt()
        prompt = time.perf_counter() - start
        terminal.enter(b"monitor refresh")  # or the list of the stop event is shown again
        start = time.perf_counter()
        listed = terminal.enter(b"vnode ps")
        spent = time.perf_counter() - start
    finally:
        terminal.close()
    return Figures(prompt, spent, listed.count(b"\n") - 2)  # the command's echo, the heading


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleepers", type=int, default=950)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if rsp_guest.missing():
        print(f"bench: {rsp_guest.missing()}", file=sys.stderr)
        return 5
    with rsp_guest.alone() as guest:
        guest.fill(options.sleepers)
        cache = guest.directory / "cache"
        first = session(guest, cache)
        runs = [session(guest, cache) for _ in range(options.runs)]
    prompt = statistics.median(run.prompt for run in runs)
    ps = statistics.median(run.ps for run in runs)
    figures = {"first_s": first.prompt, "prompt_s": prompt, "ps_s": ps, "tasks": runs[-1].tasks}
    if options.json:
        print(json.dumps(figures))
        return 0
    print(f"attach to prompt, symbols to be made   {first.prompt:7.2f} s")
    print(f"attach to prompt, symbols in the cache {prompt:7.2f} s")
    print(f"vnode ps of {runs[-1].tasks} tasks              {ps:7.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
