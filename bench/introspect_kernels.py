# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots kernels and compares what introspect reads with what each says of itself.

    python bench/introspect_kernels.py IMAGE [MODULES-DIRECTORY] [IMAGE ...] > table

Each IMAGE is a bzImage; a directory after it is searched for loop.ko.  Prints a row of
docs/kernels.md for each.  A kernel image package can be unpacked with dpkg-deb -x.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from introspect import drgn_bridge, locate
from introspect.errors import IntrospectError
from introspect.image import open_kernel_image
from introspect.kernel import Kernel
from introspect.memory import open_image
from introspect.registers import from_pt_regs
from introspect.stack import describe
from tests.introspect.guest import Guest, boot

COLUMNS = (
    "kernel", "symbols", "log lines", "tasks", "module symbols", "blocked stacks", "idle CPUs",
    "without VMCOREINFO", "image file", "drgn",
)  # fmt: skip


def ratio(good: int, total: int) -> str:
    return f"{good:,}" if good == total else f"**{good:,} of {total:,}**"


def symbols(guest: Guest, kernel: Kernel) -> str:
    rows = [line.split() for line in guest.truth["kallsyms"].splitlines() if "[" not in line]
    table = kernel.symbols.table
    good = sum(
        (table.address_at(i), table.name_at(i)) == (int(row[0], 16), row[2])
        for i, row in enumerate(rows[: len(table)])
    )
    return ratio(good, max(len(rows), len(table)))


def log(guest: Guest, kernel: Kernel) -> str:
    theirs = [re.sub(r"^<\d+>\[[^]]*\] ?", "", line) for line in guest.truth["dmesg"].splitlines()]
    ours = [line for record in kernel.log() for line in record.text.split("\n")]
    good = sum(a.strip() == b.strip() for a, b in zip(ours, theirs, strict=False))
    return ratio(good, len(theirs))


def tasks(guest: Guest, kernel: Kernel) -> str:
    rows = [line.split(None, 2) for line in guest.truth["ps"].splitlines()[1:]]
    theirs = {int(row[0]) for row in rows if row[2].split()[0] != "ps"}
    ours = {task.pid for task in kernel.tasks()}
    return ratio(len(theirs & ours), len(theirs))


def modules(guest: Guest, kernel: Kernel) -> str:
    rows = [line.split() for line in guest.truth["kallsyms"].splitlines() if "[loop]" in line]
    theirs = {(int(row[0], 16), row[2]) for row in rows}
    ours = {(s.address, s.name) for m in kernel.symbols.modules for s in m.symbols}
    return ratio(len(theirs & ours), len(theirs))


def stacks(guest: Guest, kernel: Kernel) -> str:
    compared = good = 0
    for task in kernel.tasks():
        theirs = [line.split()[1] for line in guest.truth.get(f"stack/{task.pid}", "").splitlines()]
        if theirs and not task.running and task.pid != 1:
            compared += 1
            good += describe(kernel, kernel.backtrace(task))[-len(theirs) :] == theirs
    return ratio(good, compared)


def idle(guest: Guest, kernel: Kernel) -> str:
    registers = open_image(guest.raw.with_name("vmcore.elf")).registers  # type: ignore[attr-defined]
    whole = sum(kernel.unwind(from_pt_regs(raw)).whole for raw in registers)
    return ratio(whole, len(registers))


def bare(guest: Guest, kernel: Kernel) -> str:
    other = Kernel.from_text(kernel.memory, locate.kernel_text(kernel.memory))
    same = other.layout == kernel.layout and list(other.log()) == list(kernel.log())
    return "same" if same else "**differs**"


def image_file(guest: Guest, kernel: Kernel, image: Path) -> str:
    vmlinux = open_kernel_image(image)
    text = locate.kernel_text(kernel.memory, vmlinux.anchor())
    same = text == kernel.translate(kernel.symbols.address("_text"))
    same = same and vmlinux.symbols.names == kernel.symbols.table.names
    return "same" if same and vmlinux.build_id == kernel.build_id else "**differs**"


def drgn(guest: Guest, kernel: Kernel) -> str:
    from drgn.helpers.linux.pid import for_each_task
    from drgn.helpers.linux.printk import get_dmesg

    prog = drgn_bridge.program(kernel)
    pids = {task.pid.value_() for task in for_each_task(prog)}
    ours = {task.pid for task in kernel.tasks()} - {0}
    return ratio(len(pids & ours), len(ours)) if get_dmesg(prog) else "**no dmesg**"


def attempt(check: Callable[..., str], *arguments: object) -> str:
    try:
        return check(*arguments)
    except (IntrospectError, LookupError, ValueError) as error:
        return f"**{type(error).__name__}: {error}**"


def boot_patiently(place: Path, image: Path, modules: list[Path]) -> Guest:
    """Every feature QEMU has on two CPUs; the plainest CPU when a kernel dies of QEMU 7.2's TCG."""
    core = place / "vmcore.elf"
    try:
        return boot(place, image, modules, elf=core)
    except AssertionError:
        return boot(place, image, modules, elf=core, cpu="qemu64", cpus=1)


def row(image: Path, directory: Path | None) -> str:
    found = sorted(directory.rglob("loop.ko*")) if directory else []
    with tempfile.TemporaryDirectory() as place:
        guest = boot_patiently(Path(place), image, found)
        kernel = Kernel.find(open_image(guest.raw))
        cells = [
            attempt(check, guest, kernel)
            for check in (symbols, log, tasks, modules, stacks, idle, bare)
        ]
        cells += [attempt(image_file, guest, kernel, image), attempt(drgn, guest, kernel)]
        return "| " + " | ".join([kernel.release, *cells]) + " |"


def main() -> None:
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    arguments = [Path(argument) for argument in sys.argv[1:]]
    for image, after in zip(arguments, [*arguments[1:], Path()], strict=True):
        if image.is_file():
            directory = after if after.is_dir() and str(after) != "." else None
            try:
                print(row(image, directory), flush=True)
            except (AssertionError, IntrospectError) as error:
                print(f"| {image.name} | **{error}** |", flush=True)


if __name__ == "__main__":
    main()
