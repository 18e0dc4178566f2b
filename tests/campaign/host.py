# SPDX-License-Identifier: GPL-2.0-or-later
"""script/campaign: boots a box, runs the campaign in it, keeps its lines, writes the page.

The lines lie in build/campaign/SEED.jsonl; a run that was ended goes on where it was.  When the box
itself dies, the shots that were under way have escaped: that is recorded, and the rest goes on in a
new box.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.boxed import in_box, machine_toml, say
from box import cache, kernels, machine
from box.errors import BoxError
from tests.campaign import vnodes
from tests.campaign.catalogue import BY_NAME, SHORT, UNCONTAINED
from tests.campaign.plan import shot
from tests.campaign.table import page, with_again

HOME = cache.REPOSITORY / "build" / "campaign"
PAGE = cache.REPOSITORY / "docs" / "containment.md"
BOX = machine.Options(memory=4 << 30, cpus=5, fresh=True)
FOREVER_S = 1e9
SILENT_S = 420.0  # a runner that says nothing for so long is stuck
RUNNER = "cd /opt/vnode-debug && PYTHONPATH=. exec python3 -m tests.campaign.runner"


def prepare(watch: str = vnodes.WATCH) -> None:
    """Starts the campaign's vnodes, with these limits, in the box that runs."""
    image = kernels.fetch("cloud", say)
    vnodes.initrd(image, say)
    cpus = int(in_box(["sh", "-c", "tr , '\\n' </etc/vnode-debug/kmb.arguments | tail -c 2"]))
    text = vnodes.config(machine_toml(), image.version, cpus, watch)
    in_box(["sh", "-c", f"cat >{vnodes.CONFIG}"], text)
    in_box(["sh", "-c", "vnode-debug down --timeout 60 2>/dev/null; rmmod kmb || true"])
    in_box(["vnode-debug", "up", "--config", vnodes.CONFIG, "--wait", "--timeout", "150"])


class Lines:
    """The lines of a campaign, in a file that is only ever added to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.known: list[dict[str, Any]] = []
        if path.exists():
            for text in path.read_text().splitlines():
                try:
                    self.known.append(json.loads(text))
                except ValueError:
                    say(f"campaign: {path}: a line was cut short by a kill; left out")

    def add(self, line: dict[str, Any]) -> None:
        self.known.append(line)
        with self.path.open("a") as out:
            out.write(json.dumps(line) + "\n")
            out.flush()
            os.fsync(out.fileno())

    def done(self) -> set[int]:
        return {line["shot"] for line in self.known if "shot" in line}


def run_once(
    lines: Lines,
    seed: int,
    shots: Sequence[int],
    faults: Sequence[str],
    seconds: float = FOREVER_S,
    patience: float = 1.0,
) -> bool:
    """One runner, which begins no shot after `seconds`; whether it came to its end."""
    from select import select

    task = {"seed": seed, "shots": list(shots), "faults": list(faults), "seconds": seconds}
    task["patience"] = patience
    argv = machine.exec_argv(["sh", "-c", RUNNER], tty=False)
    under_way: dict[int, dict[str, Any]] = {}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False) as run:
        assert run.stdin is not None and run.stdout is not None
        run.stdin.write(json.dumps(task).encode() + b"\n")
        run.stdin.close()
        buffer = b""
        ended = False
        while select([run.stdout], [], [], SILENT_S)[0]:
            data = os.read(run.stdout.fileno(), 65536)
            if not data:
                break
            *whole, buffer = (buffer + data).split(b"\n")
            for text in whole:
                line = json.loads(text)
                lines.add(line)
                ended = ended or "end" in line
                if "begin" in line:
                    under_way[line["begin"]] = line
                elif "shot" in line:
                    under_way.pop(line["shot"], None)
                tell(line)
        run.kill()
    if ended:
        return True
    alive = _box_answers()
    for index, line in under_way.items():
        what = "the runner ended" if alive else "the machine went down"
        record = {
            "shot": index, "seed": seed, "fault": line["fault"],
            "group": BY_NAME[line["fault"]].group, "vnodes": line["vnodes"],
            "escapes": [] if alive else [what], "misses": [what] if alive else [],
        }  # fmt: skip
        lines.add(record)
        tell(record)
    return False


def try_outside(lines: Lines, name: str) -> None:
    """One of UNCONTAINED in a box of its own: what became of everything."""
    machine.up(BOX, say)
    try:
        prepare()
        task = json.dumps({"outside": name})
        try:
            done = machine.run(["sh", "-c", RUNNER], stdin=task, timeout=120)
            said = [json.loads(text) for text in done.stdout.splitlines()]
        except subprocess.TimeoutExpired:
            said = []
        found = [line for line in said if "outside" in line]
        became = "" if found else "hangs"
        if not found and not _box_answers():
            became = "is gone" if not machine.running() else "does not answer"
        lines.add(found[0] if found else {"outside": name, "machine": became})
        say(f"campaign: {lines.known[-1]}")
    finally:
        if machine.running():
            machine.down(say)


def _box_answers() -> bool:
    try:
        done = subprocess.run(machine.exec_argv(["true"], tty=False), timeout=30, check=False)
    except (subprocess.TimeoutExpired, BoxError):
        return False
    return done.returncode == 0


def tell(line: dict[str, Any]) -> None:
    """A line for whoever waits."""
    if "shot" in line:
        wrong = [f"ESCAPE {one}" for one in line["escapes"]] + line["misses"]
        say(f"{line['shot']:4} {line['fault']:30} {line.get('seconds', 0):6.1f} s  "
            f"{'; '.join(wrong) or 'ok'}")  # fmt: skip
    elif "checkpoint" in line:
        wrong = [*line["left"], *(f"ESCAPE root: {one}" for one in line["root"])]
        say(f"     {line['figures']}  {'; '.join(wrong) or 'nothing left over'}")
    elif "note" in line:
        say(f"     {line['note']}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("script/campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=300, help="faults")
    parser.add_argument("--seed", type=int, help="of the plan; a new one when left out")
    parser.add_argument("--only", type=int, action="append", help="this shot (repeatable)")
    parser.add_argument("--fault", action="append", choices=sorted(BY_NAME), help="only this fault")
    parser.add_argument("--again", action="store_true", help="add those of --fault to the page")
    parser.add_argument("--short", action="store_true", help="a few different faults, no page")
    parser.add_argument("--minutes", type=float, default=0, help="begin no fault after so long")
    parser.add_argument("--outside", action="store_true", help="try what cannot be contained")
    parser.add_argument("--no-page", action="store_true", help="leave docs/containment.md alone")
    options = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    faults = list(SHORT) if options.short else options.fault or []
    n = len(SHORT) if options.short else options.n
    shots = options.only or list(range(n))
    part = options.short or options.only or options.fault
    lines = Lines(HOME / f"{seed}{'-part' if part else ''}.jsonl")
    if part:
        lines.path.unlink(missing_ok=True)
        lines.known.clear()
    say(f"campaign: seed {seed}, lines in {lines.path}")
    began = time.monotonic()
    try:
        for name in UNCONTAINED if options.outside else ():
            try_outside(lines, name)
        campaign(lines, seed, shots, faults, began + (options.minutes * 60 or FOREVER_S))
    except BoxError as error:
        say(f"campaign: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("campaign: interrupted; the same command goes on with it")
        return 130
    if not part and not options.no_page:
        text = page(lines.known, seed, n)
        cache.write_atomically(PAGE, text.encode())
        say(f"campaign: {PAGE}")
    if options.again and options.fault:
        text = with_again(PAGE.read_text(), lines.known, seed)
        cache.write_atomically(PAGE, text.rstrip().encode() + b"\n")
    found = [line for line in lines.known if "shot" in line]
    escapes = sum(bool(line["escapes"]) for line in found)
    misses = sum(bool(line["misses"]) for line in found)
    say(f"campaign: {len(found)} faults, {escapes} escaped, {misses} with something else wrong")
    return 1 if escapes or (options.short and misses) else 0


def campaign(
    lines: Lines, seed: int, shots: Sequence[int], faults: Sequence[str], until: float
) -> None:
    """All shots that are not done, in as many boxes as it takes."""
    while left := [index for index in shots if index not in lines.done()]:
        own = not machine.running() or os.environ.get("VNODE_DEBUG_BOX_REUSE") != "1"
        if own:
            if machine.running():
                machine.down(say)
            machine.up(BOX, say)
        try:
            prepare()
            first = shot(seed, left[0], (1, 2, 3), faults).fault
            say(f"campaign: {len(left)} faults, the first is {first}")
            whole = run_once(lines, seed, left, faults, until - time.monotonic())
        finally:
            if own and machine.running():
                machine.down(say)
        if whole or time.monotonic() > until:
            return


if __name__ == "__main__":
    raise SystemExit(main())
