# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads and unloads kmb.ko as [machine] says.  Idempotent."""

from __future__ import annotations

import subprocess
from pathlib import Path

from watchdog.config import MachineConfig
from watchdog.errors import ModuleError

DEVICE = Path("/dev/kmb")
_PARAMETERS = Path("/sys/module/kmb/parameters")
_TIMEOUT_S = 30


def parameters(machine: MachineConfig) -> list[str]:
    """insmod's arguments: mem=BASE+SIZE,...  low=BASE+SIZE  cpus=N,..."""
    words = [f"mem={','.join(machine.memory)}"] if machine.memory else []
    if machine.low:
        words.append(f"low={machine.low}")
    if machine.cpus:
        words.append(f"cpus={','.join(map(str, machine.cpus))}")
    return words


def load(machine: MachineConfig) -> bool:
    """Load kmb.ko unless it is loaded; whether it was loaded now.

    ModuleError when it is absent, refuses its parameters, or is loaded with
    other ones than the config names.
    """
    if DEVICE.exists():
        _compare(machine)
        return False
    if not machine.module:
        raise ModuleError(
            f"{DEVICE} is missing and machine.module names no kmb.ko; load it, or name it"
        )
    command = ["insmod", machine.module, *parameters(machine)]
    done = _run(command)
    if done.returncode:
        why = (done.stderr.strip() or "failed").splitlines()[-1]
        raise ModuleError(f"{why}; see the kernel log for why (dmesg | grep kmb)")
    if not DEVICE.exists():
        raise ModuleError(f"{machine.module} is loaded but {DEVICE} did not appear; is udev well?")
    return True


def unload() -> bool:
    """Unload kmb.ko when nothing runs; whether it was loaded.  ModuleError when it is busy."""
    if not DEVICE.exists():
        return False
    done = _run(["rmmod", "kmb"])
    if done.returncode:
        why = (done.stderr.strip() or "failed").splitlines()[-1]
        raise ModuleError(f"{why}; stop the vnodes and close what reads {DEVICE}")
    return True


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
                " vnode-debug down, rmmod kmb, then up"
            )


def _cpus(text: str) -> set[int]:
    """CPUs of a list as the kernel writes it: 1-3,5."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
