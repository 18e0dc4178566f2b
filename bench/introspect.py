# SPDX-License-Identifier: GPL-2.0-or-later
"""How long reading a dump takes, side by side with drgn and crash, which need debuginfo.

    python bench/introspect.py DUMP [--oracle] [--runs 7]         # a dump at hand
    python bench/introspect.py --boot 1024 [--oracle] [--runs 7]  # of a guest of 1 GiB made now
    python bench/introspect.py DUMP --sizes [--runs 7]            # images of 64 GiB and of 8 GiB

--oracle fetches crash 8.0.6 and the kernel's debuginfo as the oracle tests do.  Each run is a new
process and the readers take turns on the same file, which is in the page cache; all of them open it
and read the log, the task list and the stack of every task.  "cold" has no symbol cache.  On a busy
machine compare the CPU times.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import readers
from bench.readers import Row
from crashdump import vmcore
from crashdump.facts import Segment, find
from crashdump.notes import CpuState
from introspect.elfcore import ElfMemory
from introspect.kernel import Kernel
from introspect.memory import PhysicalMemory, open_image

SPARSE, FILLED = 64 << 30, 8 << 30
CHUNK = 16 << 20
REGISTERS = struct.Struct("<27Q")  # struct user_regs_struct
Turn = Callable[[], Row]


@contextmanager
def booted(mebibytes: int) -> Iterator[str]:
    """A vmcore, by QEMU, of the newest kernel at hand, which panicked."""
    from tests.introspect.conftest import stock_kernel
    from tests.introspect.guest import boot

    with tempfile.TemporaryDirectory() as place:
        core = Path(place) / "vmcore.elf"
        boot(
            Path(place), stock_kernel()[0], [], elf=core, memory=mebibytes, cmdline="panic=0",
            after="echo c >/proc/sysrq-trigger", until=b"end Kernel panic",
        )  # fmt: skip
        yield str(core)


def cpus_of(memory: PhysicalMemory) -> list[CpuState]:
    """The registers that a dump holds."""
    registers = memory.registers if isinstance(memory, ElfMemory) else []
    return [CpuState(number, REGISTERS.unpack(raw)) for number, raw in enumerate(registers)]


def as_vmcore(dump: str, out: Path) -> str:
    """The same memory and registers as the product writes them: drgn and crash open that."""
    memory = open_image(dump)
    segments = [
        Segment(start, memoryview(memory.read(start, size))) for start, size in memory.ranges
    ]
    vmcore.write(out, segments, cpus_of(memory), find(segments))
    return str(out)


def side_by_side(dump: str, warm: str, vmlinux: str | None) -> dict[str, Turn]:
    def cold() -> Row:
        with tempfile.TemporaryDirectory() as empty:
            return readers.run("introspect", dump, cache=empty)

    turns: dict[str, Turn] = {
        "introspect, cold": cold,
        "introspect, cached": lambda: readers.run("introspect", dump, cache=warm),
        "locate": lambda: readers.run("locate", dump, cache=warm),
    }
    if vmlinux:
        turns["drgn, debuginfo"] = lambda: readers.run("drgn", dump, vmlinux, cache=warm)
        turns["crash, debuginfo"] = lambda: readers.run("crash", dump, vmlinux, cache=warm)
    return turns


def raw_image(dump: str, out: Path, size: int, *, fill: bool) -> str:
    """The dump's memory at the start of a raw image of `size`; what follows is a hole or data."""
    memory = open_image(dump)
    with out.open("wb") as file:
        for start, length in memory.ranges:
            for at in range(start, start + length, CHUNK):
                data = memory.read(at, min(CHUNK, start + length - at))
                if data.count(0) != len(data):
                    file.seek(at)
                    file.write(data)
        end = max(start + length for start, length in memory.ranges)
        block = bytes(range(1, 256)) * (CHUNK // 255)
        for at in range(end, size if fill else 0, len(block)):
            file.seek(at)
            file.write(block[: size - at])
        file.truncate(size)
    return str(out)


def sizes(dump: str, place: Path) -> dict[str, Turn]:
    sparse = raw_image(dump, place / "sparse", SPARSE, fill=False)
    filled = raw_image(dump, place / "filled", FILLED, fill=True)
    return {
        f"{what}, {kind}": partial(readers.run, kind, path, cache=str(place))
        for what, path in (("64 GiB with holes", sparse), ("8 GiB of data", filled))
        for kind in ("introspect", "locate")
    }


def measure(turns: dict[str, Turn], runs: int) -> None:
    rows: dict[str, list[Row]] = {name: [] for name in turns}
    for turn in turns.values():  # fills the caches
        turn()
    for _ in range(runs):
        for name, turn in turns.items():
            rows[name].append(turn())
    for name, taken in rows.items():
        print(f"\n{name} (median of {runs}, best in brackets)")
        for key in taken[0]:
            values = [row[key] for row in taken]
            print(f"  {key:<20} {statistics.median(values):10.1f}  [{min(values):.1f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("dump", nargs="?")
    parser.add_argument("--boot", type=int, metavar="MIB")
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    if (options.dump is None) == (options.boot is None):
        parser.error("name a dump or --boot MIB")
    if options.boot:
        with booted(options.boot) as dump:
            bench(dump, options)
    else:
        bench(options.dump, options)


def bench(dump: str, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if options.sizes:
            measure(sizes(dump, place), options.runs)
            return
        vmlinux = None
        if options.oracle:
            from tests.crashdump import oracle

            vmlinux = str(oracle.vmlinux(Kernel.find(open_image(dump)).release))
            dump = as_vmcore(dump, place / "vmcore")
        measure(side_by_side(dump, name, vmlinux), options.runs)


if __name__ == "__main__":
    main()
