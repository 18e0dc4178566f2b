# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of an incident goes: medians over panics and hangs of one vnode.

    vnode-debug box up && vnode-debug up --wait
    .venv/bin/python -m bench.incidents --vnode 2 -n 10 panic irqhang

Works on the vnodes that run, in the box or on the machine, through the command alone.  Prints for
each step its median, minimum and maximum in ms.  Host load changes all of them: `load` is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BESIDE = Path(sys.executable).with_name("vnode-debug")
COMMAND = str(BESIDE) if BESIDE.exists() else "vnode-debug"  # the box has it in the PATH
UNTIL = 120.0  # s, for one incident
SUMS = (("seen", "started"), ("fault", "running"))


def verb(*words: str) -> Any:
    """The JSON answer of a verb."""
    done = subprocess.run([COMMAND, *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def fail(vnode: str, fault: str, seconds: float = UNTIL) -> dict[str, Any]:
    """Injects a fault and waits until the vnode runs again and its dump is written."""
    return dict(verb("inject", vnode, fault, "--wait", "--timeout", f"{seconds:g}")[0])


def steps(incident: Mapping[str, Any], sums: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Milliseconds from each stage to the next, then those of `sums`, from one stage to another."""
    stamps = {stage: at / 1e6 for stage, at in incident["stamps"].items()}
    pairs = [*itertools.pairwise(stamps), *sums]
    return {f"{a} -> {b}": stamps[b] - stamps[a] for a, b in pairs if a in stamps and b in stamps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vnode", default="2")
    parser.add_argument("-n", type=int, default=10, help="of each fault")
    parser.add_argument("faults", nargs="*", default=["panic", "irqhang"])
    options = parser.parse_args()
    for fault in options.faults:
        rows: dict[str, list[float]] = {}
        for _ in range(options.n):
            for name, ms in steps(fail(options.vnode, fault), SUMS).items():
                rows.setdefault(name, []).append(ms)
        load = os.getloadavg()[0]
        print(
            f"\n{fault}, {options.n} times, load {load:.1f}\n{'step':26}median ms      min      max"
        )
        for name, values in rows.items():
            low, high = min(values), max(values)
            print(f"{name:26}{statistics.median(values):9.1f}{low:9.1f}{high:9.1f}", flush=True)


if __name__ == "__main__":
    main()
