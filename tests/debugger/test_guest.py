# SPDX-License-Identifier: GPL-2.0-or-later
"""The real gdb on a real kernel, running and dead; KASLR is on, nothing is stopped for it."""

import os
import re
import socket
import threading
from pathlib import Path

import pytest

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.fake import root_side
from adeos.machine import Binding
from bench import rsp_guest
from bench.rsp_guest import Guest
from debugger import attach as attach_module
from debugger import gdb, sources, symfile
from debugger.packet import Kind, Parser, frame
from debugger.server import Server
from debugger.target import Liveness
from tests.debugger.conftest import GDBS, ask_gdb, under

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(bool(rsp_guest.missing()), reason=rsp_guest.missing()),
]


@pytest.mark.parametrize("program", GDBS)
def test_a_running_kernel(guest: Guest, program: str) -> None:
    target = guest.target()
    kernel = target.kernel
    assert kernel.kaslr_offset
    commands = [
        "x/s linux_banner", "info threads", "x/2i $pc", "p &init_task", "p jiffies",
        "shell sleep 0.2", "p jiffies ", "p (char *)linux_banner", "info symbol schedule",
        "p saved_command_line", "p $cr0", "p $efer", "p/x $gs_base", "p &current_task", "bt 1",
        "p panic_cpu", "monitor info version", "set var jiffies = 1", "x/gx 0xffff800000000000",
        "x/2gx $rsp", "find &linux_banner, +64, 'L', 'i', 'n', 'u', 'x'",
    ]  # fmt: skip
    out = ask_gdb(program, target, commands)
    banner = kernel.string(kernel.symbols.address("linux_banner"))
    assert banner[:150] in under(out, "x/s linux_banner")
    assert banner[:150] in under(out, "p (char *)linux_banner")
    threads = under(out, "info threads")
    assert 'Thread 2.1 "guest" (CPU 0 running [sampled])' in threads
    assert 'Thread 2.2 "guest" (CPU 1 running [sampled])' in threads
    assert f"{kernel.symbols.address('init_task'):#x} <init_task>" in under(out, "p &init_task")
    assert under(out, "info symbol schedule").startswith("schedule in section .text")
    assert "console=ttyS0" in under(out, "p saved_command_line")
    assert "PE" in under(out, "p $cr0")
    assert "LME" in under(out, "p $efer")
    assert "void" not in under(out, "p/x $gs_base")
    offset = kernel.symbols.address("current_task")
    assert under(out, "p &current_task").endswith(f"{offset:#x}")  # per-CPU: not moved by KASLR
    assert under(out, "p panic_cpu").endswith(" = -1")
    assert "GDB remote protocol over shared memory" in out  # goes to stderr
    assert f"Cannot access memory at address {kernel.symbols.address('jiffies'):#x}" in out
    assert "1 pattern found" in out
    before, after = (
        int(re.findall(r"= (\d+)", under(out, name))[0]) for name in ("p jiffies", "p jiffies ")
    )
    assert after > before  # the guest runs on, and no cache is stale


@pytest.mark.parametrize("program", GDBS)
def test_what_watching_refuses(guest: Guest, program: str) -> None:
    commands = ["stepi", "break schedule", "continue", "finish", "set $rax = 0x5ca1ab1e", "detach"]
    out = ask_gdb(program, guest.target(), commands)
    assert "cannot be stepped" in out
    assert "no breakpoint was set" in out
    assert "nothing is written" in out
    assert "detached" in under(out, "detach")


def test_continue_until_the_interrupt_by_mi(guest: Guest) -> None:
    from pygdbmi.gdbcontroller import GdbController

    target = guest.target()
    path = Path(os.environ["VNODE_DEBUG_CACHE"]) / "rsp.sock"
    server = Server(lambda: target, path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    setup = gdb.commands(target.kernel, volatile=True)
    line = gdb.command_line("gdb", path, setup, ["-nx", "--interpreter=mi3"])
    controller = GdbController(line)

    def until(message: str) -> dict:  # type: ignore[type-arg]
        for _ in range(100):
            for record in controller.get_gdb_response(timeout_sec=20):
                if record["message"] == message:
                    return record["payload"] or {}
        raise AssertionError(message)

    try:
        until("thread-group-started")
        controller.write("-exec-continue", read_response=False)
        until("running")
        controller.gdb_process.send_signal(2)
        stopped = until("stopped")
        assert stopped["signal-name"] == "SIGINT"
        controller.write("-thread-info", read_response=False)
        assert [row["details"] for row in until("done")["threads"]] == [
            "CPU 0 running [sampled]",
            "CPU 1 running [sampled]",
        ]
    finally:
        controller.exit()
        server.close()


def test_attach_leaves_nothing_behind(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["-nx", "--batch", "-ex", "x/s linux_banner"]
    assert attach_module.attach([guest.target], arguments) == 0
    assert "Linux version" in capfd.readouterr().out
    left = [*Path("/tmp").glob(f"{attach_module._PREFIX}*")]
    assert [path for path in left if not attach_module._is_stale(path)] == []


def test_a_killed_gdb_leaves_nothing_behind(guest: Guest) -> None:
    arguments = ["-nx", "--batch", "-ex", "shell kill -9 $PPID"]
    assert attach_module.attach([guest.target], arguments) == 128 + 9
    left = [*Path("/tmp").glob(f"{attach_module._PREFIX}*")]
    assert [path for path in left if not attach_module._is_stale(path)] == []


def test_the_symbol_file_gives_every_symbol(guest: Guest) -> None:
    from elftools.elf.elffile import ELFFile

    kernel = guest.target().kernel
    with symfile.build(kernel).open("rb") as file:
        symtab = ELFFile(file).get_section_by_name(".symtab")
        assert symtab.num_symbols() == len(kernel.symbols.table) + 1
        found = symtab.get_symbol_by_name("start_kernel")[0]["st_value"]
    assert found + kernel.kaslr_offset == kernel.symbols.address("start_kernel")


def qemu_reads(path: Path, request: bytes) -> bytes:
    """The answer of QEMU's stub, which stops the guest meanwhile."""
    parser, payloads = Parser(), []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request)
        while not payloads:  # a stop reply comes first, unasked
            events = parser.feed(client.recv(65536))
            payloads = [e.payload for e in events if e.kind is Kind.PACKET and e.payload[0] != 84]
        client.sendall(b"+" + frame(b"D"))
        client.recv(64)
    return payloads[0]


def test_qemus_own_stub_reads_the_same(guest: Guest) -> None:
    """Our page walk against QEMU's, in text, read-only data and the direct map."""
    target = guest.target()
    kernel = target.kernel
    command_line = kernel.u64(kernel.symbols.address("saved_command_line"))
    places = [kernel.symbols.address(name) for name in ("schedule", "linux_banner")]
    for address in (*places, command_line):
        theirs = qemu_reads(guest.gdb_socket, frame(b"m%x,100" % address))
        assert bytes.fromhex(theirs.decode()) == target.read(1, address, 0x100)


@pytest.mark.parametrize("program", GDBS)
def test_a_dead_kernel(dead: Guest, program: str) -> None:
    commands = ["x/s linux_banner", "info threads", "p panic_cpu", "continue", "x/i $pc"]
    commands += ["thread apply all bt 3"]
    target = dead.target(dead=True)
    out = ask_gdb(program, target, commands)
    assert "Linux version" in under(out, "x/s linux_banner")
    assert "CPU 0 crashed [saved]" in under(out, "info threads")
    assert "CPU 1 crashed [saved]" in under(out, "info threads")
    assert under(out, "p panic_cpu").split()[-1] in ("0", "1")
    assert "is dead" in out
    assert " panic ()" in under(out, "thread apply all bt 3")


def test_a_vmcore_gives_memory_and_registers(dead: Guest, vmcore: Path) -> None:
    target = sources.dump(vmcore)
    assert target.liveness is Liveness.DEAD
    live = dead.registers()
    for cpu in (0, 1):
        values = target.registers(cpu + 1)
        for name in ("rip", "rsp", "rbp", "gs_base", "cr3", "cr4", "eflags"):
            assert values[name] == live[cpu][name], name
    banner = target.kernel.symbols.address("linux_banner")
    assert target.read(1, banner, 13) == b"Linux version"


def test_a_raw_image_has_cpus_without_registers(dead: Guest) -> None:
    target = sources.dump(dead.ram, tasks=False)
    assert [thread.info for thread in target.threads()] == [
        "CPU 0 dead [no registers]",
        "CPU 1 dead [no registers]",
    ]


class OneVnode:
    """A machine that is a copy of the guest's memory, with a bridge written into it."""

    def __init__(self, guest: Guest) -> None:
        self.memory = bytearray(guest.ram.read_bytes())
        self.binding = Binding(2, (1, 2), Range(0, len(self.memory)), Range(1 << 40, 0x10000),
                               0x70, 0, 0, 0, 0)  # fmt: skip
        at = abi.VN_OFF_BRIDGE
        bridge = Bridge(memoryview(self.memory)[at : at + abi.VN_BRIDGE_SIZE])
        bridge.init(root_side(2, 3))
        for cpu, values in enumerate(guest.registers()):
            regs = tuple(values.get(name, 0) for name in abi.USER_REGS)
            frame = abi.FRAME.unpack(bytes(abi.FRAME.size))._replace(
                flags=abi.VN_FRAME_GP | abi.VN_FRAME_CONTROL, tsc=1, regs=regs, cr3=values["cr3"]
            )
            where = at + abi.VN_BR_DEBUG_REGS + cpu * abi.FRAME.size
            self.memory[where : where + abi.FRAME.size] = abi.FRAME.pack(frame)

    def query(self, _vnode: int) -> Binding | None:
        return self.binding

    def view(self, base: int, size: int, *, writable: bool = False) -> memoryview:
        if base >= len(self.memory):
            return memoryview(bytes(size))
        return memoryview(self.memory)[base : base + size].toreadonly()


def test_a_fenced_vnode_through_its_bridge(dead: Guest) -> None:
    machine = OneVnode(dead)
    target = sources.vnode(machine, 2, "web", tasks=False)  # type: ignore[arg-type]
    assert [thread.info for thread in target.threads()] == [
        "CPU 0 fenced [saved]",
        "CPU 1 fenced [saved]",
    ]
    out = ask_gdb("gdb", target, ["x/s linux_banner", "info threads", "bt 1"])
    assert "Linux version" in under(out, "x/s linux_banner")
    assert "#0 " in under(out, "bt 1")
    # started again: the session is told, and reads nothing of the successor
    abi.ROOT_SIDE.put(memoryview(machine.memory), abi.VN_OFF_BRIDGE, "incarnation", 4)
    out = ask_gdb("gdb", target, ["p jiffies"])
    assert "Cannot access memory" in out
