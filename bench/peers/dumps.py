# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a dump out of a kernel's memory: ours, and makedumpfile's filter and compression.

python -m bench.peers.dumps RAM CORE OUT    # ours: CORE has the registers
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from bench.introspect import cpus_of
from bench.peers.guest import MIB, stored
from bench.peers.table import Contender, NotHere, Take
from bench.peers.triage import timed
from crashdump import vmcore
from crashdump.facts import Segment, find
from introspect.memory import map_file, open_image

WAYS = {"-l": "lzo", "-c": "zlib", "-z": "zstd"}


def write(ram: str, core: str, out: str) -> None:
    """As the dump worker writes it: from a mapping of the memory."""
    view = memoryview(map_file(Path(ram))[0])
    segments = [Segment(0, view[:0xA0000]), Segment(0x100000, view[0x100000:])]
    vmcore.write(Path(out), segments, cpus_of(open_image(core)), find(segments))


def ours(ram: Path, core: Path, out: Path) -> Take:
    out.unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "bench.peers.dumps", ram, core, out]
    return {**timed(command, {}, []), "MiB": stored(out) / MIB}


def makedumpfile(vmcore: Path, out: Path, way: str) -> Take:
    """Of our vmcore: QEMU's file has no VMCOREINFO, without which it wants debuginfo."""
    name = WAYS[way]
    try:
        said = subprocess.run(["makedumpfile", "-v"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise NotHere("makedumpfile is not installed") from None
    if re.search(rf"^{name}\s+disabled", said, re.MULTILINE):  # it would leave out to compress
        raise NotHere(f"this makedumpfile was built without {name}")
    out.unlink(missing_ok=True)
    took = timed(["makedumpfile", "-d", "31", way, vmcore, out], {}, [])
    return {**took, "MiB": stored(out) / MIB}


def contenders(ram: Path, core: Path, vmcore: Path) -> list[Contender]:
    """The first is ours and writes `vmcore`, which the others read."""
    out = vmcore.with_name("filtered")

    def both() -> Take:
        first, second = ours(ram, core, vmcore), makedumpfile(vmcore, out, "-l")
        total = {key: first[key] + second[key] for key in ("s", "CPU")}
        peak = max(first["peak"], second["peak"])
        return {**total, "peak": peak, "MiB": second["MiB"]}

    return [
        Contender(
            "ours", "**ours**: all memory, zero pages as holes", partial(ours, ram, core, vmcore)
        ),
        *(
            Contender(
                "makedumpfile",
                f"`makedumpfile -d 31 {way}` ({name}) of that file",
                partial(makedumpfile, vmcore, out, way),
            )
            for way, name in WAYS.items()
        ),
        Contender("ours", "**ours**, then `makedumpfile -d 31 -l`: from memory to the same", both),
    ]


if __name__ == "__main__":
    write(*sys.argv[1:])
