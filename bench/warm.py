# SPDX-License-Identifier: GPL-2.0-or-later
"""From the report of a panic to the successor's first user beat: vnodes of several strategies.

    vnode-debug up --wait                        # [vnode.restart] strategy = "standby" for vnode 2
    .venv/bin/python -m bench.warm -n 10 1 2     # 1 boots, 2 is resumed: their panics alternate

Works on the vnodes that run, in the box or on the machine, through the command alone.  Raise
`quick` in [vnode.restart] above -n: after so many failures soon after a resume the images are given
up, and what booted then has a table of its own.  A vnode is made to fail once the image that its
strategy wants is there.  Prints each step's median, minimum and maximum in ms, a table for each
vnode and way.  Host load changes them all: `load` is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from bench.incidents import fail, steps, verb

UNTIL = 300.0  # s
SUMS = (("started", "running"), ("reported", "started"), ("reported", "running"))


def wait_for_image(vnode: str) -> None:
    """Until the image that the next restart will take is there; without any image it boots."""
    end = time.monotonic() + UNTIL
    while time.monotonic() < end:
        roles = {one["role"] for one in verb("images", vnode)}
        if not roles or "standby" in roles or roles == {"running"}:
            return
        time.sleep(0.5)
    raise SystemExit(f"vnode {vnode} has no standby after {UNTIL:g} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10, help="panics of each vnode")
    parser.add_argument("vnodes", nargs="+")
    options = parser.parse_args()
    rows: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.n):
        for vnode in options.vnodes:
            wait_for_image(vnode)
            incident = fail(vnode, "panic", UNTIL)
            table = rows.setdefault(f"vnode {vnode}, {incident['restart']}", {})
            for name, ms in steps(incident, SUMS).items():
                table.setdefault(name, []).append(ms)
    print(f"load {os.getloadavg()[0]:.1f}")
    for title, table in rows.items():
        print(f"\n{title}\n{'step':26}median ms      min      max    n")
        for name, values in table.items():
            low, high, middle = min(values), max(values), statistics.median(values)
            print(f"{name:26}{middle:9.1f}{low:9.1f}{high:9.1f}{len(values):5}", flush=True)


if __name__ == "__main__":
    main()
