# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads and unloads kmb.ko as [machine] says, with what the running root lends.  Idempotent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from watchdog import loan, paths
from watchdog.config import Config, MachineConfig
from watchdog.errors import ModuleError
from watchdog.spans import parse_grant

DEVICE = Path("/dev/kmb")
_PARAMETERS = Path("/sys/module/kmb/parameters")
_TIMEOUT_S = 30
BUSY_POLL_S = 0.2


def parameters(machine: MachineConfig) -> list[str]:
    """insmod's arguments, as far as they are fixed: mem=BASE+SIZE,... low=BASE+SIZE cpus=N,..."""
    fixed = machine.memory and all(parse_grant(text).base is not None for text in machine.memory)
    words = [f"mem={','.join(machine.memory)}"] if fixed else []
    if machine.low:
        words.append(f"low={machine.low}")
    if machine.cpus:
        words.append(f"cpus={','.join(map(str, machine.cpus))}")
    return words


def load(config: Config) -> bool:
    """Load kmb.ko unless it is loaded; whether it was loaded now.

    What was not reserved at boot is taken from the running root first.  ModuleError or
    MachineMissing when that fails, when the module is absent, refuses its parameters, or is
    loaded with other ones than the config names; what was taken is back then.
    """
    with _locked():
        if DEVICE.exists():
            _compare(config.machine)
            return False
        if not config.machine.module:
            raise ModuleError(
                f"{DEVICE} is missing and machine.module names no kmb.ko; load it, or name it"
            )
        loan.give_back()  # of one that was killed here
        try:
            _insert(loan.take(config))
        except BaseException:
            loan.give_back()
            raise
        return True


def _insert(machine: MachineConfig) -> None:
    command = ["insmod", machine.module, *parameters(machine)]
    done = _run(command)
    if done.returncode:
        why = (done.stderr.strip() or "failed").splitlines()[-1]
        raise ModuleError(f"{why}; see the kernel log for why (dmesg | grep kmb)")
    if not DEVICE.exists():
        raise ModuleError(f"{machine.module} is loaded but {DEVICE} did not appear; is udev well?")


def unload(patience_s: float = 0.0) -> loan.Loan:
    """Unload kmb.ko when nothing runs, and give back what is lent; what that was.

    ModuleError when the module is still busy after `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    with _locked():
        while DEVICE.exists():
            done = _run(["rmmod", "kmb"])
            if done.returncode == 0:
                break
            if time.monotonic() >= deadline:
                why = (done.stderr.strip() or "failed").splitlines()[-1]
                raise ModuleError(f"{why}; stop the vnodes and close what reads {DEVICE}")
            time.sleep(BUSY_POLL_S)
        return loan.give_back()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One at a time: two daemons may be started at once."""
    path = paths.private_dir(paths.run_dir()) / ".machine.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise ModuleError(f"no command {command[0]}; install kmod") from None
    except subprocess.TimeoutExpired:
        raise ModuleError(f"{' '.join(command)} did not end in {_TIMEOUT_S} s") from None


def _compare(machine: MachineConfig) -> None:
    """Refuse a loaded module whose parameters differ; those it does not show are not compared."""
    for word in parameters(machine):
        key, _, wanted = word.partition("=")
        try:
            have = (_PARAMETERS / key).read_text().strip().rstrip(",")
        except OSError:
            continue
        same = _cpus(have) == _cpus(wanted) if key == "cpus" else have == wanted
        if have and not same:
            raise ModuleError(
                f"kmb.ko is loaded with {key}={have}, the config wants {wanted};"
                " vnode-debug down --unload, then up"
            )


def _cpus(text: str) -> set[int]:
    """CPUs of a list as the kernel writes it: 1-3,5."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
