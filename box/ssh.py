# SPDX-License-Identifier: GPL-2.0-or-later
"""Reaching into the box: keys made for it, its host key pinned, one shared connection.

The shared connection (ssh's ControlMaster) makes a command cost a tenth of a fresh login, which
takes a second under emulation.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from box import cache

ALIAS = "vnode-debug-box"


def make_keys(directory: Path) -> None:
    """An ed25519 pair for us and one for the box's sshd, once a box directory."""
    tool = cache.program("ssh-keygen", "openssh-client")
    for name in ("client_key", "host_key"):
        if not (directory / f"{name}.pub").exists():
            (directory / name).unlink(missing_ok=True)
            argv: list[str | Path] = [tool, "-q", "-t", "ed25519", "-N", "", "-C", ALIAS]
            argv += ["-f", directory / name]
            cache.run("ssh keys", argv, timeout=30)
    public = (directory / "host_key.pub").read_text()
    cache.write_atomically(directory / "known_hosts", f"{ALIAS} {public}".encode())


def options(directory: Path, control: Path, port: int) -> list[str]:
    """Options for ssh: nothing of the user's own configuration, nothing asked."""
    settings = {
        "HostKeyAlias": ALIAS,
        "UserKnownHostsFile": _quote(directory / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentityFile": _quote(directory / "client_key"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "KexAlgorithms": "curve25519-sha256",
        "ControlPath": _quote(control),
        "ServerAliveInterval": "30",
        "SendEnv": "COLORTERM NO_COLOR VNODE_DEBUG_*",
        "Port": str(port),
    }
    return ["-F", "none", *(word for k, v in settings.items() for word in ("-o", f"{k}={v}"))]


def argv(options: Sequence[str], command: Sequence[str], *, tty: bool) -> list[str]:
    """ssh that runs `command` word by word as root in the box; its exit status is the command's."""
    terminal = "-tt" if tty else "-T"
    shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=yes"]
    return ["ssh", *options, *shared, terminal, "root@127.0.0.1", "--", shlex.join(command)]


def open_shared(options: Sequence[str]) -> list[str]:
    """ssh that logs in, leaves the shared connection behind and ends."""
    return ["ssh", *options, "-M", "-N", "-f", "-o", "ControlPersist=yes", "root@127.0.0.1"]


def close_shared(options: Sequence[str]) -> list[str]:
    """ssh that ends the shared connection."""
    return ["ssh", *options, "-O", "exit", "root@127.0.0.1"]


def _quote(path: Path) -> str:
    """ssh splits these values at spaces and expands % signs."""
    return '"' + str(path).replace("%", "%%") + '"'
