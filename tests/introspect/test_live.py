# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a kernel while it runs: what comes out is whole, or an error says that it is not."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.memory import BufferMemory, open_image
from tests.introspect.conftest import stock_kernel
from tests.introspect.guest import READY, initramfs, running, wait_for

LOAD = """
for i in 1 2 3; do (while :; do /bin/busybox true; done) & done
"""


@pytest.mark.box
def test_a_kernel_under_fork_load_reads_whole_or_says_so(tmp_path: Path) -> None:
    image, _ = stock_kernel()
    with running(tmp_path, image, initramfs([], LOAD)) as (_, raw, process):
        wait_for(tmp_path / "console", READY, process)
        kernel = Kernel.find(open_image(raw), live=True)
        outcomes: Counter[str] = Counter()
        started = time.monotonic()
        for _ in range(200):
            try:
                tasks = list(kernel.tasks())
            except IntrospectError as error:
                outcomes[type(error).__name__] += 1
                continue
            outcomes["whole"] += 1
            names = {task.comm for task in tasks}
            assert {"swapper/0", "kthreadd"} <= names
            assert len({task.address for task in tasks}) == len(tasks)
        assert outcomes["whole"] >= 150, outcomes
        assert time.monotonic() - started < 100
        assert "introspect test guest" in {record.text for record in kernel.log()}
        first = int(kernel.object("jiffies_64"))
        time.sleep(0.5)
        assert int(kernel.object("jiffies_64")) > first


class Scrambled(BufferMemory):
    """Memory whose words at `wrong` read as something else."""

    def __init__(self, memory: BufferMemory, wrong: dict[int, bytes]) -> None:
        super().__init__([(start, memory.read(start, size)) for start, size in memory.ranges])
        self.wrong = wrong

    def read(self, pa: int, size: int) -> bytes:
        return self.wrong.get(pa, super().read(pa, size))[:size]


@pytest.mark.box
def test_a_cyclic_task_list_ends_in_an_error(guest_kernel: Kernel) -> None:
    tasks = list(guest_kernel.tasks())
    at = guest_kernel.btf.struct("task_struct").offset("tasks")
    # the fifth process points back at the second, and the second agrees
    fifth, second = tasks[5].address + at, tasks[2].address + at
    wrong = {
        guest_kernel.translate(fifth): second.to_bytes(8, "little"),
        guest_kernel.translate(second): guest_kernel.read(second, 8) + fifth.to_bytes(8, "little"),
    }
    memory = guest_kernel.memory
    assert isinstance(memory, BufferMemory)
    kernel = Kernel.find(Scrambled(memory, wrong))
    got = []
    with pytest.raises(IntrospectError, match=r"two thread lists|point back"):
        for task in kernel.tasks():
            got.append(task.pid)
            assert len(got) < 100
    assert got == [task.pid for task in tasks[: len(got)]]


@pytest.mark.box
def test_scrambled_kernels_raise_only_our_errors(guest_kernel: Kernel) -> None:
    """Every page-sized piece of a kernel's own structures in turn reads as 0xff."""
    memory = guest_kernel.memory
    assert isinstance(memory, BufferMemory)
    names = ["init_task", "modules", "prb", "__start_orc_unwind_ip", "init_top_pgt", "btf_modules"]
    for name in names:
        pa = guest_kernel.translate(guest_kernel.symbols.address(name))
        wrong = dict.fromkeys(range(pa & ~7, pa + 512, 8), b"\xff" * 4096)
        try:
            kernel = Kernel.find(Scrambled(memory, wrong))
        except IntrospectError:
            continue
        for ask in (kernel.log, kernel.tasks, kernel.modules, lambda k=kernel: [k.orc]):
            try:
                for _ in ask():
                    pass
            except IntrospectError:
                pass
