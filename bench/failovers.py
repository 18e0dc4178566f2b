# SPDX-License-Identifier: GPL-2.0-or-later
"""Restarts without booting, many in a row and of mixed faults, with a second vnode at work.

    script/modules && .venv/bin/python -m bench.failovers -n 100     # a box of its own

Two vnodes: `witness` copies and sums files all the while, `victim` fails, each time with work of
its own.  Prints a line a restart and, for each strategy, the JSON of tests/life/warm_stress.py.
Exit code 1 when a restart, a dump or the witness was not as it should be.  Takes 10 to 25 s each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from typing import Any

from bench.boxed import machine_toml, say, up
from box import kernels, layout, machine
from tests.campaign import vnodes

CONFIG = "/etc/vnode-debug/failovers.toml"
BOX = machine.Options(memory=4 << 30, cpus=4, fresh=True)
WITNESS, VICTIM = 1, 2
WAYS = ("standby", "warm")


def config(head: str, kernel: str, way: str) -> str:
    """vnodes.toml; `head` is what boxed.machine_toml() gives."""
    text = head + "\n[dumps]\ncount = 12\n"
    for number, name in ((WITNESS, "witness"), (VICTIM, "victim")):
        initrd = f"{layout.TREE}/build/{vnodes.INITRD.name}"
        text += layout.vnode_toml(number, name, [number], 128, f"/boot/vmlinuz-{kernel}", initrd)
        text += layout.WATCH + "[vnode.restart]\nintensity = 1000\n"
        if number == VICTIM:
            text += f'quick = 1000\nstrategy = "{way}"\n'
    return text


def run(way: str, count: int, seed: int) -> dict[str, Any]:
    """`count` restarts of that strategy; what tests/life/warm_stress.py found."""
    image = kernels.fetch("cloud", say)
    vnodes.initrd(image, say)
    up(CONFIG, config(machine_toml(), image.version, way), 300)
    words = f"{way} {VICTIM} {WITNESS} {count} {seed}"
    line = f"cd {layout.TREE} && PYTHONPATH=. exec python3 -m tests.life.warm_stress {words}"
    argv = machine.exec_argv(["sh", "-c", line], tty=False)
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failovers: {way}: ended with {done.returncode}")
    return dict(json.loads(done.stdout))


def good(found: dict[str, Any]) -> bool:
    """Every restart of its kind, every dump there, the witness undisturbed."""
    witness = found["witness"]
    spoilt = witness["sums_wrong"] or witness["complaints"] or not witness["same_incarnation"]
    return not (found["bad"] or found["dumps"]["without"] or spoilt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=100, help="restarts of each strategy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=WAYS)
    args = parser.parse_args()
    machine.up(BOX, say)
    try:
        all_good = True
        for way in [args.only] if args.only else WAYS:
            found = run(way, args.n, args.seed)
            say(f"load {os.getloadavg()[0]:.1f}")
            print(json.dumps(found, indent=1), flush=True)
            all_good = all_good and good(found)
    finally:
        machine.down(say)
    raise SystemExit(not all_good)


if __name__ == "__main__":
    main()
