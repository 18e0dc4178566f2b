# SPDX-License-Identifier: GPL-2.0-or-later
"""A plain boot beside one with `fast_boot`: where the time goes, and the ratio.

    vnode-debug up --wait                     # the same kernel; `fast_boot = true` for vnode 2
    .venv/bin/python -m bench.boot -n 10 1 2

Works on the vnodes that run, in the box or on the machine, through the command alone.  Their
restarts alternate.  Prints each part's median, minimum and maximum in ms, and the ratio of the
second vnode's median to the first one's.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

from bench.incidents import verb


def boot(vnode: str) -> dict[str, float]:
    """The parts of one restart, ms."""
    verb("restart", vnode, "--strategy", "cold", "--wait")
    parts: list[dict[str, Any]] = verb("boot", vnode)
    found = {str(part["name"]): float(part["ms"]) for part in parts}
    return {**found, "all": sum(found.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10, help="boots of each vnode")
    parser.add_argument("plain")
    parser.add_argument("fast")
    args = parser.parse_args()
    both = (args.plain, args.fast)
    boots: dict[str, list[dict[str, float]]] = {vnode: [] for vnode in both}
    for _ in range(args.n):
        for vnode in both:
            boots[vnode].append(boot(vnode))
    print(f"{'part':8}" + "".join(f"{'vnode ' + vnode:>30}" for vnode in both) + "   ratio")
    for part in boots[args.plain][0]:
        row, medians = f"{part:8}", []
        for vnode in both:
            values = [one.get(part, 0.0) for one in boots[vnode]]
            medians.append(statistics.median(values))
            row += f"{f'{medians[-1]:.1f} ({min(values):.1f}..{max(values):.1f})':>30}"
        print(f"{row}   {medians[1] / medians[0]:.2f}" if medians[0] else row)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
