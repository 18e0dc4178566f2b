# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt, on_crash=coredump-restart: a libvirtd of our own, whose files are all in one directory.

It runs as an ordinary user (as root: as nobody, in a process namespace that ends with it), so
that nothing of a libvirt that is installed here is touched, and none of it is left over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from bench.peers.guest import CPU, PATIENCE_S, WORDS, check_elf, crash, figures, kernel, modules
from bench.peers.table import NotHere, Take
from bench.rsp_guest import READY, Console, connect, initrd

NAME = "libvirt `on_crash=coredump-restart`"
DOMAIN = "bench"
XML = """<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{at}/vmlinuz</kernel><initrd>{at}/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=0 {words}</cmdline></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>{model}</model>{features}</cpu>
  <on_crash>coredump-restart</on_crash>
  <devices><emulator>{qemu}</emulator><panic model='isa'/><memballoon model='none'/>
    <serial type='unix'><source mode='bind' path='{at}/serial'/></serial></devices>
</domain>
"""


class Libvirt:
    """A running libvirtd, and virsh for it."""

    def __init__(self, at: Path, user: Sequence[str], environment: dict[str, str]) -> None:
        self.at = at
        self._user = user
        self._environment = environment

    def virsh(self, *words: str) -> str:
        done = subprocess.run(
            [*self._user, "virsh", "-q", "-c", "qemu:///session", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
        )
        if done.returncode:
            raise RuntimeError(f"virsh {words[0]}: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def daemon() -> Iterator[Libvirt]:
    """A libvirtd that ends, with its guests, when the block is left."""
    for program in ("libvirtd", "virsh"):
        if not shutil.which(program):
            raise NotHere(f"{program} is not installed")
    image = kernel().vmlinuz
    with tempfile.TemporaryDirectory(prefix="libvirt-", ignore_cleanup_errors=True) as name:
        at = Path(name)
        for part in ("run", "config/libvirt", "cache", "data", "dumps"):
            (at / part).mkdir(parents=True)
        (at / "config/libvirt/qemu.conf").write_text(f'auto_dump_path = "{at}/dumps"\n')
        shutil.copyfile(image, at / "vmlinuz")
        (at / "initrd").write_bytes(initrd(modules(["pvpanic-mmio"])))
        user, space = _user(at)
        kinds = {"RUNTIME_DIR": "run", "CONFIG_HOME": "config", "CACHE_HOME": "cache"}
        environment = {f"XDG_{kind}": f"{at}/{part}" for kind, part in kinds.items()}
        environment |= {"PATH": os.environ["PATH"] + ":/usr/sbin", "HOME": name}
        environment["XDG_DATA_HOME"] = f"{at}/data"
        with (at / "log").open("wb") as log:
            process = subprocess.Popen(
                [*space, *user, "sh", "-c", "libvirtd & wait $!"],  # somebody must reap QEMU
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us; we end it in order
            )
        libvirt = Libvirt(at, user, environment)
        try:
            _wait(at / "run/libvirt/libvirt-sock", process)
            yield libvirt
        finally:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                libvirt.virsh("destroy", DOMAIN)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _user(at: Path) -> tuple[list[str], list[str]]:
    """The words before a command that make its user the daemon's, and those for its namespace."""
    leash = ["setpriv", "--pdeathsig=KILL"]
    if os.getuid():
        return leash, []
    for path in (at, *at.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    user = [*leash, "--reuid=nobody", "--regid=nogroup", "--clear-groups"]  # undoes --kill-child
    return user, [*leash, "unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]


def _wait(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise NotHere("libvirtd does not start here")
        time.sleep(0.1)
    time.sleep(1)  # it answers once its drivers are up


def measure(libvirt: Libvirt, mebibytes: int) -> Take:
    """One panic of a new domain."""
    at = libvirt.at
    for old in (at / "dumps").iterdir():
        old.unlink()
    model, *features = CPU.split(",+")
    (at / "domain.xml").write_text(
        XML.format(
            name=DOMAIN,
            words=WORDS,
            memory=mebibytes,
            at=escape(str(at)),
            qemu=shutil.which("qemu-system-x86_64"),
            model=model,
            features="".join(f"<feature policy='require' name='{one}'/>" for one in features),
        )
    )
    libvirt.virsh("create", f"{at}/domain.xml")
    try:
        console = Console(connect(at / "serial"))
        try:
            console.expect(READY, PATIENCE_S)
            fault = crash(console)
            console.expect(READY, PATIENCE_S)
            now = time.time()
        finally:
            console.close()
    finally:
        libvirt.virsh("destroy", DOMAIN)
    (dump,) = (at / "dumps").iterdir()
    check_elf(dump, mebibytes << 20)
    safe = dump.stat().st_mtime  # when the last of it was written
    return figures(fault, safe, now, dump)
