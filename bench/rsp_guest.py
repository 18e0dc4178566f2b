# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock kernel in QEMU whose RAM is a file: something to debug without a box.

Used by the benchmark and by the tests of the debugger.  The guest's registers
are read over QMP, which does not stop it; its memory is the shared file.
"""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from bench import stock
from box.cpio import Archive
from debugger.target import Change, Identity, KernelTarget, Liveness
from introspect.kernel import Kernel
from introspect.memory import BufferMemory, map_file

MEMORY = 256 << 20
READY = b"GUEST-READY"
PATIENCE = 300.0
"""Seconds without a word of the guest: a busy host needs minutes to boot it."""
_INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /*.ko; do /bin/busybox insmod $module; done
/bin/busybox stty -echo </dev/ttyS0
echo {READY.decode()} >/dev/ttyS0
exec /bin/busybox setsid /bin/busybox sh </dev/ttyS0 >/dev/ttyS0 2>&1
"""
_REGISTER = re.compile(r"\b([A-Z0-9]{2,4}) ?=([0-9a-f]{8,16})\b")
_SEGMENT = re.compile(r"\b([CDEFGS]S) =([0-9a-f]{4}) ([0-9a-f]{16})")


def missing() -> str:
    """What this machine lacks to run a guest; "" when nothing."""
    if not shutil.which("qemu-system-x86_64"):
        return "qemu-system-x86_64 is not installed"
    if not _kernels():
        return "no cloud kernel at hand: apt install linux-image-cloud-amd64"
    if not Path("/bin/busybox").exists():
        return "busybox-static is not installed"
    return ""


def _kernels() -> list[Path]:
    return stock.kernels("cloud-")


def _module(name: str) -> bytes:
    """A module of the guest's kernel; b"" when its package has none."""
    found = list(stock.modules(_kernels()[-1]).rglob(f"{name}.ko"))
    return found[0].read_bytes() if found else b""


def initrd(extra: Mapping[str, bytes]) -> bytes:
    """A busybox that loads the modules in `extra`, says READY and has its shell on the console."""
    archive = Archive()
    archive.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    archive.file("init", _INIT.encode(), 0o755)
    for name, data in extra.items():
        archive.file(name, data)
    return gzip.compress(archive.finish(), 1)


class Console:
    """A serial line of a guest: the other end of a Unix socket.

    Read all the time: a few hundred characters that nobody takes, and the guest waits.
    """

    def __init__(self, line: socket.socket) -> None:
        self._socket = line
        self._socket.settimeout(None)
        self._seen = b""
        self._over = False
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        data = b"-"
        while data:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            with self._news:
                self._seen += data
                self._over = not data
                self._news.notify_all()

    def expect(self, text: bytes, seconds: float = PATIENCE) -> bytes:
        """The output up to `text`; what follows it is kept for the next call."""
        with self._news:
            self._news.wait_for(lambda: text in self._seen or self._over, seconds)
            if text not in self._seen:
                kind = EOFError if self._over else TimeoutError
                raise kind(f"no {text!r} from the guest; its console said {self._seen[-500:]!r}")
            found, text, self._seen = self._seen.partition(text)
            return found + text

    def line(self, command: str) -> None:
        """Types a line."""
        self._socket.sendall(command.encode() + b"\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def connect(path: Path, ended: Callable[[], bool] = lambda: False) -> socket.socket:
    """A connection to a socket that is there within 30 s, unless its owner has ended."""
    deadline = time.monotonic() + 30
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            client.settimeout(PATIENCE)
            return client
        except OSError:
            client.close()
            if time.monotonic() > deadline or ended():
                raise
            time.sleep(0.05)


class Guest:
    """A running guest; files live in `directory`, RAM in /dev/shm when there is one.

    `extra` are files for its root directory, `more` are words for QEMU's command line; `bare`
    leaves out pktgen, a module to look at; `patience` is for its boot and QMP, in seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cpus: int = 2,
        append: str = "",
        extra: Mapping[str, bytes] | None = None,
        bare: bool = False,
        patience: float = PATIENCE,
        memory: int = MEMORY,
        more: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.cpus = cpus
        self.memory = memory
        shm = Path("/dev/shm")
        self.ram = (shm if shm.is_dir() else directory) / f"rsp-guest-{os.getpid()}-{id(self):x}"
        self.gdb_socket = directory / "gdb.sock"
        image = directory / "initrd.gz"
        modules = {} if bare else {"pktgen.ko": _module("pktgen")}
        image.write_bytes(initrd({**modules, **(extra or {})}))
        self._process = subprocess.Popen(
            [*self._command(image, append), *more],
            start_new_session=True,  # Ctrl-C is for us; and the scheduler shares by session
        )
        try:
            self._console = connect(directory / "serial.sock", self._ended)
            self._console.settimeout(patience)
            self._qmp = connect(directory / "qmp.sock", self._ended)
            self._qmp.settimeout(patience)
            self._replies = self._qmp.makefile("rb")
            self._replies.readline()
            self.qmp("qmp_capabilities")
            self.expect(READY)
        except BaseException:
            self.close()
            raise

    def _command(self, initrd: Path, append: str) -> list[str]:
        at = self.directory
        return [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", str(self.cpus),
            "-cpu", "max", "-m", str(self.memory >> 20), "-machine", "pc,memory-backend=ram",
            "-object",
            f"memory-backend-file,id=ram,size={self.memory},mem-path={self.ram},share=on",
            "-kernel", str(_kernels()[-1]), "-initrd", str(initrd),
            "-append", f"console=ttyS0 quiet panic=0 {append}",
            "-nodefaults", "-display", "none", "-no-reboot",
            "-serial", f"unix:{at}/serial.sock,server=on,wait=off",
            "-qmp", f"unix:{at}/qmp.sock,server=on,wait=off",
            "-qmp", f"unix:{at}/second.sock,server=on,wait=off",
            "-gdb", f"unix:{at}/gdb.sock,server=on,wait=off",
        ]  # fmt: skip

    def _ended(self) -> bool:
        return self._process.poll() is not None

    @cached_property
    def console(self) -> Console:
        """The console from now on; `expect` and `shell` are not for use with it."""
        return Console(self._console)

    def expect(self, text: bytes) -> bytes:
        """The console's output up to `text`."""
        seen = b""
        while text not in seen:
            data = self._console.recv(4096)
            if not data:
                raise EOFError(f"guest ended; its console said {seen[-500:]!r}")
            seen += data
        return seen

    def shell(self, command: str) -> None:
        """Type a line into the guest's shell."""
        self._console.sendall(command.encode() + b"\n")

    def qmp(self, command: str, **arguments: object) -> object:
        """The return value of a QMP command."""
        request = {"execute": command, "arguments": arguments}
        self._qmp.sendall(json.dumps(request).encode() + b"\n")
        while True:
            reply = json.loads(self._replies.readline())
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise RuntimeError(str(reply["error"]))

    def event(self, name: str) -> None:
        """Waits for an event of QMP."""
        while json.loads(self._replies.readline()).get("event") != name:
            pass

    def registers(self) -> list[dict[str, int]]:
        """Registers of every CPU, by gdb's names."""
        text = str(self.qmp("human-monitor-command", **{"command-line": "info registers -a"}))
        return [_registers(part) for part in re.split(r"CPU#\d+", text)[1:]]

    def fill(self, sleepers: int) -> None:
        """Start so many processes; the marks keep the console awake on a slow host."""
        mark = "[ $((i % 25)) = 0 ] && echo $i"
        each = f"for i in $(seq {sleepers}); do sleep 99999 & {mark}; done"
        self.shell(f"{each}; echo SLEEPERS-SLEEP")
        self.expect(b"SLEEPERS-SLEEP")

    def panic(self) -> None:
        """Let the guest's kernel panic, and wait for its last line."""
        self.shell("echo c >/proc/sysrq-trigger")
        self.expect(b"end Kernel panic")

    def target(self, *, dead: bool = False, tasks: bool = False) -> KernelTarget:
        """The guest as a target of the debugger: all its RAM but the hole below 1 MiB."""
        ram = memoryview(map_file(self.ram)[0])
        memory = BufferMemory([(0, ram[:0xA0000]), (0x100000, ram[0x100000:])])
        kernel = Kernel.find(memory, live=not dead)
        return KernelTarget(Identity(2, "guest"), kernel, QmpCpus(self, dead=dead), tasks=tasks)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.ram.unlink(missing_ok=True)


def _registers(text: str) -> dict[str, int]:
    renamed = {"EFL": "eflags", "RFL": "eflags"}
    values = {
        renamed.get(name, name.lower()): int(value, 16)
        for name, value in _REGISTER.findall(text)
        if re.fullmatch(r"R[A-Z0-9]{1,2}|EFL|EFER|CR[0-8]", name)
    }
    for name, selector, base in _SEGMENT.findall(text):
        values[name.lower()] = int(selector, 16)
        if name in ("FS", "GS"):
            values[f"{name.lower()}_base"] = int(base, 16)
    return values


class QmpCpus:
    """CpuSource of a Guest."""

    volatile = True
    focus = 0

    def __init__(self, guest: Guest, *, dead: bool) -> None:
        self.count = guest.cpus
        self.liveness = Liveness.DEAD if dead else Liveness.RUNNING
        self.restarted = False
        self._guest = guest
        self._saved = guest.registers()

    def refresh(self) -> None:
        self._saved = self._guest.registers()

    def registers(self, cpu: int) -> Mapping[str, int]:
        return self._saved[cpu]

    def state(self, cpu: int) -> str:
        return "crashed [saved]" if self.liveness is Liveness.DEAD else "running [sampled]"

    def change(self) -> Change | None:
        return Change("restarted", gone=True) if self.restarted else None


@contextlib.contextmanager
def alone(**options: object) -> Iterator[Guest]:
    """The same in a directory that is gone afterwards; its name is short: sockets live there."""
    with (
        tempfile.TemporaryDirectory(prefix="rsp-") as name,
        running(Path(name), **options) as guest,
    ):
        yield guest


@contextlib.contextmanager
def running(directory: Path, **options: object) -> Iterator[Guest]:
    """A guest that is ended when the block is left."""
    guest = Guest(directory, **options)  # type: ignore[arg-type]
    try:
        yield guest
    finally:
        guest.close()
