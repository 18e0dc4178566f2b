# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of a box, QEMU and virtiofsd, from their start until the root vnode is ready."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from box import cache, home, process, qemu
from box.errors import BootFailed, BoxTimeout, HostLacks

READY = b"box: ready"
FAILED = b"box: FAILED"
# virtiofsd 7.2 wants to be root and to write its pid to /run/virtiofsd
AS_ROOT_OF_ITS_OWN = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
AS_ROOT_OF_ITS_OWN += ['mount -t tmpfs tmpfs /run && mkdir /run/virtiofsd && exec "$@"']


def launch(
    spec: qemu.Spec, kernel: str, progress: cache.Progress, *, leashed: bool = False
) -> home.Record:
    """Starts virtiofsd and QEMU and writes the record; `leashed` ends QEMU with its parent."""
    box = home.directory()
    for log in (spec.console_log, spec.vnodes_log):
        log.write_bytes(b"")
    started = [_serve_checkout(spec.tree_socket, box / "virtiofsd.log")]
    try:
        progress(
            f"box: booting {kernel} on {spec.cpus} CPUs, {spec.memory >> 20} MiB ({spec.accel})"
        )
        leash = ["setpriv", "--pdeathsig", "KILL"] if leashed else []
        child = _spawn([*leash, *qemu.argv(spec)], box / "qemu.log")
        if child is None:
            raise BootFailed(f"QEMU ended at once: {_last_words(box / 'qemu.log')}")
        started.append(child)
        record = home.Record(
            pid=child.pid,
            start=child.start,
            port=spec.port,
            memory=spec.memory,
            cpus=spec.cpus,
            accel=spec.accel.partition(",")[0],
            kernel=kernel,
            started=time.time(),
        )
        home.write_record(record)
    except BaseException:
        for one in started:
            process.stop(one)
        raise
    return record


def _spawn(argv: list[str], log: Path) -> process.Identity | None:
    """Starts a process of its own session, deaf to our terminal; None when it ended at once."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    return process.identify(child.pid)


def _serve_checkout(path: Path, log: Path) -> process.Identity:
    """virtiofsd on the checkout; it ends by itself when QEMU does."""
    places = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
    program = next((place for place in places if os.access(place, os.X_OK)), None)
    if program is None:
        raise HostLacks("virtiofsd is missing: apt-get install qemu-system-common (or virtiofsd)")
    user = [] if os.geteuid() == 0 else [*AS_ROOT_OF_ITS_OWN, "virtiofsd"]
    path.unlink(missing_ok=True)
    argv = [*user, program, f"--socket-path={path}", "--thread-pool-size=1"]
    argv += ["-o", f"source={cache.REPOSITORY}", "-o", "cache=auto", "-o", "sandbox=chroot"]
    identity = _spawn(argv, log)
    end = time.monotonic() + 10.0
    while identity is not None and process.alive(identity) and time.monotonic() < end:
        if path.exists():
            return identity
        time.sleep(0.02)
    if identity is not None:
        process.stop(identity)
    raise BootFailed(f"virtiofsd did not start: {_last_words(log)}")


def wait_ready(record: home.Record, timeout: float, progress: cache.Progress) -> None:
    """Follows the console until the root vnode says that it is ready."""
    console = home.directory() / "console.log"
    begin = time.monotonic()
    told = begin
    while True:
        seen = console.read_bytes()
        if READY in seen:
            progress(f"box: up after {time.monotonic() - begin:.1f} s")
            return
        if FAILED in seen:
            raise BootFailed(f"the root vnode gave up: {_last_words(console)}; see {console}")
        if process.wait_gone(record.qemu, 0.1):
            words = _last_words(home.directory() / "qemu.log") or _last_words(console)
            raise BootFailed(f"QEMU ended while the box booted: {words}; see {console}")
        now = time.monotonic()
        if now - begin > timeout:
            raise BoxTimeout(f"the box was not ready after {timeout:.0f} s; see {console}")
        if now - told > 10:
            told = now
            progress(f"box: booting, {now - begin:.0f} s")


def _last_words(log: Path) -> str:
    """The last lines of a log, safe for a terminal, on one line."""
    lines = log.read_bytes()[-4000:].decode(errors="replace").splitlines()
    text = " | ".join(line.strip() for line in lines[-3:] if line.strip())
    return "".join(c if c.isprintable() else "?" for c in text)[:400]
