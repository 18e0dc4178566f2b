# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's words and gdb's `vnode` on a whole kernel, in which two tasks are deadlocked."""

import re
import time
from collections.abc import Iterator

import pytest

from bench import rsp_guest
from bench.rsp_guest import Guest
from debugger.session import Session
from debugger.target import KernelTarget
from introspect.object import Object
from tests.debugger.conftest import GDBS, Client, ask_gdb, under
from tests.introspect.test_stack import crasher  # noqa: F401  # a fixture

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(bool(rsp_guest.missing()), reason=rsp_guest.missing()),
]


@pytest.fixture(scope="module")
def guest(
    tmp_path_factory: pytest.TempPathFactory,
    crasher: bytes,  # noqa: F811
) -> Iterator[Guest]:
    with (
        pytest.MonkeyPatch.context() as patch,
        rsp_guest.running(
            tmp_path_factory.mktemp("commands"), extra={"crasher": crasher}
        ) as running,
    ):
        patch.setenv("VNODE_DEBUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        running.shell("for n in $(seq 950); do sleep 5000 & done; echo ALL-SLEEP")
        running.expect(b"ALL-SLEEP")
        running.shell("insmod /crasher fault=deadlock; sleep 2; echo STUCK")
        running.expect(b"STUCK")
        yield running


@pytest.fixture(autouse=True)
def own_cache() -> None:
    """The module's cache serves all tests here."""


@pytest.fixture(scope="module")
def target(guest: Guest) -> KernelTarget:
    return guest.target(tasks=True)


@pytest.fixture(scope="module")
def client(target: KernelTarget) -> Client:
    return Client(Session(target))


def test_a_thousand_tasks(client: Client, target: KernelTarget) -> None:
    target.refresh()
    start = time.process_time()
    rows = client.words("ps").splitlines()
    assert len(rows) > 1000
    assert time.process_time() - start < 2.0  # 0.03 s natively: docs/debugging.md
    assert sum(row.endswith(" sleep") for row in rows) >= 950


def test_stacks_of_all(client: Client) -> None:
    text = client.words("bt-all")
    assert text.startswith("== All CPUs\nCPU 0")
    assert re.search(r"^95\d tasks: sleep \(\d+\) S", text, re.MULTILINE)
    assert "crasher_ab+" in text


def test_locks(client: Client) -> None:
    text = client.words("locks")
    assert "Deadlock of 2 tasks:" in text
    assert re.search(
        r"crash_ab \(\d+\) waits in crasher_ab for mutex crasher_second \[crasher\],"
        r" which crash_ba \(\d+\) owns",
        text,
    )
    assert re.search(r"rwsem +crash_writer \(\d+\)", text)


def test_modules_memory_and_crash(client: Client) -> None:
    text = client.words("modules")
    assert re.search(r"^crasher +0xffffffffc\w+ +\d+ +OE$", text, re.MULTILINE)
    assert re.search(r"^pktgen ", text, re.MULTILINE)
    text = client.words("mem")
    assert re.search(r"^total +2\d{5} KiB$", text, re.MULTILINE)
    assert "task_struct" in text
    assert client.words("crash").startswith("no failure found\n")


def test_structures(client: Client, target: KernelTarget) -> None:
    kernel = target.kernel
    assert client.words("struct list_head").splitlines() == [
        "struct list_head: 16 bytes",
        "     0      8  struct list_head *next",
        "     8      8  struct list_head *prev",
    ]
    init = kernel.symbols.address("init_task")
    for place in ("init_task", "&init_task", f"{init:#x}", f"{init:x}", "0x" + f"{init:X}"):
        text = client.words(f"struct task_struct.comm {place}")
        assert text.endswith(' = "swapper/0"\n'), text
    assert ".comm = (char [16])" in client.words("struct task_struct init_task")
    assert client.words("struct pktgen_dev").startswith("struct pktgen_dev: 2304 bytes\n")
    assert client.words("struct pid_type").splitlines()[1] == "     0  PIDTYPE_PID"
    assert client.words("struct mutex.owner").startswith("atomic_long_t")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("struct", "usage: struct TYPE"), ("struct nosuch", "no type nosuch"),
        ("struct page.flags.x 0x1000", "no member"), ("struct page 0x10", "0x10"),
        ("struct page 0xzz", "neither a number nor a symbol"), ("struct page nosuch", "no symbol"),
        ("struct page 1 2", "usage: struct TYPE"), ("struct a\x1b[2J", "usage: struct"),
        ("struct page 0xffffffffffffffff", "0xffffffffffffffff"),
        ("struct page " + "9" * 5000, "neither"), ("percpu", "usage: percpu"),
        ("percpu jiffies", "not a per-CPU variable"), ("percpu nosuch", "no symbol"),
        ("percpu runqueues 99", "no CPU 99"), ("percpu runqueues -1", "usage: percpu"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(client: Client, words: str, said: str) -> None:
    text = client.words(words)
    assert text.startswith("error: ") and text.count("\n") == 1 and "\x1b" not in text
    assert said in text


def test_per_cpu_variables(client: Client, target: KernelTarget) -> None:
    kernel = target.kernel
    lines = client.words("percpu cpu_number").splitlines()
    assert [line.rpartition(" = ")[2] for line in lines] == ["0", "1"]
    lines = client.words("percpu runqueues").splitlines()
    assert len(lines) == 2 and "(struct rq) 0xff" in lines[1]
    text = client.words("percpu runqueues 1")
    assert text.startswith("(struct rq) 0x") and ".nr_running = (unsigned int)" in text
    place = kernel.per_cpu("runqueues", 1).address_
    assert f"{place:#x}" in text


def test_a_hostile_name_steers_no_terminal(guest: Guest, client: Client) -> None:
    """comm is what a process likes it to be; the kernel's own log holds what /dev/kmsg took."""
    guest.shell("printf 'a\\033]0;owned\\007b' >/proc/self/comm; echo RENAMED")
    guest.expect(b"RENAMED")
    guest.shell("printf '\\033[31mred' >/dev/kmsg; echo LOGGED")
    guest.expect(b"LOGGED")
    client.words("refresh")
    for words in ("ps", "log", "bt-all", "locks", "struct task_struct init_task"):
        assert not re.search(r"[^\x20-\x7e\n]", client.words(words)), words
    assert client.words("log 1").endswith(" red\n")


@pytest.mark.parametrize("program", GDBS)
def test_the_same_in_gdb(target: KernelTarget, program: str) -> None:
    commands = [
        "vnode", "vnode ps", "vnode locks", "vnode struct struct task_struct.comm init_task",
        "vnode struct task_struct.pid &init_task",
        "vnode percpu cpu_number 0+1", "vnode info version", "vnode nosuch", "vnode struct nosuch",
        "vnode log 2", "pipe vnode ps | grep -c sleep", "complete vnode mo",
    ]  # fmt: skip
    out = ask_gdb(program, target, commands)
    assert under(out, "vnode").startswith("help ")
    assert "crash_ab" in under(out, "vnode ps")
    assert "Deadlock of 2 tasks" in under(out, "vnode locks")
    assert under(out, commands[3]).endswith('"swapper/0"')
    assert under(out, commands[4]).endswith(" = 0")
    assert under(out, commands[5]).endswith(" = 1")
    assert "shared memory" in under(out, "vnode info version")
    assert "no such command: try `monitor help`" in out
    assert "no type nosuch" in out
    assert len(under(out, "vnode log 2").splitlines()) == 2
    assert int(under(out, commands[-2])) >= 950
    assert under(out, "complete vnode mo").startswith("vnode modules\n")
    assert "Python Exception" not in out


def test_a_live_list_head(client: Client, target: KernelTarget) -> None:
    """What `struct` shows is what memory holds."""
    kernel = target.kernel
    head: Object = kernel.object("modules")
    text = client.words("struct list_head modules")
    assert f".next = (struct list_head *){head.member_('next').value_():#x}," in text
