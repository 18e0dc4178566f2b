# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes vnodes through panics and hangs, and writes where the time went as docs/timeline.md.

    script/box up memory=6G                     # vnode 1 with 128M, vnode 2 with 896M of memory
    vnode-debug up --wait
    .venv/bin/python -m bench.timeline -n 50 1 2 > docs/timeline.md

Works on the vnodes that run, in the box or on the machine, through the command alone.  The vnodes
and faults take turns, so that what else the host does meets them alike.  Needs `inject = true`.
Ctrl-C ends it early.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.incidents import fail, steps, verb

FAULTS = ("panic", "irqhang")
SETTLE_S = 8.0
"""After an incident's dump is written: in it the region is cleared and the next start prepared."""
SUMS = {
    "panic": (("reported", "started"), ("fault", "running")),
    "irqhang": (("seen", "started"), ("fault", "running")),
}
"""What the goals are about: report (or, of a hang, its detection) to the successor's SIPI."""

Incident = Mapping[str, Any]


def percentile(values: Sequence[float], percent: int) -> float:
    """Between the two nearest values."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(title: str, incidents: Sequence[Incident], sums: Sequence[tuple[str, str]]) -> str:
    """A Markdown table: a row a step."""
    rows: dict[str, list[float]] = {}
    for incident in incidents:
        for name, ms in steps(incident, sums).items():
            rows.setdefault(name, []).append(ms)
    ways = sorted({str(one["restart"]) for one in incidents})
    lines = [
        f"### {title}",
        "",
        f"{len(incidents)} times, restarted by {' or '.join(ways)}, ms:",
        "",
        "| step | p50 | p99 | max |",
        "|---|---:|---:|---:|",
    ]
    wanted = {f"{a} -> {b}" for a, b in sums}
    for name, values in rows.items():
        text = f"**{name}**" if name in wanted else name
        middle, high = statistics.median(values), percentile(values, 99)
        lines.append(f"| {text} | {middle:.1f} | {high:.1f} | {max(values):.1f} |")
    return "\n".join(lines) + "\n"


def sizes() -> dict[str, int]:
    """MiB of each vnode's region, by id."""
    rows = verb("status")
    return {str(row["id"]): int(row["memory"]) >> 20 for row in rows if row.get("memory")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=50, help="of each fault and vnode")
    parser.add_argument("vnodes", nargs="+", help="ids")
    options = parser.parse_args()
    known = sizes()
    found: dict[tuple[str, str], list[Incident]] = {}
    loads: list[float] = []
    with contextlib.suppress(KeyboardInterrupt):  # then what there is makes the page
        for turn, fault, vnode in itertools.product(range(options.n), FAULTS, options.vnodes):
            found.setdefault((fault, vnode), []).append(fail(vnode, fault))
            loads.append(os.getloadavg()[0])
            print(f"{turn + 1}: {fault} of vnode {vnode}", file=sys.stderr, flush=True)
            time.sleep(SETTLE_S)
    low, high = min(loads), max(loads)
    print(
        PAGE.format(
            cpus=os.cpu_count(), load=f"{low:.1f} to {high:.1f}", n=options.n, settle=SETTLE_S
        )
    )
    for (fault, vnode), incidents in sorted(found.items()):
        print(table(f"{fault}, {known.get(vnode, 0)} MiB", incidents, SUMS[fault]))


PAGE = """# Where the time of an incident goes

    .venv/bin/python -m bench.timeline -n {n} 1 2 > docs/timeline.md

wrote this page: vnodes made to fail again and again, the times out of their incidents
(`vnode-debug incidents --json`; [incidents.md](incidents.md) names the stages). `started` is the
successor's SIPI, `running` its first user beat. A hang's fault is its last beat; it is seen three
periods (30 ms) before the limit of `[vnode.watch]` (500 ms in the box), `seen -> fenced` holds the
probe that proves it. A fault comes {settle:g} s after the last dump was written: a vnode that fails
while its last region is still being written out or cleared finds nothing prepared and takes longer.

The root had {cpus} CPU and a load of {load}, this script's own included. In the box everything is
emulated, Python as well.
"""


if __name__ == "__main__":
    main()
