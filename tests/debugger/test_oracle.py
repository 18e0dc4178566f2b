# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb with the symbols we make against gdb with the distribution's debuginfo, on one guest.

Both read the same memory through the same server; what differs is the symbol file alone.
linux-image-RELEASE-dbg is fetched once: 283 MB, 800 MB unpacked.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from bench import rsp_guest
from debugger import gdb
from debugger.target import KernelTarget
from debugger.tasks import TID_BASE
from introspect.btf import Kind
from tests.crashdump import oracle
from tests.debugger.conftest import ask_gdb, under
from tests.debugger.test_whole_kernel import layout

pytestmark = [
    pytest.mark.box,
    pytest.mark.oracle,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(rsp_guest.missing()), reason=rsp_guest.missing()),
]

SEED, SYMBOLS, STRUCTS = 4, 200, 50
# Assembler code has unwind rules for the kernel, but none in debuginfo: there its stacks end.
ENTRY = re.compile(r"entry_SYSCALL|asm_|ret_from_fork|error_entry|common_interrupt")
STACKS = """
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, pcs = gdb.newest_frame(), []
    while frame is not None and len(pcs) < 100:
        # made up from debuginfo: calls that the compiler inlined, or turned into jumps
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            pcs.append(hex(frame.pc()))
        try:
            frame = frame.older()
        except gdb.error:
            break
    print("STACK", max(thread.ptid), *pcs)
"""


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelTarget]:
    with rsp_guest.running(tmp_path_factory.mktemp("oracle")) as guest:
        guest.shell("sleep 1000 & cat /dev/zero | sleep 1000 & sleep 1; echo SLEEPERS")
        guest.expect(b"SLEEPERS")
        guest.qmp("stop")
        yield guest.target(dead=True, tasks=True)


def symbols(target: KernelTarget) -> list[str]:
    """Random variables of the kernel, those whose name is another's as well left out."""
    table = target.kernel.symbols.table
    names = [
        table.name_at(index)
        for index in range(table.absolute, len(table))
        if chr(table.types[index]) in "dDbBrR"
    ]
    counted = Counter(names)
    single = [name for name in names if name.isidentifier() and counted[name] == 1]
    plain = [n for n in single if not n.startswith(("__ksym", "__kstr", "__param", "__tracepoint"))]
    return random.Random(SEED).sample(plain, SYMBOLS)


def structs(target: KernelTarget) -> list[str]:
    kinds = [kind for kind in target.kernel.btf.of_kind(Kind.STRUCT) if kind.name]
    counted = Counter(kind.name for kind in kinds)
    known = {kind.name for kind in kinds if len(kind.members) > 2 and counted[kind.name] == 1}
    return random.Random(SEED).sample(sorted(known), STRUCTS)


def value(text: str, command: str) -> str:
    """Address and bytes, without gdb's name for the place: debuginfo has some of other sizes."""
    return re.sub(r" <[^>]*>:", ":", under(text, command))


def stacks(text: str) -> dict[int, list[int]]:
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("STACK ")]
    return {int(row[0]): [int(pc, 16) for pc in row[1:]] for row in rows}


def up_to_entry(target: KernelTarget, pcs: list[int]) -> list[int]:
    for index, pc in enumerate(pcs):
        if ENTRY.match(target.kernel.symbols.describe(pc - 1)):
            return pcs[: index + 1]
    return pcs


@pytest.fixture(scope="module")
def views(
    still: KernelTarget, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """What gdb says with our symbols, and with debuginfo."""
    directory = tmp_path_factory.mktemp("views")
    script = directory / "stacks.py"
    script.write_text(STACKS)
    commands = [f"source {script}", *values(still), *layouts(still), "info line start_kernel"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VNODE_DEBUG_CACHE", str(directory / "cache"))
        ours = ask_gdb("gdb", still, commands)
        vmlinux = oracle.vmlinux(still.kernel.release)
        patch.setattr(gdb, "DEBUG_ROOT", vmlinux.parents[1])
        assert gdb.debuginfo(still.kernel) is not None
        theirs = ask_gdb("gdb", still, commands, timeout=1500)
    assert "init/main.c" in under(theirs, "info line start_kernel")  # debuginfo it is
    yield ours, theirs


def values(target: KernelTarget) -> list[str]:
    return [f"x/8xb &{name}" for name in symbols(target)]


def layouts(target: KernelTarget) -> list[str]:
    return [f"ptype/o struct {name}" for name in structs(target)]


def test_values_of_symbols(still: KernelTarget, views: tuple[str, str]) -> None:
    for command in values(still):
        ours, theirs = (value(view, command) for view in views)
        assert ours == theirs != "", command


def test_layouts_of_structures(still: KernelTarget, views: tuple[str, str]) -> None:
    for command in layouts(still):
        ours, theirs = (layout(under(view, command)) for view in views)
        assert ours == theirs != [], command


def test_stacks_of_blocked_tasks(still: KernelTarget, views: tuple[str, str]) -> None:
    mine, others = (stacks(view) for view in views)
    differ = [
        (task.comm, [still.kernel.symbols.describe(pc - 1) for pc in found[TID_BASE + task.pid]])
        for task in still.kernel.tasks()
        if not task.running
        and up_to_entry(still, mine[TID_BASE + task.pid])
        != up_to_entry(still, others[TID_BASE + task.pid])
        for found in (mine, others)
    ]
    assert not differ
