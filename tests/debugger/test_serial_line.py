# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb and a console on one line: a guest's serial port and QEMU's stub, mixed by a pty.

No kernel of Debian has CONFIG_KGDB, so QEMU's stub stands for kgdb.
"""

import os
import re
import select
import socket
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from bench import rsp_guest
from bench.rsp_guest import Guest
from cli.main import run
from debugger import gdb, serial_line
from debugger.errors import NothingThere, WrongTarget
from debugger.packet import frame
from debugger.serial_line import Line
from tests.debugger.conftest import GDBS, under


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("serial:/dev/ttyS0", ("/dev/ttyS0", 115200, False)),
        ("serial:/dev/ttyS0,9600", ("/dev/ttyS0", 9600, False)),
        ("serial:/dev/ttyS0,sysrq", ("/dev/ttyS0", 115200, True)),
        ("serial:socket://host:4000,9600,sysrq", ("socket://host:4000", 9600, True)),
    ],
)
def test_words_for_a_line(text: str, line: tuple[str, int, bool]) -> None:
    assert Line.parse(text) == line


@pytest.mark.parametrize(
    "text",
    ["serial:", "serial:,9600", "serial:/dev/x,fast", "serial:/dev/x,1,2", "serial:/dev/x,\u0661",
     "serial:/dev/x," + "9" * 5000],
)  # fmt: skip
def test_words_that_name_no_line(text: str) -> None:
    with pytest.raises(WrongTarget, match="DEVICE"):
        Line.parse(text)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("serial:/dev/none", 4, "No such file"), ("serial:/dev/null,0", 4, "/dev/null"),
        ("serial:nosuch://x", 4, "nosuch"), ("serial:loop://", 4, "cannot be opened"),
        ("serial:socket://127.0.0.1:1", 4, "refused"), ("serial:/dev/x,,", 2, "DEVICE[,BAUD]"),
        ("serial:\x1b[2J", 4, "cannot be opened"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_had(
    text: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["attach", text]) == code
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and "\x1b" not in told


def read_until(descriptor: int, text: bytes, seconds: float = 60) -> bytes:
    seen, end = b"", time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 65536)
    assert text in seen, seen[-500:]
    return seen


def opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def test_a_line_over_tcp() -> None:
    """pyserial's socket:// for a terminal server; a break where gdb interrupts cannot be had."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with serial_line.shared(f"serial:socket://127.0.0.1:{port}") as (console, place):
            line, _ = server.accept()
            terminal = opened(console)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(place)
                client.sendall(frame(b"?"))
                assert line.recv(100) == frame(b"?")
                line.sendall(b"+log $ " + frame(b"S05") + b"\r\nmore")
                received = b""
                while not received.endswith(frame(b"S05")):
                    received += client.recv(100)
                assert received == b"+" + frame(b"S05")
                assert b"log $ \r\nmore" in read_until(terminal, b"more")
                os.write(terminal, b"typed")
                assert line.recv(100) == b"typed"
                client.sendall(b"\x03")
                assert line.recv(100) == b"\x03"
            seen = b""
            while not seen.startswith(
                b"$S05"
            ):  # once it is noticed that nobody is there to take it
                line.sendall(frame(b"S05") + b"!")
                seen = read_until(terminal, b"!")
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(place)
                client.sendall(frame(b"?"))
                assert line.recv(100) == frame(b"?")
                line.close()  # the terminal server went away
                assert client.recv(1) == b""
            os.close(terminal)


def test_an_interrupt_for_kgdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty knows no break: that one is sent, and g after it, is what can be seen."""
    breaks: list[float] = []
    monkeypatch.setattr(serial.Serial, "send_break", lambda _self, seconds: breaks.append(seconds))
    master, slave = os.openpty()
    tty.setraw(slave)
    with serial_line.shared(f"serial:{os.ttyname(slave)},sysrq") as (_, place):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(place)
            client.sendall(b"\x03")
            assert read_until(master, b"g") == b"g"
        assert breaks == [0.25]
        with (
            pytest.raises(NothingThere, match="lock"),
            serial_line.shared(f"serial:{os.ttyname(slave)}"),
        ):
            pass
    os.close(master)
    os.close(slave)


NOISE = b"<1 + $ - #>"


class Mixer:
    """One line for a guest's console and QEMU's stub, as kgdboc makes one.

    From the debugger's side `$`, `+` and `-` are the stub's: they are not typed on the console.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._line, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._stub = socket.socket(socket.AF_UNIX)
        self._in_packet = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        console = self._guest._console
        sources: list[int | socket.socket] = [self._line, console]
        while True:
            for source in select.select(sources, [], [])[0]:
                if source == self._line:
                    for byte in os.read(self._line, 4096):
                        self._route(byte, sources)
                elif isinstance(source, socket.socket):
                    data = source.recv(4096)
                    if not data:
                        return  # the guest has ended: else this spins to the end of the test run
                    os.write(self._line, data)

    def _route(self, byte: int, sources: list[int | socket.socket]) -> None:
        """A byte from the debugger's side: `$...#xx`, acknowledgements and ^C are the stub's."""
        if byte == ord("$"):
            self._in_packet = -1
        elif byte == ord("#") and self._in_packet:
            self._in_packet = 3
        if self._in_packet or byte in b"+-\x03":
            if self._stub not in sources:
                self._stub.connect(str(self._guest.gdb_socket))
                sources.append(self._stub)
            self._stub.sendall(bytes((byte,)))
            self._in_packet -= self._in_packet > 0
        else:
            self._guest._console.sendall(bytes((byte,)))


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    if rsp_guest.missing():
        pytest.skip(rsp_guest.missing())
    noise = b"while :; do cat /proc/uptime >/dev/null; echo '%s'; done\n" % NOISE
    with rsp_guest.running(tmp_path_factory.mktemp("serial"), extra={"noise": noise}) as running:
        yield running


@pytest.mark.box
def test_gdb_and_a_console_on_one_line(guest: Guest) -> None:
    kernel = guest.target().kernel
    banner, place = (kernel.symbols.address(n) for n in ("linux_banner", "do_sys_openat2"))
    mixer = Mixer(guest)
    with serial_line.shared(f"serial:{mixer.path}") as (console, place_of_gdb):
        terminal = opened(console)
        os.write(terminal, b"echo SHELL' 'READY\n")
        read_until(terminal, b"SHELL READY")
        os.write(terminal, b"sh /noise &\n")
        read_until(terminal, NOISE)
        commands = [f"x/s {banner:#x}", f"hbreak *{place:#x}", "continue", "p $rip", "continue ",
                    "info threads", "delete", "detach"]  # fmt: skip
        args = ["-nx", "--batch"]
        for command in commands:
            args += ["-ex", f"echo \\n<{command}>\\n", "-ex", command]
        line = gdb.command_line(GDBS[0], Path(place_of_gdb), (), args)
        out = captured(line)
        assert "Linux version 6." in under(out, commands[0])
        assert under(out, "p $rip").endswith(f"{place:#x}")
        assert re.search(r"Thread 1\.2 \(CPU#1 \[", under(out, "info threads"))
        # the guest runs on, and so does its console
        seen = b"".join(read_until(terminal, NOISE) for _ in range(3))
        os.write(terminal, b"echo DO''NE\n")
        seen += read_until(terminal, b"DONE")
        assert not re.search(rb"\$[^ ]", seen)  # nothing of a packet
        os.close(terminal)


def captured(line: list[str]) -> str:
    import subprocess

    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout
