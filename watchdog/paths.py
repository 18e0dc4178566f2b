# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the daemon's files live: the system's places for root, XDG's for others.

VNODE_DEBUG_CONFIG, VNODE_DEBUG_RUN and VNODE_DEBUG_STATE override them.
"""

from __future__ import annotations

import os
from pathlib import Path


def _place(override: str, system: str, xdg: str, fallback: str) -> Path:
    if os.environ.get(override):
        return Path(os.environ[override])
    if os.geteuid() == 0:
        return Path(system)
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / fallback) / "vnode-debug"


def config_file() -> Path:
    """The config file read when none is named."""
    if os.environ.get("VNODE_DEBUG_CONFIG"):
        return Path(os.environ["VNODE_DEBUG_CONFIG"])
    return _place("", "/etc/vnode-debug", "XDG_CONFIG_HOME", ".config") / "vnodes.toml"


def run_dir() -> Path:
    """Directory of the control socket; gone after a reboot."""
    return _place("VNODE_DEBUG_RUN", "/run/vnode-debug", "XDG_RUNTIME_DIR", ".cache")


def state_dir() -> Path:
    """Directory of incidents and dumps; kept."""
    return _place("VNODE_DEBUG_STATE", "/var/lib/vnode-debug", "XDG_STATE_HOME", ".local/state")


def control_socket() -> Path:
    """The daemon's control socket."""
    return run_dir() / "control.sock"


def loan_record() -> Path:
    """What the running root has lent to vnodes, see loan.py."""
    return run_dir() / "loan.json"


def journal_dir() -> Path:
    """Faults that are not filed as incidents yet; in memory, and gone after a reboot."""
    return run_dir() / "journal"


def private_dir(path: Path) -> Path:
    """Create `path` with mode 0700 (parents too) and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
