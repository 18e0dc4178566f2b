# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists, stacks and modules in a kernel of a few pages, whole and damaged."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect import modules
from introspect.errors import Corrupt, IntrospectError, NotFound
from introspect.kernel import Kernel
from introspect.registers import PT_REGS
from introspect.stack import End, describe
from tests.introspect import flatkernel
from tests.introspect.flatkernel import (
    ENTRY,
    INIT_TASK,
    MODULE_TEXT,
    SECOND,
    SIGNALS,
    STACK,
    TASK,
    TEXT,
)


def read_all(kernel: Kernel) -> None:
    """Everything the fuzzer asks for too."""
    for module in kernel.modules():
        with contextlib.suppress(NotFound):
            modules.read_btf(kernel, module)
    list(kernel.symbols.entries())
    for task in kernel.tasks():
        describe(kernel, kernel.backtrace(task))


def test_tasks_stacks_and_modules() -> None:
    kernel = flatkernel.kernel(flatkernel.memory())
    first, second = kernel.tasks()
    assert (first.address, first.comm, first.running) == (INIT_TASK, "swapper/0", True)
    assert (second.address, second.pid, second.comm) == (SECOND, 7, "second")
    trace = kernel.backtrace(second)
    assert [line.split("+")[0] for line in describe(kernel, trace)] == ["last", "second", "_stext"]
    assert trace.end is End.OUTERMOST and not trace.guess
    assert kernel.backtrace(first).guess
    assert kernel.symbols.describe(MODULE_TEXT + 0x12) == "lo_open+0x2/0x20 [loop]"
    assert [table.covers(MODULE_TEXT) for table in kernel.orc.tables] == [False, True]
    read_all(kernel)


def test_the_registers_lie_on_the_stack_when_error_entry_has_just_returned() -> None:
    """The table takes them to be where the exception left its frame."""
    memory = flatkernel.memory()
    regs = STACK + 0x180
    values = [0] * len(PT_REGS)
    values[PT_REGS.index("ip")], values[PT_REGS.index("cs")] = TEXT + 0x210, 0x10
    values[PT_REGS.index("sp")] = STACK + 0x118
    memory += bytes(regs + 8 * len(values) - len(memory))
    struct.pack_into(f"<{len(values)}Q", memory, regs, *values)
    kernel = flatkernel.kernel(memory)
    assert kernel.orc.error_returns == [ENTRY + 9]
    trace = kernel.unwind({"ip": ENTRY + 9, "sp": regs})
    names = [line.split("+")[0] for line in describe(kernel, trace)]
    assert names == ["__entry_text_start", "last", "second", "_stext"] and trace.whole
    memory[ENTRY + 5] ^= 1  # a call of another function
    assert flatkernel.kernel(memory).orc.error_returns == []


def test_a_thread_list_that_never_comes_back_ends() -> None:
    """The second thread is its own neighbour, so that each link by itself is sound."""
    memory = flatkernel.memory()
    node = SECOND + TASK["thread_node"]
    struct.pack_into("<QQ", memory, node, node, node)
    struct.pack_into("<QQ", memory, SIGNALS, node, node)
    struct.pack_into("<QQ", memory, INIT_TASK + TASK["thread_node"], SIGNALS, SIGNALS)
    seen: list[int] = []
    with pytest.raises(Corrupt, match=r"point back|two thread lists"):
        seen.extend(task.pid for task in flatkernel.kernel(memory).tasks())
    assert len(seen) <= 2


@settings(deadline=None)
@given(st.data())
def test_damaged_kernels_raise_only_our_errors(data: st.DataObject) -> None:
    memory = flatkernel.memory()
    for _ in range(data.draw(st.integers(1, 6))):
        at = 8 * data.draw(st.integers(0, flatkernel.USED // 8 - 1))
        word = data.draw(st.integers(0, 2**64 - 1) | st.sampled_from(range(0, 0x900, 8)))
        struct.pack_into("<Q", memory, at, word)
    kernel = flatkernel.kernel(memory)
    for ask in (kernel.tasks, kernel.modules):
        try:
            list(ask())
        except IntrospectError:
            pass
    try:
        read_all(kernel)
    except IntrospectError:
        pass
