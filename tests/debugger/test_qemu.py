# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU guests with shared memory: where their memory lies, watched, stopped and stepped."""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import rsp_guest
from bench.rsp_guest import Guest
from cli.main import run
from debugger import qemu, stub_proxy
from debugger.errors import NothingThere, WrongTarget
from debugger.qmp import Qmp
from tests.debugger.conftest import under

GIB = 1 << 30
QEMU = "qemu-system-x86_64"
needs_guest = pytest.mark.skipif(bool(rsp_guest.missing()), reason=rsp_guest.missing())


def test_words_for_a_guest() -> None:
    guest = qemu.Guest.parse("qemu:/dev/shm/a,b,qmp=/run/q,x.sock")
    assert guest == (Path("/dev/shm/a,b"), "/run/q,x.sock")


@pytest.mark.parametrize(
    "text", ["qemu:", "qemu:ram", "qemu:,qmp=q", "qemu:ram,qmp=", "qemu:\0,qmp=q"]
)
def test_words_that_name_none(text: str) -> None:
    with pytest.raises(WrongTarget, match="RAMFILE"):
        qemu.Guest.parse(text)


def test_no_qmp_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attach", f"qemu:{tmp_path}/ram,qmp={tmp_path}/none"]) == 4
    assert "no QMP there: No such file" in capsys.readouterr().err
    assert run(["attach", "qemu:x"]) == 2
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other"))
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            client.sendall(b'{"no": "greeting"}\n')

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NothingThere, match="something else answers"):
            Qmp(str(tmp_path / "other"))


@given(st.text(max_size=200) | st.text("CPU#01\nRIP=0f GS:", max_size=80))
def test_any_text_for_registers_and_memory(text: str) -> None:
    qemu.parse_registers(text)
    qemu.parse_mtree(" Root memory region: system\n" + text, "ram")


def test_a_cpu_in_32_bit_mode_has_no_registers() -> None:
    text = "\nCPU#0\nEAX=00000000 EBX=0\nEIP=0000fff0 EFL=2\n\nCPU#1\nRIP=0000000000000010 RFL=2\n"
    assert qemu.parse_registers(text)[0] == {}
    assert qemu.parse_registers(text)[1]["rip"] == 16


@contextlib.contextmanager
def halted(directory: Path, machine: str, memory: int, share: str = "on") -> Iterator[Qmp]:
    """A machine that has not run yet."""
    ram = directory / "ram"
    process = subprocess.Popen(
        [QEMU, "-accel", "tcg", "-S", "-display", "none", "-nodefaults",
         "-machine", f"{machine},memory-backend=pc.ram", "-m", f"{memory >> 20}M",
         "-object", f"memory-backend-file,id=pc.ram,size={memory},mem-path={ram},share={share}",
         "-object", "memory-backend-ram,id=other,size=1M",
         "-qmp", f"unix:{directory}/qmp,server=on,wait=off"]
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not (directory / "qmp").exists() and time.monotonic() < end:
            time.sleep(0.05)
        with contextlib.closing(Qmp(str(directory / "qmp"))) as qmp:
            yield qmp
    finally:
        process.kill()
        process.wait()


@pytest.mark.box
@pytest.mark.skipif(not shutil.which(QEMU), reason="needs QEMU")
@pytest.mark.parametrize(
    ("machine", "gib", "high"), [("pc", 5, 3), ("q35", 5, 2), ("pc", 3, 0), ("q35", 1, 0)]
)
def test_where_the_memory_lies(tmp_path: Path, machine: str, gib: int, high: int) -> None:
    """Each machine type splits its RAM elsewhere; `high`: the offset of what is above 4 GiB."""
    with halted(tmp_path, machine, gib * GIB) as qmp:
        assert qemu.backend_of(qmp, tmp_path / "ram") == "pc.ram"
        segments = qemu.parse_mtree(qmp.monitor("info mtree -f"), "pc.ram")
        assert [offset for start, offset, _ in segments if start >= 4 * GIB] == [high * GIB] * (
            high > 0
        )
        with (tmp_path / "ram").open("r+b", buffering=0) as file:
            for number, (start, offset, size) in enumerate(segments):
                if start == 0xC0000 or (start >= 0xA0000 and start < 1 << 20):
                    continue  # shadow RAM and ROM
                for at in (0x8000, size - 4096):
                    file.seek(offset + at)
                    file.write(b"VNODE%03d" % number)
                    told = qmp.monitor(f"xp /8bc {start + at:#x}")
                    assert "".join(re.findall(r"'(.)'", told)) == f"VNODE{number:03}"
        with pytest.raises(NothingThere, match="no memory of the guest"):
            qemu.backend_of(qmp, tmp_path / "qmp")


@pytest.mark.box
@pytest.mark.skipif(not shutil.which(QEMU), reason="needs QEMU")
def test_memory_that_is_not_shared(tmp_path: Path) -> None:
    with (
        halted(tmp_path, "pc", GIB, share="off") as qmp,
        pytest.raises(NothingThere, match="share=on"),
    ):
        qemu.backend_of(qmp, tmp_path / "ram")


def words(guest: Guest) -> str:
    return f"qemu:{guest.ram},qmp={guest.directory}/second.sock"


def attach(guest: Guest, options: list[str], commands: list[str]) -> int:
    return run(["attach", *options, words(guest), *arguments(*commands)])


def arguments(*commands: str) -> list[str]:
    args = ["-nx", "--batch"]
    for command in commands:
        args += ["-ex", f"echo \\n<{command}>\\n", "-ex", command]
    return args


def alive(guest: Guest) -> None:
    guest.shell("echo STILL' 'THERE")
    guest.expect(b"STILL THERE")


@pytest.mark.box
@needs_guest
def test_a_guest_is_watched(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    commands = ["x/s linux_banner", "info threads", "p $cr0", "vnode ps", "p jiffies",
                "shell sleep 0.3", "p jiffies ", "stepi"]  # fmt: skip
    assert attach(guest, [], commands) in (0, 1)
    out, err = capfd.readouterr()
    assert "Linux version 6." in under(out, "x/s linux_banner")
    assert "(CPU 1 running [sampled]" in under(out, "info threads")
    assert '"kthreadd" (pid 2 S)' in under(out, "info threads")
    assert "PG" in under(out, "p $cr0")
    assert "[kthreadd]" in under(out, "vnode ps")
    before, after = (int(under(out, name).split()[-1]) for name in ("p jiffies", "p jiffies "))
    assert after > before
    assert "cannot be stepped" in err
    alive(guest)


@pytest.mark.box
@needs_guest
@pytest.mark.parametrize("running", [True, False])
def test_a_guest_is_stopped_and_stepped(
    guest: Guest, running: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """By QEMU's stub, be it there already or not."""
    if not running:
        guest.qmp("human-monitor-command", **{"command-line": "gdbserver none"})
    commands = [
        "break do_sys_openat2", "continue", "bt 3", "p $rip == &do_sys_openat2", "stepi",
        "info symbol $pc", "vnode struct task_struct.comm init_task", "monitor info registers",
        "info threads", "finish", "delete", "detach",
    ]  # fmt: skip
    assert attach(guest, ["--stop"], commands) == 0
    out = capfd.readouterr().out
    assert "Breakpoint 1, 0x" in under(out, "continue")
    assert "do_sys_openat2 ()" in under(out, "bt 3") and "#2 " in under(out, "bt 3")
    assert under(out, commands[3]).endswith(" = 1")
    assert re.match(r"do_sys_openat2 \+ \d+ in", under(out, "info symbol $pc"))
    assert '"swapper/0"' in under(out, commands[6])
    assert "CPU#1" in under(out, "info threads")
    assert re.search(r" in \w*sys_open\w* \(\)", under(out, "finish"))
    alive(guest)
    if not running:
        place = f"gdbserver unix:{guest.gdb_socket},server=on,wait=off"
        guest.qmp("human-monitor-command", **{"command-line": place})


@pytest.mark.box
@needs_guest
def test_a_gdb_that_is_killed_leaves_no_breakpoint(guest: Guest) -> None:
    commands = ["break do_sys_openat2", "continue", "shell kill -9 $PPID"]
    assert attach(guest, ["--stop"], commands) == 128 + 9
    alive(guest)
    assert guest.qmp("query-status")["running"]  # type: ignore[index]


@pytest.mark.box
@needs_guest
def test_memory_comes_from_the_file(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one read of kernel memory reaches QEMU's stub."""
    asked: list[bytes] = []
    send = stub_proxy.Proxy._send

    def note(proxy: stub_proxy.Proxy, sink: socket.socket, framed: bytes) -> None:
        if sink is proxy._stub:
            asked.append(framed)
        send(proxy, sink, framed)

    monkeypatch.setattr(stub_proxy.Proxy, "_send", note)
    commands = ["x/300gx &init_task", "p init_task.comm", "bt", "detach"]
    assert attach(guest, ["--stop"], commands) == 0
    assert any(packet.startswith(b"$g#") for packet in asked)
    assert not any(packet.startswith(b"$mffff") for packet in asked)
